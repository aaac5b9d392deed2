"""The scoreboard: what is where, and that nothing written there by whomever makes a reader raise."""

from __future__ import annotations

import os
import random
import struct

import pytest

from scgi.errors import ConfigError
from scgi.status.scoreboard import (
    ARMED,
    COMPLAINED,
    DRAINING,
    HEAD_ROOM,
    MAX_SLOTS,
    RECORD,
    STAGES,
    TAIL,
    Report,
    Scoreboard,
    Slot,
    Stage,
    describe,
    plain_id,
    record_offset,
)
from support import build_request

HEAD = build_request({"HTTP_X_REQUEST_ID": "abc-1"}, path="/shop", query="a=b")


def test_stage_bytes_lie_side_by_side_and_records_apart() -> None:
    with_many = Scoreboard(300)
    assert len(with_many.stages()) == 300
    assert max(ARMED, DRAINING, COMPLAINED + 7) < STAGES
    assert record_offset(0) >= STAGES + MAX_SLOTS
    assert record_offset(1) - record_offset(0) == RECORD.size + HEAD_ROOM + TAIL.size
    assert record_offset(300) < len(with_many.memory)
    with_many.mark(299, Stage.IDLE)
    assert with_many.memory.find(bytes([Stage.IDLE]), STAGES, STAGES + 300) == STAGES + 299


def test_more_slots_than_fit_are_refused_with_a_sentence() -> None:
    Scoreboard(MAX_SLOTS).close()
    with pytest.raises(ConfigError, match=f"at most {MAX_SLOTS}"):
        Scoreboard(MAX_SLOTS + 1)


def test_a_fresh_board_is_all_free_and_a_cleared_slot_is_as_new() -> None:
    board = Scoreboard(2)
    assert set(board.stages()) == {Stage.FREE}
    write(board, 1, 7, 123.0, HEAD)
    board.mark(1, Stage.RUNNING)
    board.clear(1)
    assert board.report(1) == Report(Stage.FREE, 0, 0.0, "a request", "")


def test_refused_peers_are_counted_beyond_the_life_of_a_worker_and_said_once_a_second() -> None:
    board = Scoreboard(3)
    write(board, 2, 7, 123.0, b"x" * 5000)
    assert [board.refuse_peer(2, now) for now in (50.0, 50.9, 51.0)] == [True, False, True]
    assert board.refuse_peer(0, 51.5) is False
    board.clear(2)
    board.refuse_peer(2, 60.0)
    assert board.refused_peers() == 5
    assert board.report(1) == Report(Stage.FREE, 0, 0.0, "a request", "")


def test_what_a_worker_writes_another_process_reads() -> None:
    board = Scoreboard(3)
    if not (pid := os.fork()):
        write(board, 2, 9, 5.0, HEAD)
        board.mark(2, Stage.RUNNING)
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.report(2) == Report(Stage.RUNNING, 9, 5.0, "GET /shop?a=b", "abc-1")
    assert board.glance(2) == Report(Stage.RUNNING, 9, 5.0, "", "")
    assert board.report(1).serial == 0


def write(board: Scoreboard, slot: int, serial: int, started: float, head: bytes, size: int | None = None) -> None:
    offset = record_offset(slot)
    RECORD.pack_into(board.memory, offset, serial, started, len(head) if size is None else size, -1)
    board.memory[offset + RECORD.size : offset + RECORD.size + len(head[:HEAD_ROOM])] = head[:HEAD_ROOM]


