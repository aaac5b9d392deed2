"""Closing doors: nobody new comes in, and whoever was in the queue is still accepted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scgi.net import closing
from scgi.net.address import parse_address
from scgi.net.closing import refuse_new
from scgi.net.listen import Listener, adopt, open_listener
from scgi.supervisor.doors import Doors


@pytest.fixture(params=["tcp", "tcp6", "unix"])
def listener(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[Listener]:
    if request.param == "tcp6" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine has no IPv6")
    where = {"tcp": "127.0.0.1:0", "tcp6": "[::1]:0", "unix": f"unix:{short_tmp}/s"}[request.param]
    found = open_listener(parse_address(where))
    yield found
    found.close()


def test_whoever_is_in_the_queue_is_accepted_and_nobody_else_comes_in(listener: Listener) -> None:
    doors = Doors([listener])
    assert not doors.somebody_waits()
    with ExitStack() as stack:
        early = [stack.enter_context(listener.address.connect(5)) for _ in range(4)]
        assert doors.somebody_waits()
        doors.close(0.0, 0)
        assert not doors.open
        if doors._ajar:
            pytest.skip("this system lets no filter be attached")
        with pytest.raises(OSError):
            listener.address.connect(0.2)
        for peer in early:
            accepted, _ = listener.sock.accept()
            with accepted:
                peer.sendall(b"still heard")
                assert accepted.recv(100) == b"still heard"
        with pytest.raises(OSError):
            listener.sock.accept()
        assert not doors.leave_ajar(100, 0, 1)


def test_a_door_that_cannot_be_shut_is_left_when_who_had_arrived_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "_drop_new", lambda sock: False)
    listener = open_listener(parse_address("127.0.0.1:0"))
    with listener.sock, ExitStack() as stack:
        doors = Doors([listener])
        for _ in range(3):
            stack.enter_context(listener.address.connect(5))
        assert doors.queue() == 3
        doors.close(10.0, 100)
        assert not doors.leave_ajar(10.1, 103, 0)  # too early
        assert not doors.leave_ajar(20, 103, 1)  # one of those may have been in hand before
        assert doors.leave_ajar(20, 104, 1)
        for _ in range(3):
            assert not doors.leave_ajar(20, 100, 1)
            listener.sock.accept()[0].close()
        assert doors.leave_ajar(20, 100, 1)  # the queue is empty


def test_the_queue_of_a_door_that_is_shut_counts_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(closing, "_drop_new", lambda sock: False)
    ajar = open_listener(parse_address("127.0.0.1:0"))
    shut = open_listener(parse_address(f"unix:{tmp_path}/s"))
    with ajar.sock, shut.sock, shut.address.connect(5):
        doors = Doors([ajar, shut])
        doors.close(10.0, 0)
        assert not doors.leave_ajar(20, 100, 1)
        shut.sock.accept()[0].close()
        assert doors.leave_ajar(20, 0, 1)


def test_a_lent_door_is_left_as_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as lent:
        doors = Doors([adopt(lent, owned=False)])
        assert doors.all_lent and doors.some_lent
        doors.close(0.0, 0)
        socket.create_connection(lent.getsockname(), 1).close()
        assert lent.getblocking()


def test_a_connection_that_was_accepted_before_goes_on(listener: Listener) -> None:
    with listener.address.connect(5) as peer, listener.sock.accept()[0] as accepted:
        refuse_new(listener.sock)
        for number in range(3):
            peer.sendall(b"%d" % number)
            assert accepted.recv(10) == b"%d" % number
            accepted.sendall(b"yes")
            assert peer.recv(10) == b"yes"
