"""`make bench-guard`: has a request become dearer than it was when this was last recorded?

    make bench-guard                  about twenty seconds; fails if it costs more than 1.1 times what it did
    make bench-guard ARGS=--record    make today's figure the recorded one

The figure is our CPU time per request over that of the floor (floor.c) in the same rounds: hello world over a unix
socket. It needs a C compiler and no peer. The record is bench/results/guard.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from bench import peers
from bench.cpu import Others
from bench.load import CannotCompile, Client, WrongAnswer, compiled
from bench.plan import HERE, Plan, cpu_model
from bench.rounds import AGAIN, Measured, run
from bench.servers import Missing, end_on_term, running
from bench.tables import twin_note

RECORD = HERE / "results/guard.json"
ALLOWED = 1.1
LIVES, ROUNDS = 3, 45


def main() -> None:
    parser = argparse.ArgumentParser(
        "make bench-guard", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="make today's figure the recorded one")
    given = parser.parse_args()
    end_on_term()
    try:
        others = Others()
        measured = measure()
    except (Missing, WrongAnswer, CannotCompile) as error:
        sys.exit(f"bench-guard: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    ratio = figure(measured)
    where = f"Python {platform.python_version()} on {cpu_model()}"
    print(f"scgi costs {ratio:.2f} times the floor's CPU per request ({where})", *twin_note(measured), sep="\n")
    if (share := others.share()) > 0.05:
        print(f"The machine is not quiet: other processes have {share:.0%} of its CPUs")
    if given.record:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        RECORD.parent.mkdir(parents=True, exist_ok=True)
        RECORD.write_text(json.dumps({"ratio": round(ratio, 3), "where": where, "date": today}, indent=1) + "\n")
        print("Recorded.")
    else:
        judge(ratio, where)


def measure() -> Measured:
    measured = Measured()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        plan = Plan(folder, compiled(HERE / "client.c", folder), compiled(HERE / "floor.c", folder))
        servers = [peers.ours(plan), peers.ours(plan, "scgi" + AGAIN), peers.floor(plan)]
        for _ in range(LIVES):
            with running(servers, strict=True, apart=True) as (started, _):
                run(started, Client(plan.client), rounds=ROUNDS, seconds=0.03, warm_up=0.4, into=measured)
    return measured


def figure(measured: Measured) -> float:
    """The mean of both instances: where the kernel happened to lay out one of them counts half."""
    ratios = [measured.ratio(name, "floor") for name in ("scgi", "scgi" + AGAIN)]
    return statistics.mean(ratio.median for ratio in ratios if ratio is not None)


def judge(ratio: float, where: str) -> None:
    """Compare with the record; exit with status 1 if it has grown by more than a tenth."""
    try:
        record = json.loads(RECORD.read_text())
    except FileNotFoundError:
        sys.exit("bench-guard: nothing is recorded yet: make bench-guard ARGS=--record")
    change = ratio / record["ratio"]
    elsewhere = "" if record["where"] == where else f", by {record['where']}"
    print(f"{change:.2f} times the {record['ratio']:.2f} recorded on {record['date']}{elsewhere}")
    if change > ALLOWED:
        sys.exit("bench-guard: a request has become dearer by more than a tenth")


if __name__ == "__main__":
    main()
