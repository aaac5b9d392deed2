"""What comes back: the server's answer as it gave it, judged before a byte of it goes out, streamed after that."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from pathlib import Path

import pytest

from cgi2scgi.app import PIECE
from cgi2scgi.program import Run, environment, run
from gateway.toys import Conversation, Upstream

MEGA = 1 << 20


def get(program: Path, upstream: Upstream, answer: bytes, method: str = "GET") -> Run:
    upstream.answer = lambda talk: talk.send(answer)
    return run(program, {**environment(method), "SCGI_SERVER": upstream.address})


def test_status_headers_and_body_are_as_the_server_gave_them(program: Path, upstream: Upstream) -> None:
    head = (
        b"Status: 404 Not Here\r\nSet-Cookie: a=1\r\nX-Latin: J\xf6rg \t x\r\nSet-Cookie: b=2\r\nLocation: /there\r\n"
    )
    done = get(program, upstream, head + b"\r\nlost\0\r\n\r\n")
    assert (done.exit_status, done.log, done.output) == (0, "", head + b"\r\nlost\0\r\n\r\n")


def test_lines_may_end_as_they_like_and_end_with_crlf(program: Path, upstream: Upstream) -> None:
    done = get(program, upstream, b"Status:200 OK\nX-A:\t1 \r\nX-B:\n\nhello\n")
    assert done.output == b"Status: 200 OK\r\nX-A: 1\r\nX-B: \r\n\r\nhello\n"


def test_a_status_line_of_http_becomes_a_status(program: Path, upstream: Upstream) -> None:
    done = get(program, upstream, b"HTTP/1.1 201 Created\r\nX-A: 1\r\n\r\nhello")
    assert done.output == b"Status: 201 Created\r\nX-A: 1\r\n\r\nhello"


def test_a_location_alone_stays_alone(program: Path, upstream: Upstream) -> None:
    done = get(program, upstream, b"Location: /there\r\n\r\n")
    assert done.output == b"Location: /there\r\n\r\n"  # RFC 3875, 6.2.2: the web server goes there itself


def test_headers_of_the_connection_are_left_out(program: Path, upstream: Upstream) -> None:
    done = get(
        program,
        upstream,
        b"Status: 200 OK\r\nConnection: close\r\nKeep-Alive: x\r\nTransfer-Encoding: chunked\r\nUpgrade: h2c\r\n\r\nhi",
    )
    assert done.output == b"Status: 200 OK\r\n\r\nhi"


def test_the_same_length_twice_is_one(program: Path, upstream: Upstream) -> None:
    done = get(program, upstream, b"Content-Length: 2\r\nStatus: 200 OK\r\ncontent-length: 02\r\n\r\nhi, all")
    assert done.output == b"Status: 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@pytest.mark.parametrize(
    ("method", "status", "announced"), [("HEAD", 200, "9"), ("GET", 304, "9"), ("GET", 204, None), ("HEAD", 404, "9")]
)
def test_head_204_and_304_have_no_body(
    program: Path, upstream: Upstream, method: str, status: int, announced: str | None
) -> None:
    done = get(program, upstream, b"Status: %d X\r\nContent-Length: 9\r\n\r\nno body" % status, method)
    assert (done.exit_status, done.status, done.body, done.log) == (0, status, b"", "")
    assert done.head.get("content-length") == announced


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_an_answer_is_the_same_however_its_bytes_are_split(program: Path, upstream: Upstream, size: int) -> None:
    whole = b"Status: 200 OK\r\nX-Long: " + b"x" * 500 + b"\nContent-Length: 300\r\n\r\n" + bytes(300)

    def answer(talk: Conversation) -> None:
        for at in range(0, len(whole), size):
            talk.send(whole[at : at + size])

    upstream.answer = answer
    done = run(program, {**environment(), "SCGI_SERVER": upstream.address})
    assert done.output == whole.replace(b"x\nC", b"x\r\nC")


def test_a_head_just_below_the_limit_is_taken(program: Path, upstream: Upstream) -> None:
    lines = b"a:\n" * 21000 + b"X: " + b"x" * (65536 - 63000 - 5) + b"\n\n"
    assert len(lines) == 65536
    done = get(program, upstream, lines + b"hello")
    assert (done.status, done.log) == (200, "") and done.output.endswith(b"\r\n\r\nhello")
    assert get(program, upstream, b"a" + lines).status == 502


def test_an_answer_goes_out_as_it_is_made(program: Path, upstream: Upstream) -> None:
    seen = threading.Event()

    def answer(talk: Conversation) -> None:
        talk.send(b"Status: 200 OK\r\n\r\nfirst")
        talk.wait_for(seen)
        talk.send(b"second")

    upstream.answer = answer
    variables = {**environment(), "SCGI_SERVER": upstream.address}
    with subprocess.Popen([program], env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as popen:
        assert popen.stdout
        head = b"Status: 200 OK\r\n\r\nfirst"
        assert popen.stdout.read(len(head)) == head
        seen.set()
        assert popen.stdout.read() == b"second"


def test_a_small_answer_that_is_cut_is_a_502_and_a_large_one_looks_cut(program: Path, upstream: Upstream) -> None:
    done = get(program, upstream, b"Content-Length: 60000\r\n\r\n" + bytes(59999))
    assert (done.status, done.exit_status) == (502, 0)
    assert done.log == "cgi2scgi: 502: the server ended it after 59999 of 60000 bytes\n"
    done = get(program, upstream, b"Content-Length: 600000\r\n\r\n" + bytes(599999))
    assert (done.status, done.exit_status, done.body) == (200, 1, bytes(599999))
    assert done.log == "cgi2scgi: an answer broke off: the server ended it after 599999 of 600000 bytes\n"


def test_an_early_answer_does_not_wait_for_the_body(program: Path, upstream: Upstream) -> None:
    upstream.answer = lambda talk: talk.send(b"Status: 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
    variables = {**environment("POST", length=100), "SCGI_SERVER": upstream.address}
    with subprocess.Popen([program], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        assert popen.stdin and popen.stdout
        popen.stdin.write(b"x")
        popen.stdin.flush()
        answer = b"Status: 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"
        assert popen.stdout.read(len(answer)) == answer
        popen.stdin.write(bytes(99))
        popen.stdin.close()
        assert popen.wait(10) == 0


def test_a_web_server_that_sends_before_it_reads_is_not_waited_for(program: Path, upstream: Upstream) -> None:
    """Apache gives a program the whole body before it takes a byte: what has been answered early must not stop that."""

    def answer(talk: Conversation) -> None:
        talk.send(b"Status: 413 Content Too Large\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000000))
        talk.wait_for_eof()

    upstream.answer = answer
    variables = {**environment("POST", length=100 * MEGA), "SCGI_SERVER": upstream.address}
    with subprocess.Popen([program], env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        assert popen.stdin and popen.stdout
        for _ in range(100):
            popen.stdin.write(bytes(MEGA))
        popen.stdin.close()
        assert len(popen.stdout.read().partition(b"\r\n\r\n")[2]) == 1000000


@pytest.mark.alone
def test_100_mb_both_ways_at_once_take_no_memory(program: Path, upstream: Upstream) -> None:
    def echo(talk: Conversation) -> None:
        talk.send(b"Status: 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n")
        for piece in talk.body():
            talk.send(piece)

    upstream.answer = echo
    body = PIECE * 1600
    variables = {**environment("POST", length=len(body)), "SCGI_SERVER": upstream.address}
    done = run(program, variables, body, within=60)
    assert (done.exit_status, done.log) == (0, "")
    assert hashlib.sha256(done.body).digest() == hashlib.sha256(body).digest()
    assert 0 < done.peak_memory < 4 * MEGA
