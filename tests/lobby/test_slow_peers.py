"""Slow peers of a whole server: nobody is lost who is only slow, and nobody holds what others need."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Serve, StartFront
from lobby.peers import LONG, PAGES, REQUEST, peers, times
from lobby.slow_pages import BLOCK, SIZE
from support import Process, build_request, parse_response, resident_bytes, scgi_request, wait_until
from support.addresses import connect
from support.generations import workers_of
from support.processes import title_of

KIB = 1024
WHOLE = hashlib.sha256((BLOCK * (SIZE // len(BLOCK) + 1))[:SIZE]).hexdigest()


@pytest.fixture(params=["unix", "tcp"])
def serve(request: pytest.FixtureRequest, scgi_serve: Serve, short_tmp: Path) -> Callable[..., Process]:
    """A server of so many workers for the slow pages, which are answered at once."""

    def serve(*options: str, workers: int = 1, app: str = "app") -> Process:
        count = ["--min-workers", str(workers), "--max-workers", str(workers)]
        listen = f"unix:{short_tmp}/s" if request.param == "unix" else ""
        server = scgi_serve(f"{PAGES}:{app}", *count, *options, listen=listen)
        wait_until(lambda: len(workers_of(server)) == workers)
        return server

    return serve


def lobby_of(server: Process) -> list[int]:
    return [pid for pid in server.descendants() if title_of(pid).startswith("scgi: lobby")]


@contextlib.contextmanager
def in_the_lobby(server: Process, data: bytes) -> Iterator[socket.socket]:
    """A connection that has sent this, and that no worker waits for: there is but one, and it answers others."""
    with connect(server.address, 20) as peer:
        if peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(data)
        assert scgi_request(server.address).status == 200
        wait_until(lambda: lobby_of(server))
        yield peer


def answer_to(peer: socket.socket, pause: float = 0.0) -> bytes:
    received = bytearray()
    while chunk := peer.recv(1 << 20):
        received += chunk
        time.sleep(pause)
    return bytes(received)


def said(body: bytes) -> str:
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}"


# Requests


@pytest.mark.parametrize("size", [0, 1, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 5_000_000])
def test_a_slow_request_is_answered_as_a_quick_one_whatever_the_size_of_its_body(
    serve: Callable[..., Process], size: int
) -> None:
    server = serve()
    body = os.urandom(size)
    request = build_request(method="POST", path="/read", body=body)
    head = len(request) - size
    for cut in sorted({1, 3, head // 2, head - 1, head + size // 2, max(head, len(request) - 1)} - {len(request)}):
        with in_the_lobby(server, request[:cut]) as peer:
            peer.sendall(request[cut:])
            assert parse_response(answer_to(peer)).text == said(body)


def test_every_split_of_a_request_is_understood_the_same_way(serve: Callable[..., Process]) -> None:
    server = serve(workers=2)
    request = build_request(method="POST", path="/read", body=b"0123456789")
    with contextlib.ExitStack() as opened:
        found = [(cut, opened.enter_context(connect(server.address, 20))) for cut in range(1, len(request))]
        for cut, peer in found:
            peer.sendall(request[:cut])
        times(server.address, 5)
        for cut, peer in found:
            peer.sendall(request[cut:])
        for _, peer in found:
            assert parse_response(answer_to(peer)).text == said(b"0123456789")


def test_a_head_of_half_a_megabyte_may_be_slow(serve: Callable[..., Process]) -> None:
    server = serve()
    request = build_request({"HTTP_X_LONG": "x" * 500 * KIB}, path="/head")
    with in_the_lobby(server, request[:1000]) as peer:
        peer.sendall(request[1000:])
        assert parse_response(answer_to(peer)).text == str(500 * KIB)


def test_a_request_without_a_body_that_is_asked_for_slowly_is_answered_at_length(
    serve: Callable[..., Process],
) -> None:
    server = serve()
    request = build_request(path="/block")
    with in_the_lobby(server, request[:10]) as peer:
        peer.sendall(request[10:])
        assert hashlib.sha256(parse_response(answer_to(peer)).body).hexdigest() == WHOLE


def test_a_client_that_leaves_while_its_request_waits_for_a_worker_is_skipped(serve: Callable[..., Process]) -> None:
    server = serve()
    request = build_request(path="/nap/0")
    with in_the_lobby(server, request[:10]) as peer, connect(server.address, 20) as busy:
        busy.sendall(build_request(path="/nap/2"))
        wait_until(lambda: "napping" in server.log())
        peer.sendall(request[10:])
        peer.close()
        assert parse_response(answer_to(busy)).status == 200
    times(server.address, 3)
    assert server.log().count("napping") == 1


def test_a_thousand_that_say_nothing_leave_two_workers_to_others_and_are_told_at_the_end(
    serve: Callable[..., Process],
) -> None:
    server = serve("--header-timeout", "6", workers=2)
    workers = workers_of(server)
    request = build_request()
    with peers(server.address, 500, b"") as silent, peers(server.address, 500, request[:5]) as begun:
        opened = time.monotonic()
        measured = sorted(times(server.address))
        assert measured[25] < 0.05
        for peer in (*silent, *begun):
            assert parse_response(answer_to(peer)).status == 408
        assert time.monotonic() - opened < 15
        [lobby] = lobby_of(server)
        assert resident_bytes(lobby) < 100 << 20
    assert workers_of(server) == workers


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_uploads_that_dribble_in_over_apache_leave_both_workers_free(
    scgi_serve: Serve, short_tmp: Path, apache: StartFront, kind: str
) -> None:
    listen = f"unix:{short_tmp}/s" if kind == "unix" else ""
    server = scgi_serve(f"{PAGES}:app", "--min-workers", "2", "--max-workers", "2", listen=listen)
    front = apache(to=server.address)
    body = os.urandom(3_000_000)
    head = b"POST /read HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    with contextlib.ExitStack() as opened:
        dribbling = [opened.enter_context(connect(f"127.0.0.1:{front.port}", 20)) for _ in range(4)]
        for peer in dribbling:
            peer.sendall(head % (1 << 30))
        uploading = opened.enter_context(connect(f"127.0.0.1:{front.port}", 20))
        uploading.sendall(head % len(body))
        wait_until(lambda: scgi_request(server.address).status == 200)
        for place in range(0, len(body), 100_000):
            for peer in dribbling:
                peer.send(b"x" * 100)
            uploading.sendall(body[place : place + 100_000])
            began = time.monotonic()
            assert scgi_request(server.address).status == 200
            assert time.monotonic() - began < 1
        answer = answer_to(uploading)
        assert answer.startswith(b"HTTP/1.1 200 ") and said(body).encode() in answer
        assert lobby_of(server)


def test_what_waits_takes_room_on_the_disk_and_not_in_memory(serve: Callable[..., Process]) -> None:
    server = serve()
    body = os.urandom(40_000_000)
    request = build_request(method="POST", path="/read", body=body)
    with in_the_lobby(server, request[:100_000]) as peer:
        peer.sendall(request[100_000:-1])
        with connect(server.address, 20) as reader:
            reader.sendall(build_request(path="/block"))
            assert scgi_request(server.address).status == 200
            [lobby] = lobby_of(server)
            assert resident_bytes(lobby) < 60 << 20
            peer.sendall(request[-1:])
            assert parse_response(answer_to(peer)).text == said(body)


def test_who_ends_his_side_late_in_the_middle_of_a_request_is_told(serve: Callable[..., Process]) -> None:
    server = serve()
    with in_the_lobby(server, REQUEST[:-1]) as peer:
        silent_since = time.monotonic()
        wait_until(lambda: time.monotonic() > silent_since + 0.7)
        peer.shutdown(socket.SHUT_WR)
        assert parse_response(answer_to(peer)).status == 400


def test_the_room_of_a_body_is_free_once_its_request_is_answered(serve: Callable[..., Process]) -> None:
    server = serve()
    [worker] = workers_of(server)
    body = os.urandom(2_000_000)
    with in_the_lobby(server, build_request(method="POST", path="/read", body=body)[:-1]) as peer:
        peer.sendall(body[-1:])
        assert parse_response(answer_to(peer)).text == said(body)
    folder = Path(f"/proc/{worker}/fd")

    def spools() -> list[str]:
        names = [os.readlink(path) for path in folder.iterdir()]
        return [name for name in names if name.endswith("(deleted)") and not name.startswith("/memfd:stacks")]

    wait_until(lambda: not spools())


# Answers


@pytest.mark.parametrize("page", LONG)
def test_an_answer_that_is_read_late_and_slowly_is_whole(serve: Callable[..., Process], page: str) -> None:
    server = serve()
    with in_the_lobby(server, build_request(path=f"/{page}")) as peer:
        assert scgi_request(server.address).status == 200
        response = parse_response(answer_to(peer, pause=0.001))
    assert response.header("content-length") in (str(SIZE), None)
    assert hashlib.sha256(response.body).hexdigest() == WHOLE


@pytest.mark.parametrize(("app", "page"), [("Handler", "output"), ("OldHandler", "connection")])
def test_what_a_handler_writes_to_a_late_reader_is_whole(serve: Callable[..., Process], app: str, page: str) -> None:
    server = serve(app=app)
    with in_the_lobby(server, build_request(path=f"/{page}")) as peer:
        response = parse_response(answer_to(peer, pause=0.001))
    assert hashlib.sha256(response.body).hexdigest() == WHOLE


def test_an_answer_that_breaks_off_while_nobody_reads_it_does_not_look_whole(serve: Callable[..., Process]) -> None:
    server = serve()
    with in_the_lobby(server, build_request(path="/broken_stream")) as peer:
        wait_until(lambda: "ValueError: in the middle" in server.log())
        if peer.family == socket.AF_UNIX:
            assert len(parse_response(answer_to(peer)).body) < SIZE
        else:
            with pytest.raises(ConnectionResetError):
                answer_to(peer)


# Ends


def test_a_reload_in_the_middle_of_a_slow_upload_and_of_a_slow_download_loses_nothing(
    serve: Callable[..., Process],
) -> None:
    server = serve()
    body = os.urandom(300_000)
    request = build_request(method="POST", path="/read", body=body)
    with in_the_lobby(server, build_request(path="/stream")) as reader, in_the_lobby(server, request[:9]) as peer:
        for cut in (200, 150_000):
            peer.sendall(request[:cut][len(request[:200]) if cut > 200 else 9 :])
            pools = server.pools()
            server.signal(signal.SIGHUP)
            wait_until(lambda pools=pools: len(server.pools()) == 1 and server.pools() != pools, 20)
            assert scgi_request(server.address).status == 200
            wait_until(lambda: len(lobby_of(server)) == 1)
        peer.sendall(request[150_000:])
        assert parse_response(answer_to(peer)).text == said(body)
        assert hashlib.sha256(parse_response(answer_to(reader)).body).hexdigest() == WHOLE


def test_at_the_end_who_comes_to_the_point_in_time_is_answered(serve: Callable[..., Process]) -> None:
    server = serve("--graceful-timeout", "20")
    body = os.urandom(300_000)
    request = build_request(method="POST", path="/read", body=body)
    with in_the_lobby(server, request[:1000]) as peer, in_the_lobby(server, build_request(path="/block")) as reader:
        server.signal(signal.SIGTERM)
        wait_until(lambda: "stopping: what has arrived" in server.log())
        peer.sendall(request[1000:])
        assert parse_response(answer_to(peer)).text == said(body)
        assert hashlib.sha256(parse_response(answer_to(reader)).body).hexdigest() == WHOLE
    assert server.wait(10) == 0


def test_at_the_end_who_does_not_is_told_so(serve: Callable[..., Process]) -> None:
    server = serve("--graceful-timeout", "4")
    with in_the_lobby(server, REQUEST[:-1]) as peer, in_the_lobby(server, REQUEST[:5]) as other:
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert parse_response(answer_to(peer)).status == 503
        assert parse_response(answer_to(other)).status == 503
        assert time.monotonic() - began > 1
    assert server.wait(10) == 0


def test_a_lobby_that_is_killed_takes_only_its_guests_along(serve: Callable[..., Process]) -> None:
    server = serve()
    workers = workers_of(server)
    with in_the_lobby(server, REQUEST[:-1]) as lost:
        [lobby] = lobby_of(server)
        os.kill(lobby, signal.SIGKILL)
        assert answer_to(lost) == b""
        wait_until(lambda: "killed by SIGKILL: 1 requests that were not whole" in server.log())
        with in_the_lobby(server, REQUEST[:-1]) as peer:
            peer.sendall(REQUEST[-1:])
            assert parse_response(answer_to(peer)).text == said(b"x" * 1000)
    assert workers_of(server) == workers


@pytest.mark.alone  # else this client is a slow peer
def test_a_server_without_slow_peers_has_no_lobby(serve: Callable[..., Process]) -> None:
    server = serve()
    times(server.address)
    assert lobby_of(server) == []


def test_nothing_of_slow_peers_is_left_open(serve: Callable[..., Process]) -> None:
    server = serve()
    large = build_request(method="POST", path="/read", body=os.urandom(300_000))

    def descriptors() -> list[int]:
        pids = [*server.pools(), *workers_of(server), *lobby_of(server)]
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]

    def all_kinds() -> None:
        with contextlib.ExitStack() as opened:
            for sent in (b"", REQUEST[:5], REQUEST[:-1], large[:-1]):
                opened.enter_context(in_the_lobby(server, sent))
            for page in (*LONG, "broken_stream"):
                opened.enter_context(in_the_lobby(server, build_request(path=f"/{page}")))
            with in_the_lobby(server, large[:-1]) as peer:
                peer.sendall(large[-1:])
                answer_to(peer)
        scgi_request(server.address)

    with in_the_lobby(server, b""):
        all_kinds()
        wait_until(lambda: len(descriptors()) == 3)
        before = wait_until(descriptors)
        for _ in range(3):
            all_kinds()
        wait_until(lambda: all(now <= then for now, then in zip(descriptors(), before, strict=True)), 5)


def test_threads_of_a_worker_hand_over_too(serve: Callable[..., Process]) -> None:
    server = serve("--threads", "4")
    with peers(server.address, 4, REQUEST[:-1]) as half, peers(server.address, 4, build_request(path="/block")) as deaf:
        assert sorted(times(server.address, 20))[10] < 0.25
        for peer in half:
            peer.sendall(REQUEST[-1:])
        readers = [threading.Thread(target=answer_to, args=(peer,)) for peer in deaf]
        for reader in readers:
            reader.start()
        for peer in half:
            assert parse_response(answer_to(peer)).text == said(b"x" * 1000)
        for reader in readers:
            reader.join()


def test_what_has_become_whole_waits_for_nobody_while_a_thread_of_any_worker_is_idle(
    serve: Callable[..., Process],
) -> None:
    server = serve("--threads", "8", workers=2)
    request = build_request(path="/nap/4")
    with peers(server.address, 40, request[:10]) as half:
        times(server.address, 3)
        for peer in half[:14]:
            peer.sendall(request[10:])
        wait_until(lambda: server.log().count("napping") == 14, 3, "all fourteen to run")
        for peer in half[:14]:
            assert parse_response(answer_to(peer)).status == 200
