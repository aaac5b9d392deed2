"""The gateway over real sockets: HTTP clients in front, toy SCGI servers, friendly and hostile, behind."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from gateway.toys import Conversation, Site, start_gateway
from support import free_port, raw_exchange, resident_bytes, short_folder, wait_until
from support.addresses import connect

MEGA = 1 << 20


def http(site: Site, **options: float) -> httpx.Client:
    return httpx.Client(base_url=site.url, trust_env=False, timeout=options.get("timeout", 20))


def pieces(total: int, size: int = 65536) -> Iterator[bytes]:
    """Bytes that differ from piece to piece."""
    for number in range(total // size):
        yield struct.pack(">Q", number) * (size // 8)


def digest(data: Iterator[bytes]) -> str:
    found = hashlib.sha256()
    for piece in data:
        found.update(piece)
    return found.hexdigest()


# -- requests and answers ---------------------------------------------------------------------------


def test_a_request_is_passed_on_and_its_answer_comes_back(either_site: Site) -> None:
    either_site.upstream.answer = lambda talk: talk.answer(
        b"hello", "Content-Type: text/plain", "X-Id: " + talk.variables["HTTP_X_REQUEST_ID"]
    )
    with http(either_site) as client:
        for serial in ("1", "2"):  # over one kept connection
            answer = client.get("/a%20b?x=%201", headers={"X-Request-ID": serial, "x_request_id": "evil"})
            assert (answer.status_code, answer.text, answer.headers["x-id"]) == (200, "hello", serial)
            assert answer.headers["content-length"] == "5"
            assert answer.headers.get_list("date", split_commas=False) and "server" not in answer.headers
    talk = either_site.upstream.last
    assert talk is not None
    assert talk.names[:2] == ["CONTENT_LENGTH", "SCGI"]
    assert len(set(talk.names)) == len(talk.names)
    port = either_site.address.rpartition(":")[2]
    wanted = {
        "CONTENT_LENGTH": "0",
        "SCGI": "1",
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/a%20b?x=%201",
        "QUERY_STRING": "x=%201",
        "PATH_INFO": "/a b",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": either_site.address,
    }
    assert {name: talk.variables[name] for name in wanted} == wanted
    assert talk.variables["REMOTE_PORT"].isdigit()


@pytest.mark.parametrize("status", [299, 600, 999])
def test_a_status_without_a_name_in_http_is_passed_on(site: Site, status: int) -> None:
    site.upstream.answer = lambda talk: talk.send(b"Status: %d Odd\r\nContent-Length: 2\r\n\r\nok" % status)
    with http(site) as client:
        for _ in range(2):  # over one kept connection
            answer = client.get("/")
            assert (answer.status_code, answer.text) == (status, "ok")


def test_who_asks_is_known_from_the_socket_and_from_no_header(site: Site) -> None:
    with http(site) as client:
        client.get("/", headers={"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"})
    assert site.upstream.last is not None
    found = site.upstream.last.variables
    assert (found["REMOTE_ADDR"], found["REQUEST_SCHEME"]) == ("127.0.0.1", "http")
    assert found["HTTP_X_FORWARDED_FOR"] == "198.51.100.7"


def test_status_and_headers_come_back_apart_from_those_of_the_connection(site: Site) -> None:
    site.upstream.answer = lambda talk: talk.send(
        b"Status: 404 Not Here\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nDate: then\r\nServer: theirs\r\n"
        b"Connection: X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n"
        b"Transfer-Encoding: chunked\r\nX-Latin:  J\xf6rg \r\n\r\nlost"
    )
    with http(site) as client:
        answer = client.get("/")
    assert (answer.status_code, answer.text) == (404, "lost")
    assert answer.headers.get_list("set-cookie", split_commas=False) == ["a=1", "b=2"]
    assert (answer.headers["date"], answer.headers["server"]) == ("then", "theirs")
    assert dict(answer.headers.raw)[b"x-latin"] == b"J\xf6rg"
    assert not {"x-private", "keep-alive", "upgrade", "connection"} & set(answer.headers)


def test_head_204_and_304_have_no_body_but_keep_what_they_announce(site: Site) -> None:
    site.upstream.answer = lambda talk: talk.answer(b"hello")
    with http(site) as client:
        answer = client.head("/")
        assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "5", b"")
        site.upstream.answer = lambda talk: talk.send(b"Status: 304 Not Modified\r\nContent-Length: 9\r\n\r\n")
        answer = client.get("/")
        assert (answer.status_code, answer.headers["content-length"]) == (304, "9")
        site.upstream.answer = lambda talk: talk.send(b"Status: 204 No Content\r\nContent-Length: 2\r\n\r\nno")
        answer = client.get("/")
        assert (answer.status_code, "content-length" in answer.headers, answer.content) == (204, False, b"")


def test_an_answer_comes_as_it_is_made(site: Site) -> None:
    seen = threading.Event()

    def answer(talk: Conversation) -> None:
        talk.send(b"Content-Type: text/plain\r\n\r\nfirst")
        assert seen.wait(10)
        talk.send(b"second")

    site.upstream.answer = answer
    with http(site) as client, client.stream("GET", "/") as response:
        parts = response.iter_raw()
        assert next(parts) == b"first"
        seen.set()
        assert b"".join(parts) == b"second"


def test_more_than_the_announced_length_is_cut(site: Site) -> None:
    site.upstream.answer = lambda talk: talk.send(b"Content-Length: 2\r\n\r\nhello")
    with http(site) as client:
        assert client.get("/").text == "he"
        assert client.get("/").text == "he"


# -- bodies -----------------------------------------------------------------------------------------


def echo(talk: Conversation) -> None:
    body = b"".join(talk.body())
    talk.answer(body, *(f"X-{name}: {talk.variables.get(name, '-')}" for name in ("CONTENT_LENGTH", "CONTENT_TYPE")))


def test_a_small_body_goes_out_with_its_head_in_one_write(site: Site) -> None:
    behind_the_head: list[bytes] = []

    def answer(talk: Conversation) -> None:
        behind_the_head.append(talk.received)
        echo(talk)

    site.upstream.answer = answer
    with http(site) as client:
        answered = client.post("/", content=b"abc", headers={"Content-Type": "text/x"})
    assert (answered.content, answered.headers["x-content_type"]) == (b"abc", "text/x")
    assert behind_the_head == [b"abc"]


def test_a_body_of_known_length_goes_up_as_it_comes(site: Site) -> None:
    first_seen = threading.Event()

    def answer(talk: Conversation) -> None:
        body = talk.body()
        data = next(body)
        first_seen.set()
        talk.answer(data + b"".join(body))

    def body() -> Iterator[bytes]:
        yield b"one"
        assert first_seen.wait(10)
        yield b"two"

    site.upstream.answer = answer
    with http(site) as client:
        assert client.post("/", content=body(), headers={"Content-Length": "6"}).content == b"onetwo"


def test_a_chunked_body_is_collected_to_learn_its_length(site: Site) -> None:
    site.upstream.answer = echo
    whole = b"".join(pieces(3 * MEGA))
    with http(site) as client:
        answer = client.post("/", content=pieces(3 * MEGA))
    assert answer.content == whole
    assert answer.headers["x-content_length"] == str(len(whole))
    assert site.upstream.last is not None
    assert "HTTP_TRANSFER_ENCODING" not in site.upstream.last.variables
    with http(site) as client:
        assert client.post("/", content=iter([b""])).content == b""


def test_a_chunked_body_beyond_the_limit_is_refused() -> None:
    with short_folder() as folder, start_gateway("127.0.0.1:1", folder, spool_limit=1000) as gateway:
        site = Site(gateway, None, gateway.address)  # type: ignore[arg-type]
        with http(site) as client:
            answer = client.post("/", content=iter([b"x" * 600, b"x" * 600]))
        assert answer.status_code == 413
        assert "1000 bytes" in answer.text


def test_a_client_that_expects_100_continue_gets_it(site: Site) -> None:
    site.upstream.answer = echo
    with connect(site.address) as peer:
        peer.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert peer.recv(1000).startswith(b"HTTP/1.1 100 ")
        peer.sendall(b"abc")
        received = b""
        while not received.endswith(b"\r\n\r\nabc"):
            data = peer.recv(1000)
            assert data, received
            received += data
        assert received.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("closing", [False, True])
def test_an_early_answer_arrives_while_the_body_is_still_being_sent(either_site: Site, closing: bool) -> None:
    def refuse(talk: Conversation) -> None:
        talk.send(b"Status: 413 Content Too Large\r\nContent-Type: text/plain\r\n\r\ntoo large")
        # and closes with most of the body unread

    either_site.upstream.answer = refuse
    headers = {"Content-Length": str(64 * MEGA), **({"Connection": "close"} if closing else {})}
    with http(either_site) as client:
        answer = client.post("/", content=pieces(64 * MEGA), headers=headers)
    assert (answer.status_code, answer.text) == (413, "too large")


def test_an_early_answer_arrives_although_the_client_sends_no_more(site: Site) -> None:
    site.upstream.answer = lambda talk: talk.answer(b"enough")
    with connect(site.address) as peer:
        peer.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nonly this")
        received = b""
        while not received.endswith(b"enough"):
            data = peer.recv(1000)
            assert data, received
            received += data


def test_a_client_that_leaves_has_its_request_ended(site: Site) -> None:
    working, ended = threading.Event(), threading.Event()

    def answer(talk: Conversation) -> None:
        working.set()
        talk.wait_for_eof()
        ended.set()

    site.upstream.answer = answer
    for lines in (
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nx",
    ):
        working.clear()
        ended.clear()
        with connect(site.address) as peer:
            peer.sendall(lines)
            assert working.wait(10)
        assert ended.wait(10)


def test_a_client_that_leaves_within_the_answer_has_its_request_ended(site: Site) -> None:
    ended = threading.Event()

    def answer(talk: Conversation) -> None:
        talk.send(b"Content-Type: x/y\r\n\r\n")
        try:
            while True:
                talk.send(b"x" * 65536)
        except OSError:
            ended.set()

    site.upstream.answer = answer
    with connect(site.address) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        peer.recv(1000)
    assert ended.wait(10)


# -- large bodies in constant memory ----------------------------------------------------------------


def peak_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


@pytest.mark.parametrize("chunked", [False, True], ids=["streamed", "spooled"])
def test_an_upload_of_100_mb_takes_no_memory(site: Site, chunked: bool) -> None:
    total = 100 * MEGA
    site.upstream.answer = lambda talk: talk.answer(digest(talk.body()).encode())
    with http(site) as client:
        client.post("/", content=b"warm")
        before = resident_bytes(site.gateway.pid)
        headers = {} if chunked else {"Content-Length": str(total)}
        answer = client.post("/", content=pieces(total), headers=headers)
    assert answer.text == digest(pieces(total))
    assert peak_bytes(site.gateway.pid) - before < 10 * MEGA


def test_a_download_of_100_mb_takes_no_memory_however_slow_its_reader(site: Site) -> None:
    total = 100 * MEGA
    written = [0]

    def answer(talk: Conversation) -> None:
        talk.send(b"Content-Type: x/y\r\n\r\n")
        for piece in pieces(total):
            talk.send(piece)
            written[0] += len(piece)

    with http(site) as client:
        client.get("/")
        before = resident_bytes(site.gateway.pid)
        site.upstream.answer = answer
        with client.stream("GET", "/") as response:
            parts = response.iter_raw()
            found = hashlib.sha256(next(parts))
            seen = [-1]

            def stands_still() -> bool:
                seen.append(written[0])
                time.sleep(0.1)
                return seen[-1] == written[0]

            wait_until(stands_still, 10, "the toy server to be held back")
            assert written[0] < 20 * MEGA  # the kernel's buffers, not the gateway's
            for part in parts:
                found.update(part)
    assert found.hexdigest() == digest(pieces(total))
    assert peak_bytes(site.gateway.pid) - before < 10 * MEGA


# -- servers that are hostile, broken or absent -------------------------------------------------------


def endless(data: bytes) -> object:
    def answer(talk: Conversation) -> None:
        while True:
            talk.send(data)

    return answer


def test_a_reset_is_a_502(tcp_site: Site) -> None:
    tcp_site.upstream.answer = lambda talk: talk.reset()
    with http(tcp_site) as client:
        assert client.get("/").status_code == 502
    tcp_site.upstream.settle()


HOSTILE = {
    "an endless header": endless(b"X-Filler: abc\r\n" * 100),
    "a line of 2 GB": endless(b"x" * 65536),
    "no header": lambda talk: talk.send(b"<html>\r\n\r\n</html>"),
    "NUL": lambda talk: talk.send(b"Status: 200 OK\r\nX: a\0b\r\n\r\nx"),
    "a bare carriage return": lambda talk: talk.send(b"Status: 200 OK\r\nX: a\rY: b\r\n\r\nx"),
    "nothing": lambda talk: None,
    "half a header": lambda talk: talk.send(b"Status: 200 OK\r\nContent-Ty"),
    "an interim status": lambda talk: talk.send(b"Status: 103 Early Hints\r\n\r\nStatus: 200 OK\r\n\r\n"),
    "a status that is no number": lambda talk: talk.send(b"Status: fine\r\n\r\n"),
    "a length that is no number": lambda talk: talk.send(b"Content-Length: many\r\n\r\nx"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_answer_is_a_502_and_the_next_request_works(site: Site, name: str) -> None:
    before = peak_bytes(site.gateway.pid)
    site.upstream.answer = HOSTILE[name]  # type: ignore[assignment]
    with http(site) as client:
        answer = client.get("/path")
        assert (answer.status_code, answer.headers["content-type"]) == (502, "text/plain; charset=utf-8")
        assert answer.text.startswith("502 Bad Gateway\n")
        assert "GET /path: 502 from unix:" in site.gateway.log()
        site.upstream.answer = lambda talk: talk.answer(b"hello")
        assert client.get("/").text == "hello"
    assert peak_bytes(site.gateway.pid) - before < 10 * MEGA


def stop_short(talk: Conversation) -> None:
    talk.send(b"Status: 200 OK\r\nContent-Length: 10\r\n\r\nhell")


def reset_within_chunks(talk: Conversation) -> None:
    talk.send(b"Status: 200 OK\r\n\r\nhell")
    assert talk.peer.recv(1) == b"x"  # the client has it
    talk.reset()


def test_an_answer_that_breaks_off_reaches_the_client_as_broken(either_site: Site) -> None:
    either_site.upstream.answer = stop_short
    with (
        http(either_site) as client,
        pytest.raises(httpx.RemoteProtocolError, match=r"incomplete|peer closed"),
    ):
        client.get("/")
    assert "ended after 4 of 10 bytes (the answer had begun: cut off)" in either_site.gateway.log()


def test_a_reset_within_an_answer_of_unknown_length_reaches_the_client_as_broken(tcp_site: Site) -> None:
    tcp_site.upstream.answer = reset_within_chunks
    with connect(tcp_site.address) as peer:
        peer.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx")
        received = b""
        while b"hell" not in received:
            received += peer.recv(1000)
        peer.sendall(b"x")
        while data := peer.recv(1000):
            received += data
    assert b"transfer-encoding: chunked" in received.lower()
    assert not received.endswith(b"0\r\n\r\n")
    tcp_site.upstream.settle()


def test_a_server_that_stalls_is_a_504(impatient: Site) -> None:
    impatient.upstream.answer = lambda talk: talk.wait_for_eof()
    with http(impatient) as client:
        assert client.get("/").status_code == 504
    impatient.upstream.settle()


def test_a_server_that_stalls_within_its_answer_has_it_cut_off(impatient: Site) -> None:
    def answer(talk: Conversation) -> None:
        talk.send(b"Content-Type: x/y\r\n\r\nhell")
        talk.wait_for_eof()

    impatient.upstream.answer = answer
    with http(impatient) as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/")


def test_a_server_that_stops_reading_is_a_504(impatient: Site) -> None:
    hold = threading.Event()
    impatient.upstream.answer = lambda talk: talk.wait_for(hold)
    try:
        with http(impatient) as client:
            headers = {"Content-Length": str(8 * MEGA)}
            assert client.post("/", content=pieces(8 * MEGA), headers=headers).status_code == 504
    finally:
        hold.set()


def test_slow_is_not_stalled(impatient: Site) -> None:
    def answer(talk: Conversation) -> None:
        for piece in (b"Content-Ty", b"pe: x/y\r\n\r\n", b"a", b"b"):
            time.sleep(0.25)  # together longer than what the gateway waits for one
            talk.send(piece)

    impatient.upstream.answer = answer
    with http(impatient) as client:
        assert client.get("/").text == "ab"

    def body() -> Iterator[bytes]:
        for _ in range(4):
            time.sleep(0.25)
            yield b"x"

    impatient.upstream.answer = echo
    with http(impatient) as client:
        assert client.post("/", content=body(), headers={"Content-Length": "4"}).text == "xxxx"


@pytest.mark.parametrize("sent", [b"", b"x"])
def test_a_client_that_stalls_within_its_body_is_told_so(impatient: Site, sent: bytes) -> None:
    impatient.upstream.answer = echo
    received = raw_exchange(
        impatient.address, b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n" + sent, within=10
    )
    assert received.startswith(b"HTTP/1.1 408 ")


def test_no_server_at_the_address_is_a_503_with_a_line_in_the_log() -> None:
    with short_folder() as folder:
        for upstream in (f"127.0.0.1:{free_port()}", f"unix:{folder}/absent"):
            with start_gateway(upstream, folder) as gateway:
                answer = httpx.get(f"http://{gateway.address}/", trust_env=False)
                assert answer.status_code == 503
                assert upstream not in answer.text
                assert f"GET /: 503 from {upstream}: " in gateway.log()


def test_a_full_queue_is_waited_for_and_is_a_504_in_the_end() -> None:
    with (
        short_folder() as folder,
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as filler,
    ):
        listener.bind(f"{folder}/full")
        listener.listen(0)
        filler.connect(f"{folder}/full")
        with start_gateway(f"unix:{folder}/full", folder, connect_timeout=0.5) as gateway:
            assert httpx.get(f"http://{gateway.address}/", trust_env=False).status_code == 504

            def serve() -> None:
                for _ in range(2):  # the filler, then the gateway
                    peer, _ = listener.accept()
                    with peer:
                        if peer.recv(65536):
                            peer.sendall(b"Status: 200 OK\r\n\r\nat last")

            waiting = threading.Timer(0.2, serve)
            waiting.start()
            filler.shutdown(socket.SHUT_WR)
            assert httpx.get(f"http://{gateway.address}/", trust_env=False).text == "at last"
            waiting.join()


# -- clients that are hostile -------------------------------------------------------------------------


def test_a_request_that_cannot_be_passed_on_is_a_400_and_the_connection_ends(site: Site) -> None:
    for lines in (
        ["GET /%00 HTTP/1.1", "Host: h"],
        ["GET / HTTP/1.1", "Host: a/b"],
        ["POST / HTTP/1.1", "Host: h", "Content-Length: 3", "Transfer-Encoding: chunked"],
        ["POST / HTTP/1.1", "Host: h", "Content-Length: 3", "Content-Length: 4"],
        ["GET / HTTP/1.1"],
    ):
        head = "".join(f"{line}\r\n" for line in (*lines, ""))
        smuggled = b"3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
        received = raw_exchange(site.address, head.encode() + smuggled)
        assert received.startswith(b"HTTP/1.1 400 ")
        assert received.count(b"HTTP/1.1 400 ") + received.count(b"HTTP/1.1 200 ") == 1
    assert site.upstream.last is None


def test_http_1_0_is_answered(site: Site) -> None:
    received = raw_exchange(site.address, b"GET / HTTP/1.0\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"\r\n\r\nhello")
    assert site.upstream.last is not None
    assert site.upstream.last.variables["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert "HTTP_HOST" not in site.upstream.last.variables


def test_an_upgrade_is_not_offered_to_the_application(site: Site) -> None:
    lines = ["GET / HTTP/1.1", "Host: h", "Upgrade: websocket", "Connection: Upgrade"]
    head = "".join(f"{line}\r\n" for line in (*lines, "Connection: close", ""))
    assert raw_exchange(site.address, head.encode()).startswith(b"HTTP/1.1 200 ")
    assert site.upstream.last is not None
    assert not [name for name in site.upstream.last.names if "UPGRADE" in name]
