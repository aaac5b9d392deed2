"""A cut request body raises in `read()`: it never looks complete. Who reads beyond the body gets end of file."""

from __future__ import annotations

import socket
import time

import pytest

from lobby.peers import PAGES, peers, times
from support import Process, build_request, parse_response, scgi_request, wait_until
from support.addresses import connect
from support.generations import workers_of
from support.room import Room

BODY = bytes(range(256)) * 8000  # 2 MB


def serve(room: Room) -> Process:
    (room.folder / "slow_pages.py").write_bytes(PAGES.read_bytes())
    return room.serve("slow_pages.py:app", workers=1)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("received", [0, 1, 70_000, len(BODY) - 1])
def test_a_body_that_is_cut_raises_in_read(every_room: Room, received: int, slow: bool) -> None:
    server = serve(every_room)
    workers = workers_of(server)
    request = build_request(method="POST", path="/read_carefully", body=BODY)
    head = len(request) - len(BODY)
    with connect(server.address, 20) as peer:
        peer.sendall(request[: head + received // 2])
        if slow:
            times(server.address, 1)  # by the one worker, so that this one waits elsewhere
        peer.sendall(request[head + received // 2 : head + received])
        peer.shutdown(socket.SHUT_WR)
        answer = parse_response(b"".join(iter(lambda: peer.recv(65536), b"")))
    assert answer.status == 400
    said = f"the request body ended after {received} of {len(BODY)} bytes"
    wait_until(lambda: f"read() raised TruncatedBody: {said}" in server.log())
    assert workers_of(server) == workers


@pytest.mark.parametrize("body", [b"", b"0123456789", BODY])
def test_reading_beyond_the_body_is_end_of_file_and_no_waiting(every_room: Room, body: bytes) -> None:
    server = serve(every_room)
    began = time.monotonic()
    answer = scgi_request(server.address, (), body, method="POST", path="/read_carefully")
    assert answer.text == "then b''"
    assert time.monotonic() - began < 5
    request = build_request(method="POST", path="/read_carefully", body=body)
    with peers(server.address, 1, request[:100]) as [peer]:
        times(server.address, 1)
        peer.sendall(request[100:] + b"and more")
        assert parse_response(b"".join(iter(lambda: peer.recv(65536), b""))).text == "then b''"
