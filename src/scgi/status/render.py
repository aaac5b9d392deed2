"""A server's state as text for people: what `scgi status` prints.

Every string in it is escaped: requests come from anybody. Imports `status.snapshot` and `log`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from scgi.log import escape
from scgi.status.snapshot import Current, GenerationRow, Snapshot, WorkerRow

_HEADINGS: Final = ("PID", "STATE", "AGE", "REQUESTS", "CPU", "MEMORY", "ANSWERS")
_LEFT: Final = ("STATE", "ANSWERS")  # words; numbers stand at the right of their columns
_UNKNOWN: Final = "-"


def render(found: Snapshot, width: int | None = None) -> str:
    """Lines for a terminal of this width; of any length without one."""
    lines = [*_head(found)]
    for generation in found.generations:
        lines += ["", *_generation(generation)]
    return "".join(f"{_cut(escape(line), width)}\n" for line in lines)


def duration(seconds: float) -> str:
    """0.5 s, 42 s, 12 min, 2 h 05 min, 3 d 04 h."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, days = minutes // 60, minutes // 1440
    if not hours:
        return f"{minutes} min"
    return f"{days} d {hours % 24:02d} h" if days else f"{hours} h {minutes % 60:02d} min"


def _head(found: Snapshot) -> Iterator[str]:
    yield f"scgi-server {found.version}, process {found.pid}: {found.phase} for {duration(found.uptime)}"
    for listener in found.listeners:
        waiting = "queue not known" if listener.queue is None else f"{listener.queue} waiting"
        yield f"  {listener.address}: {waiting}, room for {listener.backlog}"
    if found.http:
        yield f"  http://{found.http}/"
    so_far = found.counters
    counts = [_count(so_far.requests, "request"), _count(so_far.reloads, "reload")]
    counts += [_count(so_far.reloads_failed, "failed reload")] if so_far.reloads_failed else []
    counts += [_count(so_far.deaths, "lost worker")]
    counts += [_count(so_far.refused_peers, "refused peer")] if so_far.refused_peers else []
    counts += [_count(so_far.lost_lines, "log line") + " lost"] if so_far.lost_lines else []
    yield "  " + ", ".join(counts)


def _generation(found: GenerationRow) -> Iterator[str]:
    workers = _count(len(found.workers), "worker")
    yield f"generation {found.number}, process {found.pid}: {found.state} for {duration(found.uptime)}, {workers}"
    if found.guard != "on":
        yield f"  guard: {found.guard}"
    if any(counts := asdict(found.lobby).values()):
        yield "  lobby: {} reading, {} answering; {} came too late, {} left".format(*counts)
    if not found.workers:
        return
    table = [_HEADINGS, *(row for worker in found.workers for row in _rows(worker))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = zip(_HEADINGS, row, widths, strict=True)
        yield "  " + "  ".join(f"{c:{'<' if name in _LEFT else '>'}{w}}" for name, c, w in cells).rstrip()


def _rows(worker: WorkerRow) -> Iterator[tuple[str, ...]]:
    """One line; one more for each further request."""
    requests = [_answers(current) for current in worker.current] or [""]
    cpu = _UNKNOWN if worker.cpu is None else f"{worker.cpu:.1f} s"
    memory = _UNKNOWN if worker.memory is None else f"{worker.memory / (1 << 20):.0f} MB"
    yield (str(worker.pid), worker.state, duration(worker.age), str(worker.requests), cpu, memory, requests[0])
    for request in requests[1:]:
        yield ("",) * (len(_HEADINGS) - 1) + (request,)


def _answers(current: Current) -> str:
    return f"{current.request} for {duration(current.age)} ({current.id})"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else line[: max(0, width - 1)] + "…"
