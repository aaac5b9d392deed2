"""The scenario of growth: twenty requests of a second each meet a server that has one worker."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from bench import project
from bench.plan import Plan
from bench.servers import Missing, Server, running
from bench.tables import Aim, Column, Table

BURST = 20
IDEAL = 1.0  # seconds: all served at the same time


@dataclass
class Growth:
    """Medians, in seconds from the moment at which the burst began."""

    grown: float  # until the last request was in the application
    last: float  # until the last answer
    workers: int  # how many have answered


def growth(plan: Plan) -> list[Table]:
    turns = plan.rounds(5)
    text = (
        f"A Django project, preloaded, and one worker that has answered a request. Then {BURST} requests come at once, "
        f"each of which sleeps for {IDEAL:g} s; the server may have {BURST} workers. Shown is when the last request "
        "has reached the application, when the last answer is there, and how many workers have answered. uWSGI's "
        f"cheaper may start {BURST - 1} workers at a time. Medians of {turns} starts."
    )
    columns = [
        Column("grown", "s until all run", 3), Column("last", "s until the last answer", 3),
        Column("workers", "workers", 0),
    ]  # fmt: skip
    table = Table("growth", f"From one worker to {BURST}", text, columns, [], chart="last")
    found = None
    try:
        servers = [
            project.ours(plan, "--min-workers", "1", "--max-workers", str(BURST)),
            project.uwsgi(
                plan, "--cheaper", "1", "--cheaper-step", f"{BURST - 1}", processes=BURST, name="uWSGI, cheaper"
            ),
        ]
        for server in servers:
            if (one := _grow(plan, server, turns, table.notes)) is not None:
                found = found or one
                table.rows.append({
                    "name": server.name, "version": server.version,
                    "grown": one.grown, "last": one.last, "workers": one.workers,
                })  # fmt: skip
    except Missing as error:
        if plan.strict:
            raise
        table.notes.append(str(error).splitlines()[0])
    table.aims = [
        Aim(f"From 1 worker to {BURST}: seconds until all requests run", found.grown if found else None, 0.5),
        Aim(f"From 1 worker to {BURST}: the last answer, times the ideal", found.last / IDEAL if found else None, 1.2),
    ]
    return [table]


def _grow(plan: Plan, server: Server, turns: int, notes: list[str]) -> Growth | None:
    """The same from the start, `turns` times; None if the server is left out."""
    all_grown, lasts, workers = [], [], []
    for _ in range(turns):
        with running([server], plan.strict) as (started, left_out):
            if not started:
                notes += left_out
                return None
            project.at_once(server, 1, "/sleep", "0")
            began = time.monotonic()
            answers = project.at_once(server, BURST, "/sleep", f"{IDEAL}")
            lasts.append(time.monotonic() - began)
            all_grown.append(max(one.began for one in answers) - began)
            workers.append(len({one.pid for one in answers}))
    return Growth(statistics.median(all_grown), statistics.median(lasts), int(statistics.median(workers)))
