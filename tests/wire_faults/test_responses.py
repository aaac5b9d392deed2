"""Applications that fail, cheat or exaggerate on a real server: promises 9 to 11 of its responses."""

from __future__ import annotations

import json

import pytest

from support import Reset, Response, build_request, parse_response, raw_exchange, scgi_request, wait_until
from support.addresses import connect
from wire_faults.app import SECRET
from wire_faults.conftest import LogFrom, Server


def send_back(server: Server, status: str, *headers: tuple[str, str]) -> Response:
    body = json.dumps([status, headers]).encode()
    return scgi_request(server.address, {}, body, method="POST", path="/header", within=8)


SPLITS = {
    "crlf-in-value": ("200 OK", ("X-A", "b\r\nSet-Cookie: evil=1")),
    "lf-in-value": ("200 OK", ("X-A", "b\nSet-Cookie: evil=1")),
    "cr-in-value": ("200 OK", ("X-A", "b\rSet-Cookie: evil=1")),
    "nul-in-value": ("200 OK", ("X-A", "b\0evil")),
    "head-end-in-value": ("200 OK", ("Location", "/\r\n\r\n<script>evil</script>")),
    "crlf-in-name": ("200 OK", ("X-A: b\r\nSet-Cookie", "evil=1")),
    "nul-in-name": ("200 OK", ("X\0evil", "b")),
    "colon-in-name": ("200 OK", ("X: evil", "b")),
    "empty-name": ("200 OK", ("", "evil")),
    "crlf-in-status": ("200 OK\r\nSet-Cookie: evil=1", ("X-A", "b")),
    "nul-in-status": ("200 OK\0evil", ("X-A", "b")),
    "no-status": ("evil", ("X-A", "b")),
    "interim-status": ("103 Early Hints", ("X-A", "evil")),
    "status-as-header": ("200 OK", ("Status", "201 evil")),
    "wide-character": ("200 OK", ("X-A", "evil \u20ac")),
    "length-not-digits": ("200 OK", ("Content-Length", "+4evil")),
}


@pytest.mark.parametrize("case", SPLITS)
def test_an_application_cannot_split_or_smuggle_a_response(server: Server, case: str) -> None:
    status, header = SPLITS[case]
    log = LogFrom(server)
    answer = send_back(server, status, header)
    assert answer.status == 500
    assert b"evil" not in answer.raw
    wait_until(lambda: "/header" in log(), what="an error in the log that names the request")
    assert "\0" not in log()
    assert "\r" not in log()


def test_a_good_header_goes_out_as_it_is_and_hop_by_hop_ones_stay(server: Server) -> None:
    answer = send_back(
        server, "299 Fine", ("X-A", "caf\xe9"), ("Connection", "close"), ("Transfer-Encoding", "chunked")
    )
    assert (answer.status, answer.reason, answer.body) == (299, "Fine", b"body")
    assert dict(answer.headers) == {"X-A": "caf\xe9", "Content-Length": "4"}
    assert answer.raw.startswith(b"Status: 299 Fine\r\n")


FAILURES = [
    "/raise/ValueError", "/raise/SystemExit", "/raise/KeyboardInterrupt", "/raise/MemoryError", "/raise/GeneratorExit",
    "/raise/Unheard", "/raise/OSError", "/raise/EOFError", "/raise-late", "/recursion", "/no-start", "/text",
    "/nothing", "/number", "/started-twice", "/no-such-page",
]  # fmt: skip


@pytest.mark.parametrize("path", FAILURES)
def test_every_failure_of_an_application_is_a_500_and_costs_no_worker(server: Server, path: str) -> None:
    log = LogFrom(server)
    answer = server.get(path, query="secret=1", within=20)
    assert answer.status == 500
    for inside in (SECRET, "Traceback", "app.py", "File "):
        assert inside not in answer.text
    wait_until(lambda: "Traceback" in log(), what="the traceback in the log")
    assert path in log()
    if path.startswith("/raise"):
        assert SECRET in log()


def test_a_failure_is_told_to_a_head_request_without_a_body(server: Server) -> None:
    answer = server.get("/raise/ValueError", method="HEAD")
    assert (answer.status, answer.body) == (500, b"")


def test_an_exception_in_close_is_logged_and_the_answer_stands(server: Server) -> None:
    log = LogFrom(server)
    assert server.get("/exit-in-close").body == b"ok"
    wait_until(lambda: SECRET in log())


BROKEN = ["/raise-in-iteration", "/text-later", "/short"]


@pytest.mark.parametrize("path", BROKEN)
def test_an_answer_that_broke_off_is_a_reset_over_tcp(tcp: Server, path: str) -> None:
    with pytest.raises(Reset) as caught:
        raw_exchange(tcp.address, build_request(path=path), within=8)
    assert parse_response(caught.value.received).body in (b"", b"12345") if caught.value.received else True


@pytest.mark.parametrize("path", BROKEN)
def test_an_answer_that_broke_off_is_shorter_than_it_says_over_a_unix_socket(unix: Server, path: str) -> None:
    log = LogFrom(unix)
    try:
        answer = parse_response(raw_exchange(unix.address, build_request(path=path), within=8))
    except Reset as reset:
        answer = parse_response(reset.received)
    assert (answer.header("content-length"), answer.body) == ("10", b"12345")
    wait_until(log, what="a line in the log")


def test_an_answer_longer_than_it_says_is_cut(server: Server) -> None:
    log = LogFrom(server)
    answer = server.get("/long")
    assert (answer.header("content-length"), answer.body) == ("5", b"12345")
    wait_until(lambda: "longer than its Content-Length" in log())


@pytest.mark.parametrize("status", ["204+No+Content", "304+Not+Modified"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_204_and_304_carry_no_body(server: Server, status: str, method: str) -> None:
    answer = server.get("/status", query=status, method=method)
    assert (answer.status, answer.body, answer.header("x-a")) == (int(status[:3]), b"", "b")


@pytest.mark.parametrize("path", ["/pid", "/variables", "/long", "/short", "/big", "/status?200+OK"])
def test_head_carries_no_body_whatever_the_application_gives(server: Server, path: str) -> None:
    path, _, query = path.partition("?")
    answer = server.get(path, query=query, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")


def test_a_peer_that_leaves_a_big_answer_unread_gives_the_worker_back_when_it_closes(server: Server) -> None:
    with connect(server.address, 20) as peer:
        peer.sendall(build_request(path="/big"))
        assert peer.recv(100).startswith(b"Status: 200 OK\r\n")
    server.assert_same_worker()


def test_a_big_answer_arrives_whole_at_a_slow_peer(server: Server) -> None:
    with connect(server.address, 20) as peer:
        peer.sendall(build_request(path="/big"))
        size = 0
        while chunk := peer.recv(1 << 20):
            size += len(chunk)
    assert size == (50 << 20) + len(b"Status: 200 OK\r\nContent-Length: 52428800\r\n\r\n")
