"""The server's state: figures from the scoreboard, JSON there and back, and a table that nobody can forge."""

from __future__ import annotations

import json
import math
import os
import struct
import time
from dataclasses import asdict, replace
from typing import Any

import pytest

from scgi.status.render import duration, render
from scgi.status.scoreboard import RECORD, Scoreboard, Stage, record_offset
from scgi.status.snapshot import (
    Counters,
    Current,
    GenerationRow,
    ListenerRow,
    LobbyRow,
    Snapshot,
    WorkerFacts,
    WorkerRow,
    worker_rows,
)
from support import build_request


def write(board: Scoreboard, slot: int, stage: int, serial: int = 0, ago: float = 0.0, **request: Any) -> None:
    head = build_request(**request)
    offset = record_offset(slot)
    RECORD.pack_into(board.memory, offset, serial, time.monotonic() - ago, len(head), -1)
    board.memory[offset + RECORD.size : offset + RECORD.size + len(head)] = head
    board.memory[64 + slot] = stage


def rows(board: Scoreboard, *workers: WorkerFacts, threads: int = 1) -> tuple[WorkerRow, ...]:
    return worker_rows(board, threads, workers, time.monotonic())


def worker(pid: int = 0, first_slot: int = 0, retiring: bool = False, ago: float = 60.0) -> WorkerFacts:
    return WorkerFacts(pid or os.getpid(), time.monotonic() - ago, first_slot, retiring)


@pytest.mark.parametrize(
    ("stage", "state", "answered", "current"),
    [
        (Stage.STARTING, "starting", 0, 0),
        (Stage.IDLE, "idle", 7, 0),
        (Stage.READING, "reading", 7, 0),
        (Stage.RUNNING, "running", 6, 1),
        (Stage.WRITING, "writing", 6, 1),
        (Stage.RESTING, "resting", 7, 0),
        (Stage.FREE, "ending", 7, 0),
        (200, "ending", 7, 0),
    ],
)
def test_a_worker_is_in_the_state_that_its_slot_says(stage: int, state: str, answered: int, current: int) -> None:
    board = Scoreboard(1)
    write(board, 0, stage, serial=7 if answered else 0, ago=2.0, path="/shop", query="a=b")
    (row,) = rows(board, worker())
    assert (row.pid, row.state, row.requests) == (os.getpid(), state, answered)
    assert row.age == pytest.approx(60, abs=0.5) and row.cpu and row.memory
    assert len(row.current) == current
    if current:
        assert (row.current[0].id, row.current[0].request) == (f"{os.getpid()}-7", "GET /shop?a=b")
        assert row.current[0].age == pytest.approx(2, abs=0.5)


def test_one_that_was_asked_to_end_is_retiring_and_says_what_it_still_does() -> None:
    board = Scoreboard(1)
    write(board, 0, Stage.RUNNING, serial=1)
    (row,) = rows(board, worker(retiring=True))
    assert row.state == "retiring" and len(row.current) == 1


def test_the_threads_of_a_worker_are_summed_and_each_request_has_its_own_id() -> None:
    board = Scoreboard(6)
    write(board, 3, Stage.IDLE, serial=10)
    write(board, 4, Stage.WRITING, serial=3, path="/a")
    write(board, 5, Stage.RUNNING, serial=5, path="/b", variables={"HTTP_X_REQUEST_ID": "from-nginx"})
    (row,) = rows(board, worker(first_slot=3), threads=3)
    assert (row.state, row.requests) == ("running", 10 + 2 + 4)
    assert [(one.id, one.request) for one in row.current] == [
        (f"{os.getpid()}-2.3", "GET /a"),
        ("from-nginx", "GET /b"),
    ]


def test_a_worker_that_is_gone_has_no_figures_of_the_system() -> None:
    (row,) = rows(Scoreboard(1), worker(pid=(1 << 22) + 1))
    assert (row.cpu, row.memory) == (None, None)


