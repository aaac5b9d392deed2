"""Who may connect over TCP: the list's verdicts, and a worker that turns the others away."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scgi import log as scgi_log
from scgi.apps.answer import Outcome
from scgi.errors import ConfigError
from scgi.net.address import parse_address
from scgi.net.allow import AllowList, needs_allow
from scgi.status.scoreboard import DRAINING, Scoreboard, Stage
from scgi.workers.blocking import Surroundings, Worker, WorkerPlan
from support import build_request, wait_until


@pytest.mark.parametrize(
    ("networks", "admitted", "refused"),
    [
        (["192.0.2.7"], ["192.0.2.7", "::ffff:192.0.2.7"], ["192.0.2.8", "127.0.0.1", "::1", "::192.0.2.7"]),
        (["10.1.0.0/16"], ["10.1.0.0", "10.1.255.255"], ["10.0.255.255", "10.2.0.0", "::ffff:10.2.0.1"]),
        (["10.1.2.3/16"], ["10.1.99.99"], ["10.2.2.3"]),
        (["2001:db8::/32"], ["2001:db8::5", "2001:db8:ffff::"], ["2001:db9::1", "192.0.2.7", "::ffff:192.0.2.7"]),
        (["fe80::/10"], ["fe80::1%eth0", "fe80::1"], ["::1", "fec0::1%eth0"]),
        (["127.0.0.0/8", "::1"], ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"], ["10.0.0.1", "::2"]),
        (["any"], ["192.0.2.7", "::1", "fe80::1%eth0"], []),
        ([], [], ["127.0.0.1", "::1"]),
        (["0.0.0.0/0"], ["192.0.2.7", "::ffff:192.0.2.7"], ["2001:db8::5", "", "localhost", "192.0.2.7.1", "1"]),
    ],
)
def test_the_list_admits_whom_it_names_and_nobody_else(
    networks: list[str], admitted: list[str], refused: list[str]
) -> None:
    allow = AllowList(networks)
    for _ in range(2):  # the second time from memory
        assert [host for host in admitted if not allow.admits(host)] == []
        assert [host for host in refused if allow.admits(host)] == []


def test_what_is_no_network_is_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"expected a network such as 10\.0\.0\.0/8.*'example\.com'"):
        AllowList(["10.0.0.0/8", "example.com"])


def test_a_million_peers_do_not_fill_the_memory() -> None:
    allow = AllowList(["10.0.0.0/24"])
    for number in range(5000):
        assert allow.admits(f"10.0.{number // 250}.{number % 250}") == (number < 250)
    assert len(allow._verdicts) <= 1024


@pytest.mark.parametrize(
    "address", ["0.0.0.0:4000", "192.0.2.7:4000", "[::]:4000", "[2001:db8::5]:1", "[fe80::1%eth0]:1"]
)
def test_an_address_that_other_machines_reach_needs_a_list(address: str) -> None:
    said = needs_allow([parse_address("/run/x.sock"), parse_address("127.0.0.1:1"), parse_address(address)])
    assert address in said and "--allow any" in said


@pytest.mark.parametrize(
    "address", ["127.0.0.1:4000", "127.3.2.1:4000", "[::1]:1", "[::ffff:127.0.0.1]:1", "/run/x.sock"]
)
def test_an_address_of_this_machine_alone_needs_none(address: str) -> None:
    assert needs_allow([parse_address(address)]) == ""


class Scene:
    """A worker with an allow-list that names 127.0.0.1 alone, at one TCP address or at that and a unix socket."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.board = Scoreboard(4)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(f"{folder}/socket")
        self.unix.listen()
        self.pid = 0

    def start(self, several: bool = False) -> None:
        listeners = [self.tcp, self.unix] if several else [self.tcp]
        if not (pid := os.fork()):
            try:
                scgi_log.setup(file=str(self.log))
                plan = WorkerPlan(lambda lifeline: answer, allow=AllowList(["127.0.0.1"]))
                owned = [True] * len(listeners)
                bell, lifeline = os.pipe()[1], os.pipe()[0]
                Worker(plan, Surroundings(listeners, owned, self.board, 0, bell, lifeline)).run()
            finally:
                os._exit(0)
        self.pid = pid
        wait_until(lambda: self.board.stages()[0] == Stage.IDLE)

    def ask(self, whence: str) -> bytes:
        """All of the answer to one request from that address of ours; raises if the connection is reset."""
        with socket.create_connection(self.tcp.getsockname(), 10, (whence, 0)) as peer:
            return converse(peer)

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.tcp.close()
        self.unix.close()