@pytest.mark.parametrize(
    ("head", "request_line", "request_id"),
    [
        (HEAD, "GET /shop?a=b", "abc-1"),
        (HEAD + b"and a body", "GET /shop?a=b", "abc-1"),
        (HEAD[: HEAD.index(b"QUERY_STRING")], "GET /shop?a=b", ""),
        (HEAD[: HEAD.index(b"/shop") + 3], "GET /sh", ""),
        (HEAD[: HEAD.index(b"REQUEST_URI")], "GET", ""),
        (HEAD[:10], "a request", ""),
        (b"", "a request", ""),
        (b"\xff\xfe\0\0", "a request", ""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "a request", ""),
        (b"24:CONTENT_LENGTH\0000\0SCGI\0001\0,", "a request", ""),
        (build_request({"HTTP_X_REQUEST_ID": "two\nlines"}, path="/x"), "GET /x", ""),
        (build_request(path="/" + "x" * 3000), "GET /" + "x" * 295, ""),
    ],
)
def test_a_request_is_described_from_as_much_of_its_head_as_there_is(
    head: bytes, request_line: str, request_id: str
) -> None:
    assert describe(head) == (request_line, request_id)


def test_every_cut_of_a_head_can_be_described() -> None:
    for end in range(len(HEAD)):
        line, request_id = describe(HEAD[:end])
        assert "GET /shop?a=b".startswith(line) or line == "a request"
        assert "abc-1".startswith(request_id)


def test_a_slot_full_of_anything_is_read_without_harm() -> None:
    board = Scoreboard(1)
    offset = record_offset(0)
    chance = random.Random(4)
    hostile = [
        struct.pack("=QdQ", 2**64 - 1, number, size) + b"9" * 4000
        for number in (float("nan"), float("inf"), float("-inf"), -1e308, 0.0)
        for size in (0, 1, HEAD_ROOM, HEAD_ROOM + 1, 2**63, 2**64 - 1)
    ]
    hostile += [chance.randbytes(RECORD.size + HEAD_ROOM) for _ in range(200)]
    hostile += [struct.pack("=QdQ", 1, 1.0, 4072) + (b"\0" * chance.randrange(4000)) + b"x" for _ in range(5)]
    for record in hostile:
        board.memory[offset : offset + len(record)] = record
        board.memory[STAGES] = chance.randrange(256)
        report = board.report(0)
        assert report.age() >= 0
        assert "while " in report.describe(77)
        assert len(report.request) <= 300
        board.glance(0)


def test_a_dead_workers_request_is_named_with_its_id_or_else_process_and_serial() -> None:
    words = Report(Stage.RUNNING, 12, 0.0, "GET /x", "")
    assert words.describe(77).startswith("while answering GET /x (request 77-12, ")
    assert words.describe(77, 2).startswith("while answering GET /x (request 77-2.12, ")
    assert Report(Stage.READING, 12, 0.0, "GET /old", "old").describe(77) == "while reading a request"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("f3a9-17:z/+=@_.", "f3a9-17:z/+=@_."),
        ("x" * 128, "x" * 128),
        ("x" * 129, ""),
        ("", ""),
        (None, ""),
        ("a b", ""),
        ("a\n", ""),
        ("ä", ""),
    ],
)
def test_an_id_from_outside_is_taken_if_it_could_harm_no_log_line(given: str | None, taken: str) -> None:
    assert plain_id(given) == taken


def test_a_request_without_an_id_gets_process_and_serial() -> None:
    slot = Slot(Scoreboard(1), 0)
    slot.serial = 3
    assert slot.request_id() == f"{os.getpid()}-3"
    slot.variables = {"HTTP_X_REQUEST_ID": "mine"}
    assert slot.request_id() == "mine"


def test_all_workers_together_complain_once_a_second() -> None:
    board = Scoreboard(2)
    board.mark(0, Stage.RESTING)
    board.mark(1, Stage.RESTING)
    times = (50.0, 50.5, 50.9, 51.0, 51.5)
    assert [board.may_complain(0, now) for now in times] == [True, False, False, True, False]
    assert not board.may_complain(1, 59.0)  # only one of those that rest speaks
    board.memory[COMPLAINED : COMPLAINED + 8] = struct.pack("=d", 1e300)  # nobody can silence it for ever
    assert board.may_complain(0, 60.0)