@pytest.mark.parametrize("started", [math.nan, math.inf, -math.inf, -1e300, 1e300, 0.0])
def test_whatever_a_worker_writes_the_figures_are_numbers_within_bounds(started: float) -> None:
    board = Scoreboard(1)
    struct.pack_into("=QdQ", board.memory, record_offset(0), (1 << 64) - 1, started, (1 << 64) - 1)
    board.mark(0, Stage.RUNNING)
    (row,) = rows(board, worker(ago=5))
    assert 0 <= row.current[0].age <= row.age < 6
    assert row.requests <= 1 << 53
    json.dumps(asdict(row), allow_nan=False)


SNAPSHOT = Snapshot(
    version="1.2.3",
    pid=100,
    uptime=7500.0,
    phase="serving",
    listeners=(ListenerRow("127.0.0.1:4000", 3, 2048), ListenerRow("unix:/run/x.sock", None, 100)),
    generations=(
        GenerationRow(1, 101, "draining", 4000.0, (WorkerRow(102, "retiring", 4000.0, 12, 3.25, 47 << 20, ()),)),
        GenerationRow(
            2,
            111,
            "serving",
            60.0,
            (
                WorkerRow(112, "idle", 50.0, 12345, 0.5, 9 << 20, ()),
                WorkerRow(
                    113,
                    "running",
                    50.0,
                    2,
                    None,
                    None,
                    (Current("113-1.3", "GET /a", 0.25), Current("x", "POST /b", 99.0)),
                ),
            ),
        ),
    ),
    counters=Counters(requests=12359, reloads=1, reloads_failed=1, deaths=0, refused_peers=2),
    http="127.0.0.1:8000",
)


def test_it_goes_through_json_and_comes_back_the_same() -> None:
    assert Snapshot.from_json(json.loads(json.dumps(SNAPSHOT.as_json()))) == SNAPSHOT


def test_what_a_later_version_adds_is_left_out() -> None:
    found = SNAPSHOT.as_json()
    found["colour"] = found["counters"]["colour"] = found["generations"][0]["workers"][0]["colour"] = "blue"
    assert Snapshot.from_json(found) == SNAPSHOT


def with_generation(**changes: Any) -> Snapshot:
    """The same with one generation, of which this is different."""
    return replace(SNAPSHOT, generations=(replace(SNAPSHOT.generations[0], **changes),))


REFUSED = "off: this system refuses to duplicate a worker's connection: Operation not permitted"


def test_guard_and_lobby_of_a_generation_go_through_json_too() -> None:
    found = with_generation(guard=REFUSED, lobby=LobbyRow(1, 2, 3, 4))
    (row,) = json.loads(json.dumps(found.as_json()))["generations"]
    assert row["guard"] == REFUSED
    assert row["lobby"] == {"reading": 1, "answering": 2, "too_late": 3, "gone": 4}
    assert Snapshot.from_json(found.as_json()) == found


def test_what_an_earlier_version_did_not_have_is_as_if_nothing_had_happened() -> None:
    found = SNAPSHOT.as_json()
    for row in found["generations"]:
        del row["guard"], row["lobby"]
    del found["counters"]["lost_lines"]
    assert Snapshot.from_json(found) == SNAPSHOT


@pytest.mark.parametrize("lobby", [None, 7])
def test_a_lobby_that_is_none_is_a_value_error(lobby: object) -> None:
    found = SNAPSHOT.as_json()
    found["generations"][0]["lobby"] = lobby
    with pytest.raises(ValueError, match="not a server's state"):
        Snapshot.from_json(found)