def answer(slot, fd, variables, length, body) -> Outcome:
    os.write(fd, b"Status: 200 OK\r\n\r\nwelcome")
    return Outcome.WHOLE


def converse(peer: socket.socket) -> bytes:
    peer.sendall(build_request())
    return b"".join(iter(lambda: peer.recv(1000), b""))


@pytest.fixture
def scene(short_tmp: Path) -> Iterator[Scene]:
    scene = Scene(short_tmp)
    yield scene
    scene.close()


def test_a_peer_that_is_not_named_is_reset_and_counted_and_never_reaches_the_application(scene: Scene) -> None:
    scene.start()
    for served in range(1, 4):
        assert scene.ask("127.0.0.1").endswith(b"welcome")
        with pytest.raises(ConnectionError):
            scene.ask("127.0.0.2")
        assert (scene.board.refused_peers(), scene.board.report(0).serial) == (served, served)


def test_a_silent_peer_that_is_not_named_is_reset_at_once(scene: Scene) -> None:
    scene.start()
    with (
        socket.create_connection(scene.tcp.getsockname(), 10, ("127.0.0.2", 0)) as peer,
        pytest.raises(ConnectionResetError),
    ):
        peer.recv(1)


def test_refusals_are_logged_once_a_second_with_their_number(scene: Scene) -> None:
    scene.start()
    start = time.monotonic()
    while time.monotonic() - start < 1.5:
        with pytest.raises(ConnectionError):
            scene.ask("127.0.0.2")
    lines = [line for line in scene.log.read_text().splitlines() if "refused" in line]
    assert 2 <= len(lines) <= 1 + time.monotonic() - start
    assert "refused 127.0.0.2, which is not in allow (1 refused so far)" in lines[0]
    assert "(1 refused" not in lines[1]


def test_a_unix_socket_beside_it_is_not_concerned(scene: Scene) -> None:
    scene.start(several=True)
    with pytest.raises(ConnectionError):
        scene.ask("127.0.0.2")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(scene.unix.getsockname())
        assert converse(peer).endswith(b"welcome")
    assert scene.ask("127.0.0.1").endswith(b"welcome")


def test_who_waits_in_the_queue_at_the_end_is_judged_too(scene: Scene) -> None:
    """The queue is drained by another `accept`."""
    scene.board.memory[DRAINING] = 1
    with ExitStack() as opened:
        good, bad, late = (
            opened.enter_context(socket.create_connection(scene.tcp.getsockname(), 10, (whence, 0)))
            for whence in ("127.0.0.1", "127.0.0.2", "127.0.0.1")
        )
        scene.tcp.setblocking(False)
        if not (pid := os.fork()):
            try:
                plan = WorkerPlan(lambda lifeline: answer, allow=AllowList(["127.0.0.1"]))
                Worker(plan, Surroundings([scene.tcp], [True], scene.board, 0, os.pipe()[1], os.pipe()[0])).run()
            finally:
                os._exit(0)
        scene.pid = pid
        assert converse(good).endswith(b"welcome")
        with pytest.raises(ConnectionError):
            converse(bad)
        assert converse(late).endswith(b"welcome")
    assert os.waitpid(pid, 0)[1] == 0
    scene.pid = 0
