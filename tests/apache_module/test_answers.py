"""What comes back: as the server said it, as it comes, and never taken for whole when it is not."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator

import pytest

from apache_module.asking import Answer, ask
from gateway.toys import Conversation, Upstream
from support.apache_module import Apache, serving

MEGA = 1 << 20


@pytest.fixture(scope="module")
def web(server: Upstream) -> Iterator[Apache]:
    config = f"""
SCGIMount /app {server.address}
SCGIServerTimeout 10
ErrorDocument 404 /static.txt
"""
    with serving(config, modules=["headers"]) as web:
        yield web


def get(web: Apache, upstream: Upstream, said: bytes, method: str = "GET") -> Answer:
    upstream.answer = lambda talk: talk.send(said)
    return ask(web, "/app", method)


def test_status_reason_headers_and_body_are_as_the_server_gave_them(web: Apache, upstream: Upstream) -> None:
    said = (
        b"Status: 418 Teapot Here\r\nContent-Type: text/x; charset=KOI8-R\r\nSet-Cookie: a=1; Path=/\r\n"
        b'X-Latin: J\xf6rg\r\nSet-Cookie: b=2\r\nWWW-Authenticate: A\r\nETag: "x"\r\n\r\nbody\0\r\n\r\n'
    )
    answer = get(web, upstream, said)
    assert (answer.status, answer.reason, answer.body, answer.whole) == (418, "Teapot Here", b"body\0\r\n\r\n", True)
    assert answer.header("set-cookie") == "a=1; Path=/\nb=2"
    assert answer.header("content-type") == "text/x; charset=KOI8-R"
    assert (answer.header("x-latin"), answer.header("etag")) == ("J\xf6rg", '"x"')


def test_without_a_status_it_is_200(web: Apache, upstream: Upstream) -> None:
    answer = get(web, upstream, b"Content-Type: text/x\r\n\r\nbody")
    assert (answer.status, answer.reason, answer.body) == (200, "OK", b"body")


def test_a_status_without_a_reason_gets_the_usual_one(web: Apache, upstream: Upstream) -> None:
    answer = get(web, upstream, b"Status: 404\r\n\r\nlost")
    assert (answer.status, answer.reason, answer.body) == (404, "Not Found", b"lost")


def test_lines_may_end_with_a_newline_alone(web: Apache, upstream: Upstream) -> None:
    answer = get(web, upstream, b"Status: 201 Made\nX-One: 1\n\n\nbody")
    assert (answer.status, answer.header("x-one"), answer.body) == (201, "1", b"\nbody")


def test_an_error_page_of_the_application_is_not_exchanged_for_apache_s(web: Apache, upstream: Upstream) -> None:
    answer = get(web, upstream, b"Status: 404 Not Found\r\nContent-Type: text/x\r\n\r\nmine")
    assert (answer.status, answer.body, answer.header("content-type")) == (404, b"mine", "text/x")


def test_headers_of_the_connection_are_left_out(web: Apache, upstream: Upstream) -> None:
    said = (
        b"Status: 200 OK\r\nConnection: keep-alive, X-Mine\r\nKeep-Alive: x\r\nTE: trailers\r\nTrailer: X\r\n"
        b"Upgrade: h2c\r\nProxy-Authenticate: Basic\r\nX-Good: 1\r\n\r\nbody"
    )
    answer = get(web, upstream, said)
    assert (answer.status, answer.body, answer.header("x-good")) == (200, b"body", "1")
    assert (answer.header("connection"), answer.header("keep-alive"), answer.header("upgrade")) == ("close", None, None)


# -- framing ----------------------------------------------------------------------------------------------------------


def test_a_content_length_is_kept(web: Apache, upstream: Upstream) -> None:
    answer = get(web, upstream, b"Content-Length: 5\r\n\r\n12345")
    assert (answer.header("content-length"), answer.header("transfer-encoding")) == ("5", None)
    body = bytes(300_000)
    answer = get(web, upstream, b"Content-Length: 300000\r\n\r\n" + body)
    assert (answer.header("content-length"), answer.body, answer.whole) == ("300000", body, True)


def test_nothing_goes_out_beyond_the_content_length(web: Apache, upstream: Upstream) -> None:
    answer = get(web, upstream, b"Content-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n")
    assert answer.raw.endswith(b"\r\n\r\nhi")


@pytest.mark.parametrize(
    ("method", "status", "length"), [("HEAD", 200, "9"), ("GET", 304, None), ("GET", 204, None), ("HEAD", 404, "9")]
)
def test_head_204_and_304_have_no_body(
    web: Apache, upstream: Upstream, method: str, status: int, length: str | None
) -> None:
    answer = get(web, upstream, b'Status: %d X\r\nContent-Length: 9\r\nETag: "e"\r\n\r\n123456789' % status, method)
    assert (answer.status, answer.body) == (status, b"")
    assert answer.header("content-length") in (length, "9" if status == 304 else None)


def test_a_head_is_over_though_the_server_goes_on(web: Apache, upstream: Upstream) -> None:
    left = threading.Event()

    def endless(talk: Conversation) -> None:
        talk.send(b"Content-Type: text/x\r\n\r\n")
        try:
            while True:
                talk.send(bytes(65536))
        finally:
            left.set()

    upstream.answer = endless
    assert ask(web, "/app", "HEAD").status == 200
    assert left.wait(10)


def test_a_conditional_request_is_the_application_s_affair(web: Apache, upstream: Upstream) -> None:
    upstream.answer = lambda talk: talk.send(b'Status: 200 OK\r\nETag: "e"\r\nContent-Length: 4\r\n\r\nbody')
    answer = ask(web, "/app", "GET", [("If-None-Match", '"e"')])
    assert (answer.status, answer.body) in ((200, b"body"), (304, b""))
    assert upstream.last and upstream.last.variables["HTTP_IF_NONE_MATCH"] == '"e"'


@pytest.mark.parametrize("announced", ["with a length", "without one"])
def test_blocks_go_out_as_they_come(web: Apache, upstream: Upstream, announced: str) -> None:
    seen = threading.Event()

    def answer(talk: Conversation) -> None:
        talk.send(b"Content-Length: 11\r\n\r\n" if announced == "with a length" else b"Status: 200 OK\r\n\r\n")
        talk.send(b"first")
        talk.wait_for(seen)
        talk.send(b"second")

    upstream.answer = answer
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
    connection.request("GET", "/app")
    response = connection.getresponse()
    assert response.read(5) == b"first"
    seen.set()
    assert response.read() == b"second"
    connection.close()


@pytest.mark.parametrize("size", [0, 1000, 3 * MEGA])
@pytest.mark.parametrize("how", ["reset", "closed"])
def test_an_answer_that_is_cut_is_never_whole(web: Apache, upstream: Upstream, how: str, size: int) -> None:
    def answer(talk: Conversation) -> None:
        talk.send((b"Content-Length: 4000000\r\n\r\n" if how == "closed" else b"Status: 200 OK\r\n\r\n") + bytes(size))
        if how == "reset":
            talk.reset()

    upstream.answer = answer
    found = ask(web, "/app")
    assert not found.whole or found.status == 502
    assert b"<html" not in found.body.lower() or found.status == 502  # no page of Apache's amid an answer
    assert web.codes()


def test_http_1_0_sees_a_reset_where_a_cut_has_no_other_sign(web: Apache, upstream: Upstream) -> None:
    def answer(talk: Conversation) -> None:
        talk.send(b"Content-Length: 4000000\r\n\r\n" + bytes(1000))

    upstream.answer = answer
    found = ask(web, "/app", version="1.0")
    assert not found.whole or found.status == 502


# -- redirects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/there?a=1", "http://example.org/there", "there", "//example.org/x"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 201, 200])
def test_a_location_with_a_status_is_for_the_client(web: Apache, upstream: Upstream, status: int, target: str) -> None:
    answer = get(web, upstream, f"Status: {status} X\r\nLocation: {target}\r\n\r\nelsewhere".encode())
    assert (answer.status, answer.header("location"), answer.body) == (status, target, b"elsewhere")


def test_a_url_alone_is_a_302(web: Apache, upstream: Upstream) -> None:
    answer = get(web, upstream, b"Location: http://example.org/there\r\n\r\n")
    assert (answer.status, answer.header("location")) == (302, "http://example.org/there")


def test_a_path_alone_is_a_local_redirect_that_is_asked_for_with_get(web: Apache, upstream: Upstream) -> None:
    asked: list[tuple[str, str, str, str, bytes]] = []

    def answer(talk: Conversation) -> None:
        found = talk.variables
        names = ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING", "CONTENT_LENGTH")
        method, path, query, length = (found[name] for name in names)
        asked.append((method, path, query, length, b"".join(talk.body())))
        if path == "/old":
            talk.send(b"Location: /app/new?a=%20b\r\n\r\n")
        else:
            talk.answer(b"new")

    upstream.answer = answer
    found = ask(web, "/app/old?x", "POST", (), b"12345")
    assert (found.status, found.body, found.header("location")) == (200, b"new", None)
    assert asked == [("POST", "/old", "x", "5", b"12345"), ("GET", "/new", "a=%20b", "0", b"")]


def test_a_local_redirect_may_lead_to_a_file(web: Apache, upstream: Upstream) -> None:
    assert get(web, upstream, b"Location: /static.txt\r\n\r\n").body == b"a file\n"


def test_local_redirects_that_go_in_circles_end(web: Apache, upstream: Upstream) -> None:
    asked: list[str] = []

    def answer(talk: Conversation) -> None:
        asked.append(talk.variables["REQUEST_URI"])
        talk.send(b"Location: /app\r\n\r\n")

    upstream.answer = answer
    found = ask(web, "/app")
    assert found.status in (500, 502) and found.whole
    assert 1 < len(asked) <= 12  # Apache's own limit is ten redirects


# -- the client -------------------------------------------------------------------------------------------------------


def test_the_server_hears_of_it_when_the_client_has_left(web: Apache, upstream: Upstream) -> None:
    left = threading.Event()

    def endless(talk: Conversation) -> None:
        talk.send(b"Status: 200 OK\r\n\r\n")
        try:
            while True:
                talk.send(bytes(65536))
        finally:
            left.set()

    upstream.answer = endless
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
    connection.request("GET", "/app")
    response = connection.getresponse()
    response.read(100_000)
    response.close()
    connection.close()
    assert left.wait(10)


def test_a_connection_is_kept_for_the_next_request(web: Apache, upstream: Upstream) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
    for said in (b"Status: 200 OK\r\n\r\nbody", b"Content-Length: 4\r\n\r\nbody", b"Status: 404 X\r\n\r\nbody"):
        upstream.answer = lambda talk, said=said: talk.send(said)  # type: ignore[misc]
        connection.request("POST", "/app", b"12345")
        response = connection.getresponse()
        assert response.read() == b"body" and not response.will_close
    connection.close()
