"""Uploads: streamed or spooled, honest about the client's faults, and answered early if the server likes."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from apache_module.asking import ask, request, send
from gateway.toys import Conversation, Upstream
from support import require_program
from support.apache_module import Apache, serving

MEGA = 1 << 20


@pytest.fixture(scope="module")
def web(server: Upstream) -> Iterator[Apache]:
    config = f"""
SCGIMount /app {server.address}
<Location /app/small>
  LimitRequestBody 1000
</Location>
<Location /app/quick>
  SCGIServerTimeout 0.5
</Location>
"""
    with serving(config, modules=["reqtimeout"]) as web:
        yield web


def digest(talk: Conversation) -> None:
    found, length = hashlib.sha256(), 0
    for piece in talk.body():
        found.update(piece)
        length += len(piece)
    talk.answer(f"{length} {found.hexdigest()}".encode())


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [0, 1, 8000, 64999, 65000, 65001, 130_001, 3 * MEGA + 1])
def test_a_body_arrives_byte_for_byte(web: Apache, upstream: Upstream, size: int, chunked: bool) -> None:
    upstream.answer = digest
    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    answer = ask(web, "/app", "POST", (), body, chunked=chunked)
    assert (answer.status, answer.text) == (200, f"{size} {hashlib.sha256(body).hexdigest()}")


def test_a_body_of_known_length_is_passed_on_as_it_comes(web: Apache, upstream: Upstream) -> None:
    first, seen = threading.Event(), []

    def answer(talk: Conversation) -> None:
        for piece in talk.body():
            seen.append(piece)
            first.set()
        talk.answer(b"".join(seen))

    upstream.answer = answer
    with socket.create_connection(("127.0.0.1", web.port), 20) as peer:
        peer.sendall(request("/app", "POST", [("Content-Length", "10")]) + b"01234")
        assert first.wait(10) and seen == [b"01234"]
        peer.sendall(b"56789")
        assert peer.makefile("rb").read().endswith(b"\r\n\r\n0123456789")


def test_one_of_unknown_length_is_collected_before_anybody_is_asked(web: Apache, upstream: Upstream) -> None:
    upstream.answer = digest
    with socket.create_connection(("127.0.0.1", web.port), 20) as peer:
        peer.sendall(request("/app", "POST", [("Transfer-Encoding", "chunked")]) + b"5\r\n01234\r\n")
        assert ask(web, "/app", "POST", (), b"").status == 200  # meanwhile others are served
        assert upstream.last and upstream.last.variables["CONTENT_LENGTH"] == "0"
        peer.sendall(b"5\r\n56789\r\n0\r\n\r\n")
        assert peer.makefile("rb").read().endswith(f"10 {hashlib.sha256(b'0123456789').hexdigest()}".encode())


def test_an_upload_over_http_2_without_a_length_arrives(upstream: Upstream) -> None:
    upstream.answer = digest
    config = f"Protocols h2c http/1.1\nSCGIMount /app {upstream.address}"
    with serving(config, modules=["http2"]) as web:
        for size in (0, 5, 300_000):
            command = [require_program("curl"), "-sS", "--http2-prior-knowledge", "-T", "-", f"{web.url}/app"]
            done = subprocess.run(command, input=bytes(size), capture_output=True, timeout=30)
            assert done.stdout.decode() == f"{size} {hashlib.sha256(bytes(size)).hexdigest()}", done
            assert upstream.last and upstream.last.variables["SERVER_PROTOCOL"] == "HTTP/2.0"
            assert upstream.last.variables["CONTENT_LENGTH"] == str(size)


def test_expect_100_continue_is_met(web: Apache, upstream: Upstream) -> None:
    upstream.answer = digest
    with socket.create_connection(("127.0.0.1", web.port), 20) as peer:
        peer.sendall(request("/app", "POST", [("Content-Length", "5"), ("Expect", "100-continue")]))
        assert peer.recv(1000).startswith(b"HTTP/1.1 100 ")
        peer.sendall(b"01234")
        assert b"HTTP/1.1 200 OK" in peer.makefile("rb").read()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_beyond_limitrequestbody_is_a_413(web: Apache, upstream: Upstream, chunked: bool) -> None:
    upstream.answer = digest
    assert ask(web, "/app/small", "POST", (), bytes(1000), chunked=chunked).status == 200
    upstream.last = None
    assert ask(web, "/app/small", "POST", (), bytes(1001), chunked=chunked).status == 413
    assert upstream.last is None or not chunked


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (request("/app", "POST", [("Transfer-Encoding", "chunked")]) + b"xyz\r\n", 400),
        (request("/app", "POST", [("Content-Length", "+5")]) + b"01234", 400),
        (request("/app", "POST", [("Content-Length", "5"), ("Content-Length", "6")]) + b"012345", 400),
        (request("/app", "POST", [("Transfer-Encoding", "gzip")]) + b"01234", 501),
    ],
)
def test_a_request_that_is_wrong_is_the_client_s_fault(
    web: Apache, upstream: Upstream, said: bytes, status: int
) -> None:
    found = send(web, said)
    assert found.status in ({400, 411} if status == 400 else {501, 400, 411}), found.raw
    assert upstream.last is None


def test_a_client_that_leaves_amid_its_body_is_no_fault_of_the_server(web: Apache, upstream: Upstream) -> None:
    ended: list[bytes] = []
    over = threading.Event()

    def take(talk: Conversation) -> None:
        try:
            ended.extend(talk.body())
        finally:
            over.set()

    upstream.answer = take
    with socket.create_connection(("127.0.0.1", web.port), 20) as peer:
        peer.sendall(request("/app", "POST", [("Content-Length", "10")]) + b"01234")
    assert over.wait(10)
    assert b"".join(ended) == b"01234"  # and then the end, which cannot be taken for that of the body
    assert "[error]" not in web.log() and ":error]" not in web.log()


def test_a_client_that_leaves_amid_its_chunks_costs_the_server_nothing(web: Apache, upstream: Upstream) -> None:
    with socket.create_connection(("127.0.0.1", web.port), 20) as peer:
        peer.sendall(request("/app", "POST", [("Transfer-Encoding", "chunked")]) + b"5\r\n01234\r\n")
    assert ask(web, "/app").status == 200
    assert upstream.last and upstream.last.variables["REQUEST_METHOD"] == "GET"


# -- an answer while the body is still coming -------------------------------------------------------------------------


def early_close(talk: Conversation) -> None:
    talk.send(b"Status: 413 Content Too Large\r\nContent-Length: 4\r\n\r\nbig\n")


def early_drain(talk: Conversation) -> None:
    early_close(talk)
    talk.peer.shutdown(socket.SHUT_WR)
    talk.wait_for_eof()


def test_an_early_413_to_64_mib_is_seen_20_times_of_20(web: Apache, upstream: Upstream) -> None:
    answered = threading.Event()

    def early_deaf(talk: Conversation) -> None:
        """Take no more, and go nowhere, until the client has its answer; and Apache leaves."""
        early_close(talk)
        talk.wait_for(answered)
        talk.wait_for_eof()

    body, found = bytes(64 * MEGA), []
    for play in (early_close, early_drain, early_deaf, early_close) * 5:
        upstream.answer = play
        answered.clear()
        answer = ask(web, "/app", "POST", (), body)
        answered.set()
        found.append((answer.status, answer.body))
    assert found == [(413, b"big\n")] * 20


def test_an_answer_is_passed_on_while_the_body_is_still_coming(web: Apache, upstream: Upstream) -> None:
    def answer(talk: Conversation) -> None:
        talk.send(b"Status: 200 OK\r\n\r\nearly")
        for _ in talk.body():
            pass
        talk.send(b"late")

    upstream.answer = answer
    with socket.create_connection(("127.0.0.1", web.port), 20) as peer:
        peer.sendall(request("/app", "POST", [("Content-Length", "10")]) + b"01234")
        received = b""
        while b"early" not in received:
            received += peer.recv(1000)
        peer.sendall(b"56789")
        while piece := peer.recv(1000):
            received += piece
    assert b"late" in received and received.endswith(b"0\r\n\r\n")


def test_a_server_that_takes_no_body_and_says_nothing_is_a_504(web: Apache, upstream: Upstream) -> None:
    over = threading.Event()
    upstream.answer = lambda talk: talk.wait_for(over)
    assert ask(web, "/app/quick", "POST", (), bytes(16 * MEGA)).status == 504
    over.set()
