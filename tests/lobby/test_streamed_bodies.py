"""Long bodies that come at full speed: the application reads them from the connection, and no peer holds workers so."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Serve
from lobby.peers import PAGES, times
from lobby.test_slow_peers import answer_to, lobby_of
from scgi.client.control import ask
from support import Process, build_request, parse_response, resident_bytes, scgi_request, wait_until
from support.addresses import connect
from support.generations import workers_of

MIB = 1 << 20
BODY = os.urandom(8 * MIB)
CONTROL: dict[Process, Path] = {}  # where each server is asked for its state
SAID = f"{len(BODY)} {hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture(params=["unix", "tcp"])
def serve(request: pytest.FixtureRequest, scgi_serve: Serve, short_tmp: Path) -> Iterator[Callable[..., Process]]:
    """A server of the slow pages with four workers, of which one may read what is still coming."""

    def serve(*options: str, most: int = 4) -> Process:
        count = ["--min-workers", "1", "--max-workers", str(most)]
        listen = f"unix:{short_tmp}/s" if request.param == "unix" else ""
        server = scgi_serve(f"{PAGES}:app", *count, *options, "--control", f"{short_tmp}/c", listen=listen)
        CONTROL[server] = short_tmp / "c"
        return server

    yield serve
    CONTROL.clear()


def states(server: Process) -> list[str]:
    """What the workers are doing, as `scgi status` says it."""
    return [worker["state"] for worker in workers(server)]


def workers(server: Process) -> list[dict[str, Any]]:
    (generation,) = next(iter(ask(CONTROL[server], "status", 10)))["status"]["generations"]
    return list(generation["workers"])


@contextlib.contextmanager
def uploading(server: Process, path: str, size: int = 4 * MIB) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection that has sent so much of BODY, fast; and what is still to be sent."""
    request = build_request(method="POST", path=path, body=BODY)
    cut = len(request) - len(BODY) + size
    with connect(server.address, 20) as peer:
        peer.sendall(request[:cut])
        yield peer, request[cut:]


@contextlib.contextmanager
def streaming(server: Process, path: str = "/read") -> Iterator[tuple[socket.socket, bytes]]:
    """The same, and the application waits for more."""
    with uploading(server, path) as (peer, rest):
        wait_until(lambda: "receiving" in states(server))
        yield peer, rest


def test_the_application_starts_before_a_long_body_is_there_and_reads_all_of_it(serve: Callable[..., Process]) -> None:
    server = serve()
    with streaming(server) as (peer, rest):
        for piece in (rest[:1], rest[1:70_000], rest[70_000:-1], rest[-1:]):
            wait_until(lambda: "receiving" in states(server))
            peer.sendall(piece)
        assert parse_response(answer_to(peer)).text == SAID
    assert not lobby_of(server)


def test_bodies_of_every_size_around_the_limits_arrive_whole(serve: Callable[..., Process]) -> None:
    server = serve()
    for size in (65_536, MIB - 1, MIB, MIB + 1, MIB + 300_000, 3 * MIB):
        body = BODY[:size]
        answer = scgi_request(server.address, method="POST", path="/read", body=body)
        assert answer.text == f"{size} {hashlib.sha256(body).hexdigest()}"


def test_memory_stays_flat(serve: Callable[..., Process]) -> None:
    server = serve()
    wait_until(server.workers)
    size, block = 200 * MIB, BODY[:MIB]
    digest = hashlib.sha256()
    head = build_request({"CONTENT_LENGTH": str(size)}, method="POST", path="/read")
    with connect(server.address, 20) as peer:
        peer.sendall(head)
        before = most = 0
        for number in range(size // MIB):
            peer.sendall(block)
            digest.update(block)
            most = max(resident_bytes(pid) for pid in server.descendants())
            before = before or most * (number > 4)
        assert parse_response(answer_to(peer)).text == f"{size} {digest.hexdigest()}"
    assert most - before < 4 * MIB


def test_a_peer_that_stops_in_the_middle_holds_no_worker(serve: Callable[..., Process]) -> None:
    server = serve()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(uploading(server, "/read")) for _ in range(6)]
        wait_until(lambda: states(server).count("receiving") == 1 and lobby_of(server))
        assert times(server.address)
        naps = [stack.enter_context(connect(server.address, 20)) for _ in range(4)]
        for nap in naps:
            nap.sendall(build_request(path="/nap/1"))
        # Four at once, beside the one that is held: it does not count.
        wait_until(lambda: states(server).count("running") == 4, 0.9)
        assert states(server).count("receiving") == 1
        for nap in naps:
            assert parse_response(answer_to(nap)).status == 200
        for peer, rest in peers:
            peer.sendall(rest)
            assert parse_response(answer_to(peer)).text == SAID


