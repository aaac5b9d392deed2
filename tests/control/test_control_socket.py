"""The control socket by itself: who may speak, and that who speaks badly, slowly or not at all holds up nobody."""

from __future__ import annotations

import json
import os
import resource
import select
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from scgi.errors import ListenError
from scgi.supervisor import control
from scgi.supervisor.control import LONGEST_ORDER, MOST_CLIENTS, PATIENCE, Control, Order
from support import wait_until

NOW = time.monotonic()
RELOAD = b'{"order": "reload"}\n'
STATUS = b'{"order": "status"}\n'


class Server:
    """A control socket that is heard when the test says so, and clients of it."""

    def __init__(self, path: Path, opened: ExitStack) -> None:
        self.path = path
        self.control = Control(path)
        opened.callback(self.control.close)
        self._opened = opened

    def client(self, said: bytes = b"") -> socket.socket:
        sock = self._opened.enter_context(socket.socket(socket.AF_UNIX))
        sock.settimeout(5)
        sock.connect(str(self.path))
        sock.sendall(said)
        return sock

    def hear(self, now: float = NOW) -> list[Order]:
        """All that is to be heard: an accept is one call, what was said then the next."""
        return [order for _ in range(2 * MOST_CLIENTS) for order in self.control.hear(now)]


@pytest.fixture
def server(short_tmp: Path) -> Iterator[Server]:
    with ExitStack() as opened:
        yield Server(short_tmp / "control", opened)


def answers(client: socket.socket) -> list[dict[str, Any]]:
    """Everything up to the end of file, or to a reset: what was refused unread is closed so."""
    found = []
    with client.makefile("rb") as lines, suppress(ConnectionResetError):
        for line in lines:
            found.append(json.loads(line))
    return found


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False


# Orders and answers.


def test_an_order_is_heard_with_its_arguments_and_answered_in_lines(server: Server) -> None:
    client = server.client(b'{"order": "reload", "probe": "/x"}\n')
    (order,) = server.hear()
    assert (order.name, order.arguments) == ("reload", {"probe": "/x"})
    order.say({"progress": "it loads"})
    order.finish({"done": True})
    assert answers(client) == [{"progress": "it loads"}, {"done": True}]


def test_an_order_that_comes_byte_by_byte_is_heard_once_and_what_follows_it_is_not(server: Server) -> None:
    client = server.client()
    heard = []
    for byte in STATUS + STATUS:
        client.sendall(bytes([byte]))
        heard += server.hear()
    assert [order.name for order in heard] == ["status"]
    heard[0].finish({"status": {}})
    assert client.recv(100) == b'{"status": {}}\n'


def test_a_client_that_has_closed_its_half_is_answered(server: Server) -> None:
    for said in (STATUS, STATUS.rstrip()):
        client = server.client(said)
        client.shutdown(socket.SHUT_WR)
        (order,) = server.hear()
        order.finish({"status": {}})
        assert answers(client) == [{"status": {}}]


@pytest.mark.parametrize(
    "said",
    [
        b"\n",
        b"status\n",
        b'"status"\n',
        b'{"order": "dance"}\n',
        b'{"order": ["status"]}\n',
        b"{}\n",
        b"\xff\xfe\n",
        b"[" * 60000 + b"\n",
        b'{"order": "status", "x": "' + b"x" * LONGEST_ORDER + b'"}\n',
        b"x" * (LONGEST_ORDER + 1),
    ],
    ids=lambda said: repr(said[:20]),
)
def test_what_is_no_order_is_refused_with_a_sentence(server: Server, said: bytes) -> None:
    client = server.client(said)
    assert server.hear() == []
    (refusal,) = answers(client)
    assert refusal.keys() == {"refused"} and '"status", "stacks", "reload", "stop"' in refusal["refused"]


def test_an_answer_longer_than_any_buffer_arrives_whole(server: Server) -> None:
    client = server.client(STATUS)
    (order,) = server.hear()
    text = "x" * 3_000_000
    order.finish({"status": text})
    received = b""
    while not received.endswith(b"\n"):
        received += client.recv(1 << 20)
        server.hear()
    assert json.loads(received) == {"status": text}
    assert client.recv(1) == b""


# Those who hold nobody up.


def test_who_says_nothing_or_only_half_is_left_after_a_while(server: Server) -> None:
    clients = [server.client(), server.client(b'{"order": ')]
    assert server.hear(NOW + PATIENCE - 1) == []  # is when they are accepted
    assert server.hear(NOW + 2 * PATIENCE - 2) == [] and all(map(is_open, clients))
    assert server.hear(NOW + 2 * PATIENCE) == [] and not any(map(is_open, clients))


def test_who_waits_for_us_is_not_left_however_long_it_takes(server: Server) -> None:
    client = server.client(STATUS)
    (order,) = server.hear()
    server.hear(NOW + 10_000)
    order.finish({"status": 1})
    assert answers(client) == [{"status": 1}]


