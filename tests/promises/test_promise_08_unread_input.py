"""The response survives unread input: it is out before the connection ends, and the rest of the input is thrown away,
within bounds, while the worker serves others."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from conftest import StartFront
from lobby.peers import PAGES, times
from support import Process, build_request, parse_response, raw_exchange
from support.addresses import connect
from support.generations import workers_of
from support.room import Room


def serve(room: Room, *options: str) -> Process:
    (room.folder / "slow_pages.py").write_bytes(PAGES.read_bytes())
    return room.serve("slow_pages.py:app", *options, workers=1)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", build_request(method="POST", path="/pid", body=b"x" * 10)])
def test_an_answer_is_read_whole_beside_bytes_that_nobody_wanted(every_room: Room, data: bytes) -> None:
    server = serve(every_room)
    for _ in range(5):
        answer = parse_response(raw_exchange(server.address, data + b"x" * 3_000_000, within=20))
        assert answer.status == (400 if data.startswith(b"GET") else 200)
        assert int(answer.header("content-length") or 0) == len(answer.body)


def test_who_reads_only_after_having_written_all_of_a_refused_body_gets_the_413(every_room: Room) -> None:
    server = serve(every_room, "--max-body", "1000")
    with connect(server.address, 20) as peer:
        peer.sendall(build_request(method="POST", body=b"x" * 5_000_000))
        assert parse_response(b"".join(iter(lambda: peer.recv(65536), b""))).status == 413


def test_apache_passes_on_a_413_while_its_client_still_sends(tcp_room: Room, apache: StartFront) -> None:
    server = serve(tcp_room, "--max-body", "1000")
    front = apache(to=server.address)
    with connect(f"127.0.0.1:{front.port}", 20) as peer:
        peer.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3000000\r\n\r\n")
        peer.sendall(b"x" * 3_000_000)
        assert b"".join(iter(lambda: peer.recv(65536), b"")).startswith(b"HTTP/1.1 413 ")


def test_who_never_stops_sending_holds_no_worker_and_is_left_in_the_end(either_room: Room) -> None:
    server = serve(either_room)
    workers = workers_of(server)
    done = threading.Event()

    def chatter(peer: socket.socket) -> None:
        while not done.is_set():
            try:
                peer.send(b"x" * 1000)
            except OSError:
                return
            time.sleep(0.001)  # a peer's own pace

    with connect(server.address, 20) as peer:
        peer.sendall(b"nonsense")
        thread = threading.Thread(target=chatter, args=(peer,))
        thread.start()
        try:
            began = time.monotonic()
            assert sorted(times(server.address))[25] < 0.05
            assert time.monotonic() - began < 5
            thread.join(60)
            assert not thread.is_alive(), "it was heard out for longer than 30 s"
        finally:
            done.set()
            thread.join()
    assert workers_of(server) == workers
