"""The scenario of memory: what a worker more costs, with a Django project that has answered requests.

Counted is the proportional set size: a page that ten processes share is a tenth of a page of each. What a preloading
server shares stays shared only as long as nobody writes to it, and Python writes to whatever it touches; so it is
counted after every worker has made some pages, and has once gone through all its objects for garbage. That it does by
itself sooner or later: uWSGI's workers of this project do between the 50th and the 200th page.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from bench import project
from bench.cpu import descendants
from bench.load import WrongAnswer
from bench.plan import Plan
from bench.servers import Missing, Server, running
from bench.tables import Aim, Column, Row, Table

COUNTS = (1, 10, 50)
PAGES = 5  # that every worker has made at least
NEEDED = 2500  # MB: without preloading each worker has all of Django for itself


def memory(plan: Plan) -> list[Table]:
    text = (
        "A Django project, and workers each of which has made some pages and run a full garbage collection: the "
        "proportional set size of the server's whole process tree, in MB, and what each worker more has added from the "
        "first column to the last. Much of Django is only loaded by the first page, so by each worker for itself; "
        "warm is the same project when it makes a page as it is imported."
    )
    columns = [
        *(Column(f"pss{count}", f"{count} worker" + "s" * (count > 1)) for count in COUNTS),
        Column("extra", "MB per worker more", 2),
    ]
    table = Table("memory", "Memory per worker", text, columns, [], chart="extra")
    if (free := _available()) < NEEDED:
        table.notes = [f"Left out: {COUNTS[-1]} workers need {NEEDED} MB of memory, and {free:.0f} are available."]
        return [table]
    for said, env in (("", {}), (", warm", project.WARM)):
        extra: dict[str, float] = {}
        for name, make in SERVERS.items():
            row: Row = {"name": name + said}
            try:
                for count in COUNTS:
                    server = make(plan, count)
                    server.env |= env
                    row["version"] = server.version
                    row[f"pss{count}"] = _pss_after_pages(server, count)
            except Missing as error:
                if plan.strict:
                    raise
                table.notes.append(str(error).splitlines()[0])
                continue
            row["extra"] = extra[name] = (row[f"pss{COUNTS[-1]}"] - row[f"pss{COUNTS[0]}"]) / (COUNTS[-1] - COUNTS[0])
            table.rows.append(row)
        for peer, whose, limit in (("gunicorn", "gunicorn's without --preload", 0.3), ("uWSGI", "uWSGI's", 1.0)):
            ratio = extra["scgi"] / extra[peer] if "scgi" in extra and peer in extra else None
            table.aims.append(Aim(f"Memory of a worker more{said}: times {whose}", ratio, limit))
    return [table]


SERVERS: dict[str, Callable[[Plan, int], Server]] = {
    "scgi": lambda plan, count: project.ours(plan, "--min-workers", f"{count}", "--max-workers", f"{count}"),
    "uWSGI": lambda plan, count: project.uwsgi(plan, processes=count),
    "gunicorn": lambda plan, count: project.with_gunicorn(plan, "gunicorn", workers=count),
    "gunicorn --preload": lambda plan, count: project.with_gunicorn(plan, "gunicorn", "--preload", workers=count),
}


def _pss_after_pages(server: Server, workers: int, within: float = 30.0) -> float:
    """MB of the whole tree, once each of so many workers has made its pages. Raises Missing if it does not start."""
    with running([server], strict=True):
        made: Counter[int] = Counter()
        deadline = time.monotonic() + within
        while len(made) < workers or min(made.values()) < PAGES:
            if time.monotonic() > deadline:
                raise WrongAnswer(f"{server.name}: {len(made)} of {workers} workers made pages within {within:g} s")
            made.update(answer.pid for answer in project.at_once(server, workers, "/settle", "0.1"))
        return sum(_pss(pid) for pid in descendants(server.pid))


def _pss(pid: int) -> float:
    """MB of one process; 0 if it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def _available() -> float:
    """MB that processes could still have."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:"))