def test_in_a_pool_of_less_than_four_no_application_starts_before_the_body_is_there(
    serve: Callable[..., Process],
) -> None:
    server = serve(most=3)
    with uploading(server, "/read") as (peer, rest):
        for _ in range(3):
            times(server.address, 20)
            assert "receiving" not in states(server)
        wait_until(lambda: lobby_of(server))
        peer.sendall(rest)
        assert parse_response(answer_to(peer)).text == SAID


def test_a_body_that_is_cut_raises_in_the_application_and_the_worker_answers_the_next(
    serve: Callable[..., Process],
) -> None:
    server = serve()
    with streaming(server, "/read_carefully") as (peer, _):
        peer.shutdown(socket.SHUT_WR)
        assert parse_response(answer_to(peer)).status == 400
    assert f"read() raised TruncatedBody: the request body ended after {4 * MIB} of {8 * MIB} bytes" in server.log()
    assert scgi_request(server.address, method="POST", path="/read", body=BODY).text == SAID


def test_a_body_that_stalls_for_longer_than_it_may_is_answered_408(serve: Callable[..., Process]) -> None:
    server = serve("--body-timeout", "0.5", "--timeout", "0.3")
    with streaming(server, "/read_carefully") as (peer, _):
        assert parse_response(answer_to(peer)).status == 408
    assert f"read() raised BodyTimeout: the request body stalled after {4 * MIB} of {8 * MIB} bytes" in server.log()
    assert workers_of(server) and "RequestTimeout" not in server.log()


def test_an_answer_before_the_body_was_read_reaches_a_peer_that_still_sends(serve: Callable[..., Process]) -> None:
    server = serve()
    for _ in range(10):
        with uploading(server, "/pid") as (peer, rest):
            with contextlib.suppress(ConnectionError):
                peer.sendall(rest)
            assert parse_response(answer_to(peer)).status == 200
    assert "follow a body" not in server.log()


def test_an_application_that_keeps_the_input_never_reads_what_others_send(serve: Callable[..., Process]) -> None:
    server = serve()
    kept = scgi_request(server.address, method="POST", path="/keep", body=BODY)
    assert kept.status == 200
    scgi_request(server.address, path="/kept")  # a little of its own is in its buffer
    for _ in range(20):
        answer = scgi_request(server.address, method="POST", path="/kept", body=b"not for the others" * 10_000)
        assert answer.text == "0"


def test_a_worker_that_is_killed_while_its_application_waits_for_a_body_still_answers(
    serve: Callable[..., Process],
) -> None:
    server = serve()
    with streaming(server) as (peer, _):
        (held,) = [worker["pid"] for worker in workers(server) if worker["state"] == "receiving"]
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 0.6)  # older than the moment from which it is guarded
        os.kill(held, signal.SIGKILL)
        assert parse_response(answer_to(peer)).status == 502


def test_a_stop_waits_for_the_rest_of_a_body(serve: Callable[..., Process]) -> None:
    server = serve()
    with streaming(server) as (peer, rest):
        server.signal(signal.SIGTERM)
        wait_until(lambda: "stopping" in server.log())
        peer.sendall(rest)
        assert parse_response(answer_to(peer)).text == SAID
    assert server.wait(10) == 0
