"""The blocking worker alone, in a process of its own: what it writes into its slot, hears, and leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from scgi.apps.answer import Outcome
from scgi.status.scoreboard import ARMED, DRAINING, Scoreboard, Stage
from scgi.workers.blocking import NUDGE, Surroundings, Worker, WorkerPlan
from support import build_request, is_alive, wait_until


class Scene:
    """A worker in its slots 0…, a listener to reach it, and the reading end of its bell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.board = Scoreboard(4)
        self.bell, self._bell_in = os.pipe()
        os.set_blocking(self.bell, False)
        self.listeners: list[socket.socket] = []
        self.pids: list[int] = []

    def listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{self.folder}/{len(self.listeners)}")
        listener.listen(50)
        self.listeners.append(listener)
        return listener

    def start(self, threads: int = 1, first_slot: int = 0) -> int:
        if not (pid := os.fork()):
            status = 99
            try:
                plan = WorkerPlan(lambda lifeline: answer, threads=threads)
                owned = [True] * len(self.listeners)
                around = Surroundings(self.listeners, owned, self.board, first_slot, self._bell_in, self.bell)
                status = Worker(plan, around).run()
            finally:
                os._exit(status)
        self.pids.append(pid)
        slots = range(first_slot, first_slot + threads)
        wait_until(lambda: all(self.board.stages()[slot] == Stage.IDLE for slot in slots))
        return pid

    def ask(self, path: str = "/", number: int = 0) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(10)
        peer.connect(f"{self.folder}/{number}")
        peer.sendall(build_request(path=path))
        return peer

    def end(self, pid: int) -> int:
        """Its exit status, once it has ended."""
        wait_until(lambda: not is_alive(pid))
        self.pids.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def rung(self) -> bytes:
        try:
            return os.read(self.bell, 100)
        except BlockingIOError:
            return b""


def answer(slot, fd, variables, length, body) -> Outcome:
    """`/wait` answers once the peer has sent one more byte; `/leave` ends the worker; `/id` tells the request's id."""
    path = variables["PATH_INFO"]
    if path == "/wait":
        os.read(fd, 1)
    os.write(fd, b"Status: 200 OK\r\n\r\n" + slot.request_id().encode())
    return Outcome.LEAVE if path == "/leave" else Outcome.WHOLE


@pytest.fixture
def scene(short_tmp: Path) -> Iterator[Scene]:
    scene = Scene(short_tmp)
    yield scene
    for pid in scene.pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for listener in scene.listeners:
        listener.close()


def whole(peer: socket.socket) -> bytes:
    with peer:
        return b"".join(iter(lambda: peer.recv(1000), b""))


def test_a_slot_tells_what_its_thread_does_and_counts_its_requests(scene: Scene) -> None:
    scene.listen()
    pid = scene.start()
    for serial in range(1, 4):
        peer = scene.ask("/wait")
        wait_until(lambda: scene.board.stages()[0] == Stage.RUNNING)
        report = scene.board.report(0)
        assert (report.serial, report.request) == (serial, "GET /wait")
        assert 0 <= report.age() < 30
        peer.send(b"!")
        assert whole(peer).endswith(f"{pid}-{serial}".encode())
        wait_until(lambda: scene.board.stages()[0] == Stage.IDLE)


def test_requests_of_several_threads_have_an_id_each(scene: Scene) -> None:
    scene.listen()
    pid = scene.start(threads=2)
    peers = [scene.ask("/wait"), scene.ask("/wait")]
    wait_until(lambda: scene.board.stages()[:2] == bytes([Stage.RUNNING]) * 2)
    for peer in peers:
        peer.send(b"!")
    ids = {whole(peer).partition(b"\r\n\r\n")[2].decode() for peer in peers}
    assert ids == {f"{pid}-1.1", f"{pid}-2.1"}


