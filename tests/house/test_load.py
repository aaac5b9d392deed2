"""The load generator, held to what it promises: it finds every way to lose a request, and none where all is well."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import Serve
from soak.scenarios import not_explained
from support import free_port, wait_until
from support.load import ECHO, Load, Loss, write_application

Misdeed = Callable[[socket.socket], object]


@contextmanager
def toy(misdeed: Misdeed) -> Iterator[str]:
    """A server that does one thing to each connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    misdeed(peer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def say(answer: bytes) -> Misdeed:
    def misdeed(peer: socket.socket) -> None:
        peer.recv(65536)
        peer.sendall(answer)

    return misdeed


@pytest.mark.parametrize(
    ("misdeed", "what"),
    [
        (reset, "reset"),  # in the middle of the connect, or of the reading
        (lambda peer: peer.recv(65536), "closed without an answer"),
        (say(b"Status: 503 Service Unavailable\r\n\r\nlater"), "a wrong answer"),
        (say(b"Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\n1 2 3"), "a wrong answer"),
        (lambda peer: time.sleep(0.8), "no answer within 0.2 s"),
    ],
)
def test_a_request_without_its_answer_is_lost(misdeed: Misdeed, what: str) -> None:
    with toy(misdeed) as address, Load(address, clients=2, total=2, within=0.2) as load:
        report = load.wait()
    assert (report.answered, report.refused) == (0, 0)
    assert len(report.lost) == 2 and all(what in loss.what.lower() for loss in report.lost), report.lost


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_server_that_is_not_there_refuses_and_loses_nothing(short_tmp: Path, kind: str) -> None:
    address = f"unix:{short_tmp}/none" if kind == "unix" else f"127.0.0.1:{free_port()}"
    with Load(address, clients=2) as load:
        wait_until(lambda: load.refused > 10)
    assert load.report.lost == [] and load.report.answered == 0


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_all_answers_of_a_server_are_counted_with_their_workers_and_versions(
    scgi_serve: Serve, short_tmp: Path, kind: str
) -> None:
    app = write_application(short_tmp / "app.py", "one")
    server = scgi_serve(app, listen=f"unix:{short_tmp}/s" if kind == "unix" else "")
    with Load(server.address, clients=8, total=500) as load:
        report = load.wait()
    assert (report.answered, report.lost, report.refused) == (500, [], 0)
    assert report.versions["one"].answers == sum(report.processes.values()) == 500
    assert 0 < report.longest_gap < report.took


def test_an_answer_that_is_a_byte_short_is_a_wrong_one(scgi_serve: Serve, short_tmp: Path) -> None:
    (short_tmp / "app.py").write_text(ECHO.read_text().replace("[text.encode()]", "[text.encode()[:-1]]"))
    server = scgi_serve(short_tmp / "app.py")
    with Load(server.address, clients=2, total=10) as load:
        assert len(load.wait().lost) == 10


def test_a_pause_between_two_answers_is_the_longest_gap(scgi_serve: Serve, short_tmp: Path) -> None:
    server = scgi_serve(write_application(short_tmp / "app.py", "1"), "--max-workers", "1")
    with Load(server.address, clients=1, total=3, pause=0.3) as load:
        assert load.wait().longest_gap > 0.29


def test_a_loss_is_explained_by_one_kill_that_came_while_its_request_was_under_way() -> None:
    def loss(began: float, ended: float) -> Loss:
        return Loss(1, began, ended, "reset")

    assert not_explained([loss(1, 2), loss(1, 2)], [1.9, 1.8]) == []
    assert len(not_explained([loss(1, 2), loss(1, 2)], [1.9])) == 1
    assert not_explained([loss(1, 2)], [2.1]) and not_explained([loss(1, 2)], [0.9])