def test_who_does_not_read_the_end_of_its_answer_is_left_after_a_while(server: Server) -> None:
    client = server.client(STATUS)
    (order,) = server.hear()
    order.finish({"status": "x" * 1_000_000})
    server.hear(time.monotonic() + PATIENCE - 1)
    assert len(server.control.descriptors()) == 3
    server.hear(time.monotonic() + PATIENCE + 1)
    assert len(server.control.descriptors()) == 2
    assert 0 < len(client.recv(2_000_000)) < 1_000_000


def test_who_never_reads_while_it_waits_is_left_before_it_costs_memory(server: Server) -> None:
    server.client(STATUS)
    (order,) = server.hear()
    for _ in range(100):
        order.say({"progress": "x" * 100_000})
    assert len(server.control.descriptors()) == 2


def test_the_silent_make_room_for_others(server: Server) -> None:
    silent = [server.client() for _ in range(MOST_CLIENTS)]
    server.hear()
    client = server.client(STATUS)
    (order,) = server.hear()
    order.finish({"status": 1})
    assert answers(client) == [{"status": 1}]
    assert [is_open(one) for one in silent] == [False] + [True] * (MOST_CLIENTS - 1)


def test_those_who_wait_stay_and_one_too_many_is_told_so(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MOST_WAITING", 20)
    waiting = [server.client(RELOAD) for _ in range(20)]
    orders = server.hear()
    assert len(orders) == 20
    late = server.client(RELOAD)
    assert server.hear() == []
    assert "20 others wait" in answers(late)[0]["refused"]
    for order in orders:
        order.finish({"done": True})
    assert [answers(client) for client in waiting] == [[{"done": True}]] * 20


def test_those_who_wait_do_not_keep_anybody_from_asking_or_stopping(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "MOST_WAITING", 20)
    for _ in range(20):
        server.client(RELOAD)
    server.hear()
    server.client(STATUS)
    assert [order.name for order in server.hear()] == ["status"]


def test_a_client_that_has_vanished_is_no_error_and_costs_nothing(server: Server) -> None:
    for _ in range(3 * MOST_CLIENTS):
        client = server.client(STATUS)
        (order,) = server.hear()
        client.close()
        server.hear()
        order.say({"progress": "on the way"})
        order.finish({"status": "x" * 1_000_000})
        order.finish({"status": "again"})
    server.client().close()
    assert server.hear() == []
    assert len(server.control.descriptors()) == 2


def test_it_is_readable_only_when_there_is_something_to_hear(server: Server) -> None:
    def readable() -> bool:
        return bool(select.select([server.control], [], [], 0)[0])

    assert not readable()
    client = server.client(STATUS)
    assert readable()
    (order,) = server.hear()
    assert not readable()
    client.shutdown(socket.SHUT_WR)
    assert readable()
    server.hear()
    assert not readable()  # although the end of file stays
    order.say({"progress": "x" * 500_000})
    assert not readable()  # nor is there room to write
    client.recv(1 << 20)
    assert readable()


def test_without_descriptors_it_waits_a_second_and_then_accepts(server: Server) -> None:
    client = server.client(STATUS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(server.control.descriptors()) + 1, hard))
    filling = []
    try:
        while True:
            filling.append(os.dup(0))
    except OSError:
        pass
    try:
        assert server.hear(NOW) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filling:
            os.close(descriptor)
    assert server.hear(NOW + 0.9) == []
    (order,) = server.hear(NOW + 1.1)
    order.finish({"status": 1})
    assert answers(client) == [{"status": 1}]


# Who may speak, and whose the socket is.


def test_the_socket_is_for_its_owner_alone_whatever_the_umask(short_tmp: Path) -> None:
    before = os.umask(0)
    try:
        control = Control(short_tmp / "c")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.lstat(short_tmp / "c").st_mode) == 0o600
    control.close()
    assert not (short_tmp / "c").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_even_if_the_socket_lets_it_in(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.path.chmod(0o666)
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setresuid(65534, 65534, 65534)
            os.write(into, server.client().recv(1000))
        finally:
            os._exit(0)
    os.close(into)
    with open(out, "rb") as said:
        wait_until(lambda: server.hear() or os.waitpid(pid, os.WNOHANG)[0])
        assert json.loads(said.read()) == {"refused": "only root and the user who runs the server may give it orders"}
    assert "refused user 65534" in caplog.text


def test_a_live_servers_socket_is_not_taken_and_a_dead_ones_is(server: Server) -> None:
    with pytest.raises(ListenError, match="a live server listens there already"):
        Control(server.path)
    server.control._listener.sock.close()  # as after SIGKILL
    second = Control(server.path)
    assert server.path.exists()
    second.close()


def test_what_is_no_socket_is_left_alone(short_tmp: Path) -> None:
    (short_tmp / "c").write_text("mine")
    with pytest.raises(ListenError):
        Control(short_tmp / "c")
    assert (short_tmp / "c").read_text() == "mine"


def test_at_the_end_only_our_own_socket_is_removed(server: Server) -> None:
    client = server.client()
    server.hear()
    server.path.unlink()
    server.path.write_text("somebody else's")
    server.control.close()
    assert server.path.read_text() == "somebody else's"
    assert not is_open(client)
