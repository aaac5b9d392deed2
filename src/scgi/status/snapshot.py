"""The server's state at one moment: plain values, made by the master, sent as JSON, read back by who asked.

What workers wrote is not trusted: numbers are bounded here, and text is escaped by whoever shows it. Imports the
scoreboard and `status.process`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, NamedTuple

from scgi.status.process import cpu_seconds, resident_bytes
from scgi.status.scoreboard import ANSWERING, Report, Scoreboard, Stage, own_id

_MOST_REQUESTS: Final = 1 << 53  # what JSON's readers take for a whole number


@dataclass(frozen=True, slots=True)
class Current:
    """A request that is being answered, for `age` seconds."""

    id: str
    request: str
    age: float


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker process; `requests` are those it has answered.

    `state` is starting, idle, reading, running, receiving (its application waits for more of a body), writing, resting
    (it has no descriptor left), ending, or retiring; with several threads it is that of the one that has got furthest.
    `current` has the requests of all.
    """

    pid: int
    state: str
    age: float
    requests: int
    cpu: float | None = None
    memory: int | None = None
    current: tuple[Current, ...] = ()


@dataclass(frozen=True, slots=True)
class LobbyRow:
    """Connections of slow peers now, whose requests are read or answers sent; and how many, ever, came too late (408)
    or left by themselves."""

    reading: int = 0
    answering: int = 0
    too_late: int = 0
    gone: int = 0


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """A generation of the application. `state`: loading, serving or draining; `pid` is the one that imported it.

    `guard`: on, or off and why; then a client whose worker dies gets no answer.
    """

    number: int
    pid: int
    state: str
    uptime: float
    workers: tuple[WorkerRow, ...] = ()
    guard: str = "on"
    lobby: LobbyRow = field(default_factory=LobbyRow)


@dataclass(frozen=True, slots=True)
class ListenerRow:
    """An address; `queue` connections wait there of at most `backlog`."""

    address: str
    queue: int | None = None
    backlog: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """Since the server was started. `lost_lines` of logs could not be written."""

    requests: int = 0
    reloads: int = 0
    reloads_failed: int = 0
    deaths: int = 0
    refused_peers: int = 0
    lost_lines: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of it. `phase`: serving or stopping; `http` is the address of the HTTP front, if there is one."""

    version: str
    pid: int
    uptime: float
    phase: str
    listeners: tuple[ListenerRow, ...] = ()
    generations: tuple[GenerationRow, ...] = ()
    counters: Counters = field(default_factory=Counters)
    http: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Snapshot:
        """What `as_json` gave, in this version or another: what is unknown is left out. Raises ValueError."""
        try:
            return cls(
                **_known(cls, found)
                | {
                    "listeners": tuple(ListenerRow(**_known(ListenerRow, row)) for row in found["listeners"]),
                    "generations": tuple(_generation(row) for row in found["generations"]),
                    "counters": Counters(**_known(Counters, found["counters"])),
                }
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a server's state ({error!r})") from None


class WorkerFacts(NamedTuple):
    """What the supervisor itself knows of a worker; `born` in monotonic seconds."""

    pid: int
    born: float
    first_slot: int
    retiring: bool


def worker_rows(board: Scoreboard, threads: int, workers: Iterable[WorkerFacts], now: float) -> tuple[WorkerRow, ...]:
    """A row for each worker, from its slots and from what the system says."""
    rows = []
    for worker in sorted(workers):
        age = max(0.0, now - worker.born)
        reports = [board.report(slot) for slot in range(worker.first_slot, worker.first_slot + threads)]
        numbers = range(1, threads + 1) if threads > 1 else (0,)
        current = [
            Current(
                report.request_id or own_id(worker.pid, number, report.serial), report.request, min(age, report.age())
            )
            for number, report in zip(numbers, reports, strict=True)
            if report.stage in ANSWERING
        ]
        rows.append(
            WorkerRow(
                pid=worker.pid,
                state="retiring" if worker.retiring else _state({report.stage for report in reports}),
                age=age,
                requests=sum(map(answered, reports)),
                cpu=cpu_seconds(worker.pid),
                memory=resident_bytes(worker.pid),
                current=tuple(current),
            )
        )
    return tuple(rows)


def answered(report: Report) -> int:
    """How many requests a thread has brought to their end."""
    return min(report.serial, _MOST_REQUESTS) - (report.serial > 0 and report.stage in ANSWERING)


def _state(stages: set[int]) -> str:
    for stage in (*ANSWERING, Stage.READING, Stage.RESTING, Stage.STARTING, Stage.IDLE):
        if stage in stages:
            return stage.name.lower()
    return "ending"


def _generation(found: Mapping[str, Any]) -> GenerationRow:
    workers = []
    for row in found["workers"]:
        current = tuple(Current(**_known(Current, one)) for one in row["current"])
        workers.append(WorkerRow(**_known(WorkerRow, row) | {"current": current}))
    lobby = LobbyRow(**_known(LobbyRow, found.get("lobby", {})))
    return GenerationRow(**_known(GenerationRow, found) | {"workers": tuple(workers), "lobby": lobby})


def _known(kind: Any, found: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: found[one.name] for one in fields(kind) if one.name in found}
