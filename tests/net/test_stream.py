"""Bytes over connected descriptors: all sent, a body read to its end and never beyond, a goodbye that is heard."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scgi.errors import TruncatedRequest
from scgi.net.stream import (
    Patience,
    PeerGone,
    leave,
    receive_head,
    reset,
    send_all,
    send_file,
    send_file_now,
    send_now,
)  # fmt: skip
from support import wait_until

BIG = bytes(range(256)) * 20_000  # 5 MB
SOON = Patience(head=0.2, body=0.2, rate=1000, send=0.2, linger=0.2, linger_total=0.6)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Our end and the peer's."""
    if request.param == "unix":
        ours, peer = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            peer = socket.create_connection(listening.getsockname())
            ours, _ = listening.accept()
    peer.settimeout(20)
    yield ours, peer
    ours.close()
    peer.close()


def read_all(peer: socket.socket, pause: Callable[[], object] = lambda: None) -> bytes:
    received = bytearray()
    while chunk := peer.recv(100_000):
        received += chunk
        pause()
    return bytes(received)


class Aside:
    """Runs something beside the test; `result()` waits for what it gave."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._result: object = None
        self._thread = threading.Thread(target=self._run, args=(action,), daemon=True)
        self._thread.start()

    def _run(self, action: Callable[[], object]) -> None:
        self._result = action()

    def result(self) -> object:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self._result


# send_all, send_file


@pytest.mark.parametrize("blocking", [True, False])
def test_everything_is_sent_in_order_whatever_the_peer_takes_at_once(pair: Pair, blocking: bool) -> None:
    ours, peer = pair
    ours.setblocking(blocking)
    reading = Aside(lambda: read_all(peer, lambda: time.sleep(0.001)))
    send_all(ours.fileno(), [b"head", b"", BIG, memoryview(BIG), bytearray(b"tail")])
    ours.shutdown(socket.SHUT_WR)
    assert reading.result() == b"head" + BIG + BIG + b"tail"


def test_nothing_to_send_sends_nothing(pair: Pair) -> None:
    ours, peer = pair
    send_all(ours.fileno(), [])
    send_all(ours.fileno(), [b"", b""])
    ours.close()
    assert peer.recv(1) == b""


def test_a_peer_that_takes_nothing_is_given_up(pair: Pair) -> None:
    ours, _ = pair
    ours.setblocking(False)
    with pytest.raises(PeerGone, match=r"took nothing for 0\.1 s"):
        send_all(ours.fileno(), [BIG] * 4, patience=0.1)


def test_a_peer_that_is_gone_is_said(pair: Pair) -> None:
    ours, peer = pair
    peer.close()
    with pytest.raises(PeerGone):
        for _ in range(100):
            send_all(ours.fileno(), [BIG])


@pytest.mark.parametrize("blocking", [True, False])
def test_a_file_is_sent_from_where_it_stands(pair: Pair, tmp_path: Path, blocking: bool) -> None:
    ours, peer = pair
    ours.setblocking(blocking)
    (tmp_path / "file").write_bytes(BIG)
    with open(tmp_path / "file", "rb") as file:
        reading = Aside(lambda: read_all(peer))
        assert send_file(ours.fileno(), file.fileno(), 7, len(BIG) - 10) == len(BIG) - 10
        ours.shutdown(socket.SHUT_WR)
        assert reading.result() == BIG[7:-3]
        assert file.tell() == 0


def test_what_would_have_to_wait_is_given_back(pair: Pair, tmp_path: Path) -> None:
    ours, peer = pair
    ours.setblocking(False)
    (tmp_path / "file").write_bytes(BIG * 4)
    left = send_now(ours.fileno(), [b"head", BIG, BIG])
    assert left and len(left[-1]) == len(BIG)
    sent = 4 + 2 * len(BIG) - sum(map(len, left))
    with open(tmp_path / "file", "rb") as file, pytest.raises(BlockingIOError) as full:
        send_file_now(ours.fileno(), file.fileno(), 0, len(BIG) * 4)
    sent += full.value.characters_written
    ours.close()
    assert len(read_all(peer)) == sent


def test_a_file_that_ends_early_tells_how_much_went_out(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    with open(tmp_path / "file", "rb") as file:
        assert send_file(pair[0].fileno(), file.fileno(), 2, 100) == 3
    assert pair[1].recv(10) == b"345"


def test_a_file_for_a_peer_that_takes_nothing_is_given_up(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(BIG * 4)
    pair[0].setblocking(False)
    with open(tmp_path / "file", "rb") as file, pytest.raises(PeerGone):
        send_file(pair[0].fileno(), file.fileno(), 0, len(BIG) * 4, patience=0.1)


# receive_head


def test_a_head_that_does_not_come_is_a_408(pair: Pair) -> None:
    with pytest.raises(TruncatedRequest) as caught:
        receive_head(pair[0].fileno(), time.monotonic() + 0.05)
    assert (caught.value.code, caught.value.status_hint) == ("head-timeout", 408)
    pair[1].sendall(b"5:")
    assert receive_head(pair[0].fileno(), time.monotonic() + 5) == b"5:"
    pair[1].close()
    assert receive_head(pair[0].fileno(), time.monotonic() + 5) == b""


# leave, reset


def test_the_answer_survives_input_that_nobody_read(pair: Pair) -> None:
    ours, peer = pair
    sending = Aside(lambda: _send_ignoring(peer, BIG))
    wait_until(lambda: select.select([ours], [], [], 0)[0])
    answer = b"Status: 413 Content Too Large\r\n\r\n" + b"x" * 50_000
    send_all(ours.fileno(), [answer])
    fd = ours.detach()
    leaving = Aside(lambda: leave(fd, Patience()))
    assert read_all(peer) == answer
    assert sending.result() == len(BIG)  # the peer could write all of it: Apache reads the answer only then
    peer.close()
    leaving.result()


def _send_ignoring(peer: socket.socket, data: bytes) -> int:
    sent = 0
    try:
        while sent < len(data):
            sent += peer.send(data[sent : sent + 65536])
    except OSError:
        pass
    return sent


def test_a_peer_that_stays_silent_does_not_hold_us(pair: Pair) -> None:
    started = time.monotonic()
    leave(pair[0].detach(), SOON)
    assert time.monotonic() - started < 10
    assert pair[1].recv(1) == b""


def test_a_peer_that_never_stops_sending_does_not_hold_us_for_ever(pair: Pair) -> None:
    done = threading.Event()

    def chatter() -> None:
        try:
            while not done.is_set():
                pair[1].send(b"x" * 1000)
        except OSError:
            pass

    chattering = Aside(chatter)
    started = time.monotonic()
    leave(pair[0].detach(), SOON)
    done.set()
    assert 0.5 < time.monotonic() - started < 15
    chattering.result()


@pytest.mark.parametrize("way", [lambda fd: leave(fd, SOON), reset])
def test_leaving_closes_exactly_its_descriptor(pair: Pair, way: Callable[[int], None]) -> None:
    pair[1].close()
    before = len(os.listdir("/proc/self/fd"))
    fd = pair[0].detach()
    way(fd)
    assert len(os.listdir("/proc/self/fd")) == before - 1
    with pytest.raises(OSError) as caught:
        os.fstat(fd)
    assert caught.value.errno == errno.EBADF


def test_a_reset_tells_a_tcp_peer_that_the_answer_is_not_whole() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    with peer:
        peer.settimeout(10)
        ours.sendall(b"half")
        assert peer.recv(10) == b"half"
        reset(ours.detach())
        with pytest.raises(ConnectionResetError):
            peer.recv(10)


def test_that_comes_at_once_though_somebody_has_a_duplicate(pair: Pair) -> None:
    with pair[0].dup():
        pair[1].settimeout(10)
        reset(pair[0].detach())
        if pair[1].family == socket.AF_UNIX:
            assert pair[1].recv(10) == b""
        else:
            with pytest.raises(ConnectionResetError):
                pair[1].recv(10)
