"""Limits with clear replies: 431 for a head that is too long or has too many variables, 413 for a body before it is
read, 408 for what takes too long as a whole, and nobody else waits for it."""

from __future__ import annotations

import contextlib
import time

import pytest

from lobby.peers import HEAD, PAGES, REQUEST, peers, times
from support import Process, build_request, parse_response, raw_exchange, wait_until
from support.addresses import connect
from support.generations import workers_of
from support.room import Room


def serve(room: Room, *options: str, workers: int = 2) -> Process:
    (room.folder / "slow_pages.py").write_bytes(PAGES.read_bytes())
    return room.serve("slow_pages.py:app", *options, workers=workers)


def test_what_is_over_a_limit_is_told_so_at_once(every_room: Room) -> None:
    server = serve(every_room)
    workers = workers_of(server)
    at_the_limit = build_request({"HTTP_X_LONG": "x" * 1_000_000}, path="/head")
    assert parse_response(raw_exchange(server.address, at_the_limit)).text == "1000000"
    variables = [(f"HTTP_X_{number}", "") for number in range(2000)]
    for beyond, status in (
        (build_request({"HTTP_X_LONG": "x" * (1 << 20)}), 431),
        (build_request(variables), 431),
        (build_request({"CONTENT_LENGTH": str((1 << 30) + 1)}, method="POST"), 413),
    ):
        assert parse_response(raw_exchange(server.address, beyond, within=8)).status == status
        # The same from somebody slow.
        answer = raw_exchange(server.address, beyond, split=[5, 200, len(beyond) // 2], pause=0.1, within=8)
        assert parse_response(answer).status == status
    assert workers_of(server) == workers


@pytest.mark.parametrize("sent", [b"", REQUEST[:1], REQUEST[: HEAD // 2]])
def test_a_head_has_its_time_as_a_whole(either_room: Room, sent: bytes) -> None:
    server = serve(either_room, "--header-timeout", "2")
    began = time.monotonic()
    with contextlib.ExitStack() as opened:
        silent = opened.enter_context(peers(server.address, 5, sent))
        [dribbling] = opened.enter_context(peers(server.address, 1, sent))
        for byte in REQUEST[len(sent) : len(sent) + 12]:
            times(server.address, 1)
            time.sleep(0.1)  # as slow as a peer can be that is to be slow
            dribbling.send(bytes((byte,)))
        for peer in (*silent, dribbling):
            assert parse_response(b"".join(iter(lambda peer=peer: peer.recv(65536), b""))).status == 408
    assert 1.9 < time.monotonic() - began < 8


def test_a_body_that_stands_still_or_drips_has_its_time(either_room: Room) -> None:
    server = serve(either_room, "--body-timeout", "2")
    began = time.monotonic()
    with contextlib.ExitStack() as opened:
        silent = opened.enter_context(peers(server.address, 5, REQUEST[: HEAD + 10]))
        dripping = opened.enter_context(connect(server.address, 20))
        dripping.sendall(REQUEST[:HEAD])
        for byte in REQUEST[HEAD : HEAD + 15]:
            times(server.address, 1)
            time.sleep(0.1)
            dripping.send(bytes((byte,)))
        for peer in (*silent, dripping):
            assert parse_response(b"".join(iter(lambda peer=peer: peer.recv(65536), b""))).status == 408
    assert 1.9 < time.monotonic() - began < 8
    wait_until(lambda: server.log().count("(body-timeout)") == 6)
