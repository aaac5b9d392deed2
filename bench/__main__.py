"""`make bench`: measures, and writes what was measured into bench/results/.

make bench                                  everything; about twelve minutes
make bench ARGS="--only hello-unix"         one scenario, or several; the results go into bench/results/part/
make bench ARGS="--limit 1.3"               hello world over a unix socket, and fails above 1.3 times uWSGI
make bench ARGS="--short -- --threads 4"    fewer rounds; with more options for scgi serve
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import apache, fronts, large, memory, peers, pool_growth, render, scenarios
from bench.cpu import Others
from bench.load import CannotCompile, WrongAnswer, compiled
from bench.plan import HERE, ROOT, Plan, cpu_model
from bench.servers import Missing, end_on_term
from bench.tables import Table

SCENARIOS: dict[str, Callable[[Plan], list[Table]]] = {
    "hello-unix": scenarios.hello_unix,
    "hello-tcp": scenarios.hello_tcp,
    "hello-sleepers": scenarios.hello_sleepers,
    "hello-threads": scenarios.hello_threads,
    "apache-headers": scenarios.apache_headers,
    "sizes": scenarios.sizes,
    "crowd": scenarios.crowd,
    "slow-mix": scenarios.slow_mix,
    "start": scenarios.start_and_reload,
    "behind-nginx": fronts.behind_nginx,
    "cgi-vs-scgi": apache.cgi_vs_scgi,
    "apache-modules": apache.apache_modules,
    "uploads": large.uploads,
    "gigabyte": large.gigabyte,
    "slow-readers": large.slow_readers,
    "growth": pool_growth.growth,
    "memory": memory.memory,
}

QUIET = 0.05  # of all CPUs, for others: that is worth a note
UNSEEN = {"cgi-vs-scgi"}  # what mod_cgid starts leaves its time to nobody: it would count as others'


def main() -> None:
    parser = argparse.ArgumentParser("make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", action="append", choices=SCENARIOS, metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--short", action="store_true", help="a third of the rounds")
    parser.add_argument("--strict", action="store_true", help="a peer that is missing ends the run")
    parser.add_argument("--limit", type=float, metavar="RATIO",
                        help="fail if hello world over a unix socket costs more than so many times uWSGI's CPU;\n"
                             "measures nothing else unless --only says so")  # fmt: skip
    parser.add_argument("options", nargs="*", help="more options for scgi serve, after --")
    given = parser.parse_args()
    chosen = given.only or (["hello-unix"] if given.limit is not None else list(SCENARIOS))
    if given.limit is not None and "hello-unix" not in chosen:
        parser.error("--limit is about hello-unix: name it too, or leave --only out")
    end_on_term()
    try:
        results = measure(chosen, given)
    except (Missing, WrongAnswer, CannotCompile) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    whole = chosen == list(SCENARIOS) and not (given.short or given.options)
    folder = render.RESULTS if whole else render.RESULTS / "part"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    render.write(results, folder)
    if whole:
        render.PAGE.write_text(render.page(results))
    print(f"\n{render.terminal_aims(results['tables'])}\nThe report is {(folder / 'report.md').relative_to(ROOT)}")
    if given.limit is not None:
        judge(results, given.limit)


def measure(chosen: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """Run the scenarios, in the order of the table; each is printed when it is done."""
    results: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["make", "bench", *([f"ARGS={shlex.join(sys.argv[1:])}"] if sys.argv[1:] else [])]),
        "machine": machine(),
        "tables": [],
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        plan = Plan(
            folder, compiled(HERE / "client.c", folder), compiled(HERE / "floor.c", folder),
            given.short, given.strict, tuple(given.options),
        )  # fmt: skip
        for name in SCENARIOS:
            if name in chosen:
                others = Others()
                for table in SCENARIOS[name](plan):
                    if name not in UNSEEN and (share := others.share()) > QUIET:
                        table.notes.append(f"The machine was not quiet: other processes had {share:.0%} of its CPUs")
                    results["tables"].append(table.data())
                    print(render.terminal(results["tables"][-1]), flush=True)
    return results


def machine() -> dict[str, str]:
    """What the figures belong to. No names: they would say nothing to others."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    uwsgi = peers.uwsgi_program(sys.executable)
    ours = said(sys.executable, "-m", "scgi", "--version").split()[1:2]
    return {
        "scgi": " ".join([*ours, said("git", "-C", str(ROOT), "describe", "--always", "--dirty=, changed")]),
        "CPU": f"{cpu_model()}, {os.cpu_count()} cores",
        "Memory": f"{memory:.0f} GiB",
        "System": f"{system}, Linux {platform.release()}",
        "Python": f"{platform.python_version()} ({platform.python_compiler()})",
        "uWSGI": f"{uwsgi[1]} with Python {uwsgi[2]}" if uwsgi[1] else "none",
        "Load before the run": f"{os.getloadavg()[0]:.2f}",
    }


def said(*command: str) -> str:
    """What a command prints; "" if it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except OSError:
        return ""


def judge(results: dict[str, Any], limit: float) -> None:
    """Exit with status 1 if hello-unix is above the limit, or says nothing."""
    table = next(table for table in results["tables"] if table["name"] == "hello-unix")
    ratio = table["aims"][0]["value"]
    if ratio is None:
        sys.exit("bench: the limit cannot be judged: there is no uWSGI for this very Python")
    if not table["trusted"]:
        sys.exit("bench: the limit cannot be judged: the run is not to be trusted")
    print(f"scgi costs {ratio:.2f} times uWSGI's CPU per request")
    if ratio > limit:
        sys.exit(f"bench: that is more than the limit of {limit:g}")


if __name__ == "__main__":
    main()