def test_a_worker_that_turns_busy_rings_once_if_that_is_wanted_and_nobody_else_is_idle(scene: Scene) -> None:
    scene.listen()
    scene.start()
    whole(scene.ask())
    assert scene.rung() == b""
    scene.board.memory[ARMED] = 1
    scene.board.mark(3, Stage.IDLE)
    whole(scene.ask())
    assert scene.rung() == b""
    scene.board.mark(3, Stage.RUNNING)
    for _ in range(3):
        whole(scene.ask())
    assert scene.rung() == b"\0"
    assert scene.board.memory[ARMED] == 0


@pytest.mark.parametrize("listeners", [1, 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_sigterm_ends_a_worker_after_what_it_is_doing(scene: Scene, listeners: int, threads: int) -> None:
    for _ in range(listeners):
        scene.listen()
    pid = scene.start(threads)
    busy = [scene.ask("/wait", number % listeners) for number in range(threads)]
    wait_until(lambda: scene.board.stages()[:threads] == bytes([Stage.RUNNING]) * threads)
    os.kill(pid, signal.SIGTERM)
    late = scene.ask()  # stays in the queue for another worker
    for peer in busy:
        peer.send(b"!")
        assert b"200 OK" in whole(peer)
    assert scene.end(pid) == 0
    assert set(scene.board.stages()[:threads]) == {Stage.FREE}
    scene.start(first_slot=3)
    assert b"200 OK" in whole(late)


@pytest.mark.parametrize("listeners", [1, 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_sigterm_ends_an_idle_worker_at_once(scene: Scene, listeners: int, threads: int) -> None:
    for _ in range(listeners):
        scene.listen()
    pid = scene.start(threads)

    for _ in range(5):  # a signal that comes just before `accept` is missed; whoever stops a worker repeats it
        os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(pytest.fail.Exception):
            wait_until(lambda: not is_alive(pid), within=2)
            break
    assert not is_alive(pid)
    assert scene.end(pid) == 0


def test_an_adapter_that_wants_to_leave_ends_its_worker_with_status_0(scene: Scene) -> None:
    scene.listen()
    pid = scene.start()
    assert b"200 OK" in whole(scene.ask("/leave"))
    assert scene.end(pid) == 0


@pytest.mark.parametrize("listeners", [1, 2])
def test_when_draining_the_queues_are_emptied_and_then_the_worker_ends(scene: Scene, listeners: int) -> None:
    opened = [scene.listen() for _ in range(listeners)]
    pid = scene.start()
    busy = scene.ask("/wait")
    wait_until(lambda: scene.board.stages()[0] == Stage.RUNNING)
    queued = [scene.ask(number=number % listeners) for number in range(6)]
    scene.board.memory[DRAINING] = 1
    for listener in opened:
        listener.shutdown(socket.SHUT_RD)
    os.kill(pid, NUDGE)
    busy.send(b"!")
    assert all(b"200 OK" in whole(peer) for peer in (busy, *queued))
    assert scene.end(pid) == 0


def test_a_listener_that_somebody_made_non_blocking_is_waited_for_all_the_same(scene: Scene) -> None:
    listener = scene.listen()
    pid = scene.start()
    listener.setblocking(False)
    for _ in range(3):
        assert b"200 OK" in whole(scene.ask())
    assert is_alive(pid)


def test_a_nudge_frees_whoever_waits_for_a_peer_and_disturbs_nobody_else(scene: Scene) -> None:
    scene.listen()
    pid = scene.start(threads=2)
    silent = socket.socket(socket.AF_UNIX)
    silent.connect(f"{scene.folder}/0")
    wait_until(lambda: Stage.READING in scene.board.stages())
    busy = scene.ask("/wait")
    wait_until(lambda: Stage.RUNNING in scene.board.stages())
    for _ in range(50):
        os.kill(pid, NUDGE)
    busy.send(b"!")
    assert b"200 OK" in whole(busy)
    silent.sendall(build_request())
    assert b"200 OK" in whole(silent)


def test_a_peer_that_comes_and_goes_without_a_word_is_no_request(scene: Scene) -> None:
    scene.listen()
    scene.start()
    for _ in range(5):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(f"{scene.folder}/0")
    assert whole(scene.ask()).endswith(b"-1")
