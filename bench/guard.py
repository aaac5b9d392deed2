"""`make bench-guard`: has a request become dearer than it was when this was last recorded?

    make bench-guard                  about twenty seconds; fails if it costs more than 1.1 times what it did,
                                      three times in a row
    make bench-guard ARGS=--record    make today's figure, the least of three, the recorded one

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
from bench.load import CannotCompile, WrongAnswer, compiled
from bench.plan import HERE, Plan, cpu_model
from bench.rounds import AGAIN, Measured, run
from bench.scenarios import like_a_web_server
from bench.servers import Missing, end_on_term, running
from bench.tables import twin_note

RECORD = HERE / "results/guard.json"
ALLOWED = 1.1
TRIES = 3  # caches that neighbours empty make our share dearer than the kernel's, never cheaper: the least one counts
LIVES, ROUNDS = 3, 15


def main() -> None:
    parser = argparse.ArgumentParser(
        "make bench-guard", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="make today's figure the recorded one")
    given = parser.parse_args()
    end_on_term()
    where = f"Python {platform.python_version()} on {cpu_model()}"
    try:
        if given.record:
            record(min(attempt() for _ in range(TRIES)), where)
        else:
            judge(where)
    except (Missing, WrongAnswer, CannotCompile) as error:
        sys.exit(f"bench-guard: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def judge(where: str) -> None:
    """Compare with the record; exit with status 1 if the ratio has grown by more than a tenth, each time."""
    try:
        recorded = json.loads(RECORD.read_text())
    except FileNotFoundError:
        sys.exit("bench-guard: nothing is recorded yet: make bench-guard ARGS=--record")
    for _ in range(TRIES):
        change = attempt() / recorded["ratio"]
        elsewhere = "" if recorded["where"] == where else f", there by {recorded['where']}, here by {where}"
        print(f"{change:.2f} times the {recorded['ratio']:.2f} recorded on {recorded['date']}{elsewhere}", flush=True)
        if change <= ALLOWED:
            return
    sys.exit("bench-guard: a request has become dearer by more than a tenth")


def record(ratio: float, where: str) -> None:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps({"ratio": round(ratio, 3), "where": where, "date": today}, indent=1) + "\n")
    print(f"Recorded: {ratio:.2f} ({where})")


def attempt() -> float:
    """Measure once, and say what came out."""
    others = Others()
    measured = measure()
    ratio = figure(measured)
    print(f"scgi costs {ratio:.2f} times the floor's CPU per request", *twin_note(measured), sep="\n")
    if (share := others.share()) > 0.05:
        print(f"The machine is not quiet: other processes have {share:.0%} of its CPUs")
    return ratio


def measure() -> Measured:
    measured = Measured()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        plan = Plan(folder, compiled(HERE / "client.c", folder), compiled(HERE / "floor.c", folder))
        servers = [peers.ours(plan), peers.ours(plan, "scgi" + AGAIN), peers.floor(plan)]
        for _ in range(LIVES):
            with running(servers, strict=True, apart=True) as (started, _):
                run(started, like_a_web_server(plan), rounds=ROUNDS, seconds=0.1, warm_up=0.4, into=measured)
    return measured


def figure(measured: Measured) -> float:
    """The mean of both instances: where the kernel happened to lay out one of them counts half."""
    ratios = [measured.ratio(name, "floor") for name in ("scgi", "scgi" + AGAIN)]
    return statistics.mean(ratio.median for ratio in ratios if ratio is not None)


if __name__ == "__main__":
    main()
