"""The guard itself, beside a real child with a real connection: when it keeps a duplicate, and when it lets go."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from scgi.net.handover import Errand, pair, take
from scgi.status.scoreboard import MARKS, RECORD, STAGES, TAIL, Scoreboard, Stage, record_offset, tail_offset
from scgi.supervisor.child import Child
from scgi.supervisor.guard import Guard
from support import build_request, parse_response


@dataclass
class Scene:
    """A child that sleeps, with the other end of `peer` at `fd`; what it would write into its slot is written here."""

    board: Scoreboard
    guard: Guard
    child: Child
    peer: socket.socket
    fd: int
    entrance: socket.socket  # where the lobby would take

    def run(self, serial: int, *, stage: Stage = Stage.RUNNING, sent: int = 0, method: str = "GET") -> None:
        head = build_request({"HTTP_X_REQUEST_ID": f"order-{serial}"}, method=method, path="/page")
        offset = record_offset(0)
        RECORD.pack_into(self.board.memory, offset, serial, time.monotonic() - 1, len(head), self.fd)
        self.board.memory[offset + RECORD.size : offset + RECORD.size + len(head)] = head
        TAIL.pack_into(self.board.memory, tail_offset(0), 0, 0, 0.0, sent, 0)
        self.board.mark(0, stage)

    def watch(self) -> None:
        self.guard.watch(self.child, 0, self.board.sight(0))

    def die(self) -> None:
        os.kill(self.child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOWAIT)

    def answer(self, status: int = 502) -> None:
        self.guard.answer(self.child, 0, self.board.report(0), status)

    def received(self) -> bytes:
        """Up to the end of file."""
        self.peer.settimeout(5)
        return b"".join(iter(lambda: self.peer.recv(65536), b""))

    def is_open(self) -> bool:
        """Whether somebody still holds the other end."""
        try:
            return self.peer.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True


@pytest.fixture
def scene() -> Iterator[Scene]:
    board = Scoreboard(1)
    peer, theirs = socket.socketpair()
    taking, giving = pair()
    pid = os.fork()
    if not pid:
        peer.close()
        signal.pause()
        os._exit(0)
    fd = theirs.fileno()
    theirs.close()
    found = Scene(board, Guard(board, 1, giving), Child(pid, time.monotonic()), peer, fd, taking)
    try:
        yield found
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        found.guard.close()
        for sock in (peer, taking, giving):
            sock.close()
        board.close()


def test_the_client_of_a_child_that_has_died_is_answered_in_its_stead(scene: Scene) -> None:
    scene.run(7)
    scene.watch()
    scene.die()
    scene.answer(504)
    answer = parse_response(scene.received())
    assert (answer.status, answer.text) == (504, "504 Gateway Timeout\nRequest order-7\n")
    assert scene.guard.descriptors() == []


def test_the_worker_is_told_before_the_duplicate_is_made(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.run(7)
    seen = []
    real = os.pidfd_open
    monkeypatch.setattr(os, "pidfd_open", lambda pid: (seen.append(scene.board.memory[STAGES + MARKS]), real(pid))[1])
    scene.watch()
    assert seen == [1]


@pytest.mark.parametrize(
    "meanwhile",
    [
        {"serial": 8},
        {"serial": 7, "stage": Stage.WRITING},
        {"serial": 7, "sent": 7},
        {"serial": 7, "stage": Stage.IDLE},
    ],
    ids=["the next request", "it is answered", "its answer has begun", "it has ended"],
)
def test_what_has_changed_while_the_duplicate_was_made_is_not_kept(scene: Scene, meanwhile: dict[str, int]) -> None:
    scene.run(7)
    sight = scene.board.sight(0)
    scene.run(**meanwhile)
    scene.guard.watch(scene.child, 0, sight)
    assert scene.guard.descriptors() == []
    scene.die()
    scene.answer()
    assert scene.received() == b""


def test_nothing_is_kept_of_what_has_begun_to_be_answered(scene: Scene) -> None:
    scene.run(7, sent=7)
    scene.watch()
    assert scene.guard.descriptors() == []


def test_a_request_that_has_ended_or_begun_to_be_answered_is_let_go_at_the_next_look(scene: Scene) -> None:
    for change in ({"serial": 7, "sent": 7}, {"serial": 8}, {"serial": 7, "stage": Stage.READING}):
        scene.run(7)
        scene.watch()
        scene.guard.let_go_of_ended()
        assert len(scene.guard.descriptors()) == 1
        scene.run(**change)
        scene.guard.let_go_of_ended()
        assert scene.guard.descriptors() == []


@pytest.mark.parametrize("change", [{"serial": 8}, {"serial": 7, "sent": 7}], ids=["another request", "begun"])
def test_a_duplicate_answers_for_its_own_request_alone(scene: Scene, change: dict[str, int]) -> None:
    scene.run(7)
    scene.watch()
    scene.run(**change)
    scene.die()
    scene.answer()
    assert scene.received() == b""


def test_a_peer_that_takes_nothing_holds_nobody(scene: Scene) -> None:
    scene.run(7)
    scene.watch()
    (duplicate,) = scene.guard.descriptors()
    with socket.socket(fileno=os.dup(duplicate)) as full, pytest.raises(BlockingIOError):
        while True:
            full.send(b"x" * 4096, socket.MSG_DONTWAIT)
    scene.die()
    scene.answer()  # and this returns
    assert set(scene.received()) == {ord("x")}


def test_who_still_sends_is_left_to_the_lobby(scene: Scene) -> None:
    scene.run(7)
    scene.watch()
    scene.peer.sendall(b"more than was announced")
    scene.die()
    scene.answer()
    parcel = take(scene.entrance)
    assert parcel is not None and parcel.errand is Errand.ANSWER and not parcel.data
    scene.peer.sendall(b"and more")
    assert parse_response(scene.received()).status == 502
    parcel.close()


def test_a_peer_that_has_gone_hurts_nobody(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.run(7)
    scene.watch()
    scene.peer.close()
    scene.die()
    scene.answer()
    assert "in the place of" not in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_system_that_refuses_is_one_line_and_asked_no_more(
    scene: Scene, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def refuse(*arguments: int) -> int:
        asked.append(arguments)
        ctypes.set_errno(number)
        return -1

    monkeypatch.setattr(scene.guard, "_call", refuse)
    scene.run(7)
    with caplog.at_level(logging.WARNING):
        scene.guard.try_on(scene.child, scene.fd)
        scene.watch()
        scene.guard.try_on(scene.child, scene.fd)
    assert len(asked) == len([one for one in caplog.messages if "guard: off" in one]) == 1
    assert not scene.guard.on and os.strerror(number) in scene.guard.off


def test_a_child_that_has_closed_it_or_is_gone_is_no_refusal(scene: Scene) -> None:
    scene.run(7)
    scene.fd = 900
    scene.guard.try_on(scene.child, scene.fd)
    scene.run(7)
    scene.watch()
    scene.die()
    scene.watch()
    assert scene.guard.on and scene.guard.descriptors() == []