@pytest.mark.parametrize("found", [{}, {"listeners": 1}, {**SNAPSHOT.as_json(), "generations": [{}]}, {"counters": []}])
def test_what_is_no_state_is_a_value_error(found: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not a server's state"):
        Snapshot.from_json(found)


TABLE = """\
scgi-server 1.2.3, process 100: serving for 2 h 05 min
  127.0.0.1:4000: 3 waiting, room for 2048
  unix:/run/x.sock: queue not known, room for 100
  http://127.0.0.1:8000/
  12359 requests, 1 reload, 1 failed reload, 0 lost workers, 2 refused peers

generation 1, process 101: draining for 1 h 07 min, 1 worker
  PID  STATE            AGE  REQUESTS    CPU  MEMORY  ANSWERS
  102  retiring  1 h 07 min        12  3.2 s   47 MB

generation 2, process 111: serving for 1 min, 2 workers
  PID  STATE     AGE  REQUESTS    CPU  MEMORY  ANSWERS
  112  idle     50 s     12345  0.5 s    9 MB
  113  running  50 s         2      -       -  GET /a for 0.2 s (113-1.3)
                                               POST /b for 2 min (x)
"""


def test_people_get_a_table() -> None:
    assert render(SNAPSHOT) == TABLE


def lines_between_generation_and_table(found: Snapshot) -> list[str]:
    lines = render(found).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("generation "))
    return lines[start + 1 : next(n for n, line in enumerate(lines) if line.startswith("  PID "))]


def test_a_guard_that_is_on_and_a_lobby_that_nobody_needed_are_not_worth_a_line() -> None:
    assert lines_between_generation_and_table(with_generation()) == []


def test_a_guard_that_is_off_says_why() -> None:
    assert lines_between_generation_and_table(with_generation(guard=REFUSED)) == [f"  guard: {REFUSED}"]


@pytest.mark.parametrize(
    ("lobby", "line"),
    [
        (LobbyRow(reading=12, answering=3), "  lobby: 12 reading, 3 answering; 0 came too late, 0 left"),
        (LobbyRow(too_late=5, gone=1), "  lobby: 0 reading, 0 answering; 5 came too late, 1 left"),
    ],
)
def test_a_lobby_in_which_somebody_is_or_was_has_its_figures(lobby: LobbyRow, line: str) -> None:
    assert lines_between_generation_and_table(with_generation(lobby=lobby)) == [line]


@pytest.mark.parametrize(("lost", "told"), [(0, ""), (1, ", 1 log line lost"), (1500, ", 1500 log lines lost")])
def test_log_lines_that_are_lost_are_counted_where_there_are_such(lost: int, told: str) -> None:
    found = replace(SNAPSHOT, counters=replace(SNAPSHOT.counters, lost_lines=lost))
    assert render(found).splitlines()[4].endswith("2 refused peers" + told)


def test_lines_are_cut_to_the_terminals_width_and_only_there() -> None:
    lines = render(SNAPSHOT, 40).splitlines()
    assert max(map(len, lines)) == 40 and lines[0] == "scgi-server 1.2.3, process 100: serving…"
    assert render(SNAPSHOT, 500) == render(SNAPSHOT)


def test_nothing_that_a_request_says_can_move_the_cursor_or_forge_a_line() -> None:
    evil = "GET /\x1b[2J\n999  idle  \u202e\x9b31m\x7f"
    row = WorkerRow(1, "idle\x1b[1m", 1.0, 0, 0.0, 0, (Current("id\r", evil, 0.0),))
    found = Snapshot(
        "v\n",
        1,
        1.0,
        "p\n",
        (ListenerRow("a\x1b\n"),),
        (GenerationRow(1, 1, "s\t", 1.0, (row,), "off:\x1b\n"),),
        http="h\n",
    )
    text = render(found)
    assert len(text.splitlines()) == len(text.split("\n")) - 1 == 9
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min"), (90, "2 min"), (3569, "59 min"),
        (3599, "1 h 00 min"), (86399, "1 d 00 h"), (7 * 86400 + 3600, "7 d 01 h"),
    ],
)  # fmt: skip
def test_a_time_is_told_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
