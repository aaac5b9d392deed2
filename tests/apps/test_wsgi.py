"""PEP 3333, whole, over the wire: a real `scgi serve` answers with the pages of wsgi_pages.py."""

from __future__ import annotations

import json
import re
import socket
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import (
    Process,
    Reset,
    Response,
    build_request,
    netstring,
    raw_exchange,
    scgi_request,
    short_folder,
    start,
    wait_until,
)
from support.addresses import connect

APP = Path(__file__).with_name("wsgi_pages.py")
FILE = bytes(range(256)) * 1000  # 256,000 bytes: more than a socket holds at once


class Shop:
    """The server and what its pages have noted."""

    def __init__(self, process: Process, folder: Path) -> None:
        self.process = process
        self.address = process.address
        self.facts = folder / "facts"
        self.access_log = folder / "access.log"

    def ask(self, path: str, body: bytes = b"", method: str = "GET", query: str = "", **options: Any) -> Response:
        return scgi_request(
            self.address, options.pop("variables", {}), body, method=method, path=path, query=query, **options
        )

    def fact(self, name: str) -> str:
        """What was noted under that name, once there is something."""
        file = self.facts / name
        return wait_until(lambda: file.exists() and file.read_text(), what=f"the fact {name}").strip()

    def logged(self, pattern: str) -> str:
        """The part of the log that matches, once it does."""
        found = wait_until(lambda: re.search(pattern, self.process.log()), what=f"{pattern!r} in the log")
        return str(found[0])


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with short_folder() as folder:
        (folder / "facts").mkdir()
        (folder / "facts/file").write_bytes(FILE)
        options = [f"--env=FACTS={folder}/facts", f"--access-log={folder}/access.log", "--max-workers=2"]
        address = f"unix:{folder}/s"
        command = [sys.executable, "-m", "scgi", "serve", f"--listen={address}", *options, APP]
        process = start(command, log_file=folder / "log", address=address)
        try:
            yield Shop(process, folder)
            assert process.stop() == 0
            process.assert_nothing_left()
        finally:
            process.kill()
            print(process.log())


@pytest.fixture
def fact() -> str:
    return uuid.uuid4().hex


def environ_of(response: Response) -> dict[str, Any]:
    assert response.status == 200, response
    return dict(json.loads(response.body))


# --- what an application is given ------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_wsgiref_validate_finds_no_fault(shop: Shop, method: str) -> None:
    body = b"a=1" if method in ("POST", "PUT") else b""
    response = shop.ask("/valid", body, method, "x=1", variables={"CONTENT_TYPE": "text/plain"})
    assert (response.status, response.body) == (200, b"" if method == "HEAD" else f"{method} {len(body)}".encode())
    assert response.header("content-length") == str(len(f"{method} {len(body)}"))


def test_wsgiref_validate_finds_no_fault_with_what_nginx_sends_beside_the_cgi_variables(shop: Shop) -> None:
    variables = {"HTTP_CONTENT_TYPE": "text/plain", "HTTP_CONTENT_LENGTH": "3", "HTTP_TRANSFER_ENCODING": "chunked"}
    assert shop.ask("/valid", b"abc", "POST", variables=variables).body == b"POST 3"


def test_the_environment_is_that_of_the_request_with_the_wsgi_variables(shop: Shop) -> None:
    variables = {"HTTP_COOKIE": "a=\xe9", "HTTP_PROXY": "http://evil/", "CONTENT_TYPE": "x/y"}
    seen = environ_of(shop.ask("/environ/sub path", b"123", "POST", "q=%20", variables=variables))
    assert seen["REQUEST_METHOD"] == "POST" and seen["CONTENT_LENGTH"] == "3" and seen["CONTENT_TYPE"] == "x/y"
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["QUERY_STRING"]) == ("", "/environ/sub path", "q=%20")
    assert seen["HTTP_COOKIE"] == "a=\xe9" and "HTTP_PROXY" not in seen
    assert seen["wsgi.version"] == "(1, 0)" and seen["wsgi.url_scheme"] == "http"
    assert seen["wsgi.run_once"] is False and seen["wsgi.input_terminated"] is True


@pytest.mark.parametrize(
    ("variables", "scheme"),
    [
        ({"HTTPS": "on"}, "https"),
        ({"HTTPS": "1"}, "https"),
        ({"HTTPS": "off"}, "http"),
        ({"HTTPS": ""}, "http"),
        ({"REQUEST_SCHEME": "https"}, "https"),
        ({}, "http"),
    ],
)
def test_the_url_scheme_is_what_the_web_server_says(shop: Shop, variables: dict[str, str], scheme: str) -> None:
    assert environ_of(shop.ask("/environ", variables=variables))["wsgi.url_scheme"] == scheme


def test_what_pep_3333_requires_is_there_for_minimal_clients(shop: Shop) -> None:
    head = b"CONTENT_LENGTH\0000\0SCGI\0001\0REQUEST_METHOD\0GET\0REQUEST_URI\0/environ?a\0"
    seen = environ_of(scgi_request(shop.address, netstring(head)))
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"], seen["SERVER_PROTOCOL"]) == ("localhost", "80", "HTTP/1.0")
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["QUERY_STRING"]) == ("", "/environ", "")


def test_empty_server_variables_are_filled(shop: Shop) -> None:
    # nginx on a unix socket; lighttpd without Host
    seen = environ_of(shop.ask("/environ", variables={"SERVER_PORT": "", "SERVER_NAME": "", "HTTPS": "on"}))
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("localhost", "443")


def test_a_request_without_a_method_gets_400_and_its_worker_the_next(shop: Shop) -> None:
    response = scgi_request(shop.address, netstring(b"CONTENT_LENGTH\0000\0SCGI\0001\0"))
    assert response.status == 400 and b"REQUEST_METHOD" in response.body
    shop.logged("refused with 400: the variable REQUEST_METHOD is missing")
    assert shop.ask("/one").status == 200


def test_the_flags_say_what_else_may_run(shop: Shop, scgi_serve: Any) -> None:
    seen = environ_of(shop.ask("/environ"))
    assert (seen["wsgi.multithread"], seen["wsgi.multiprocess"]) == (False, True)
    other = scgi_serve(APP, f"--env=FACTS={shop.facts}", "--threads=2", "--max-workers=1")
    seen = environ_of(scgi_request(other.address, path="/environ"))
    assert (seen["wsgi.multithread"], seen["wsgi.multiprocess"]) == (True, True)  # SIGHUP: two at once


def test_four_threads_serve_four_requests_at_once_in_one_process(shop: Shop, scgi_serve: Any) -> None:
    server = scgi_serve(APP, f"--env=FACTS={shop.facts}", "--threads=4", "--max-workers=1")
    peers = [connect(server.address, 20) for _ in range(4)]
    for peer in peers:
        peer.sendall(build_request(path="/meet"))
    answers = {peer.makefile("rb").read().rpartition(b"\r\n")[2] for peer in peers}
    for peer in peers:
        peer.close()
    assert len(answers) == 1  # one process id


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("/shop/a/b", ("/shop", "/a/b")),
        ("/shop", ("/shop", "")),
        ("/shop/", ("/shop", "/")),
        ("/shopping", ("", "/shopping")),
    ],
)
def test_mount_splits_the_path_where_the_web_server_did_not(
    tmp_path: Path, scgi_serve: Any, path: str, split: Any
) -> None:
    (tmp_path / "app.py").write_text(
        "def application(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        '    return [f\'{environ["SCRIPT_NAME"]}|{environ["PATH_INFO"]}\'.encode()]\n'
    )
    server = scgi_serve(tmp_path / "app.py", "--mount=/shop")
    assert tuple(scgi_request(server.address, path=path).text.split("|")) == split


# --- what an application sends ---------------------------------------------------------------------


def test_a_list_gets_a_content_length(shop: Shop) -> None:
    for path, body in (("/one", b"one block"), ("/several", b"one, two, three"), ("/none", b"")):
        response = shop.ask(path)
        assert (response.status, response.reason, response.body) == (200, "OK", body)
        assert response.header("content-length") == str(len(body))


def test_blocks_go_out_as_they_come(shop: Shop, fact: str) -> None:
    with connect(shop.address) as peer:
        peer.sendall(build_request(path="/stream", query=fact))
        received = b""
        while not received.endswith(b"first"):
            received += peer.recv(1000)
        assert b"content-length" not in received.lower()
        (shop.facts / fact).touch()
        assert peer.makefile("rb").read() == b"second"


def test_a_generator_may_call_start_response_at_its_first_step(shop: Shop) -> None:
    assert shop.ask("/late_start").body == b"a generator calls start_response at its first step"


def test_the_write_callable_sends_at_once(shop: Shop, fact: str) -> None:
    with connect(shop.address) as peer:
        peer.sendall(build_request(path="/write", query=fact))
        received = b""
        while not received.endswith(b"written"):
            received += peer.recv(1000)
        (shop.facts / fact).touch()
        assert peer.makefile("rb").read() == b", written, returned"


def test_two_cookies_stay_two_and_the_connection_header_stays_here(shop: Shop) -> None:
    response = shop.ask("/cookies")
    assert [value for name, value in response.headers if name == "Set-Cookie"] == ["a=1", "b=2"]
    assert response.header("connection") is None


def test_a_response_shorter_than_its_content_length_is_said_in_the_log(shop: Shop) -> None:
    response = shop.ask("/length", query="10,3,4")
    assert (response.header("content-length"), response.body) == ("10", b"x" * 7)
    shop.logged("the response is 3 bytes shorter than its Content-Length")


def test_a_response_shorter_than_its_content_length_is_reset_over_tcp(shop: Shop, scgi_serve: Any) -> None:
    server = scgi_serve(APP, f"--env=FACTS={shop.facts}")
    with pytest.raises(Reset):
        scgi_request(server.address, path="/length", query="10,3")
    with pytest.raises(Reset):
        scgi_request(server.address, path="/fail_later/2")


@pytest.mark.parametrize("kind", ["", "/list"])
@pytest.mark.parametrize("sizes", ["5,8", "5,5,1", "5,3,4", "0,2"])
def test_a_response_longer_than_its_content_length_is_cut_and_said_in_the_log(
    shop: Shop, kind: str, sizes: str
) -> None:
    before = shop.process.log().count("longer than its Content-Length")
    response = shop.ask("/length" + kind, query=sizes)
    declared = sizes.partition(",")[0]
    assert (response.status, response.header("content-length"), response.body) == (200, declared, b"x" * int(declared))
    wait_until(lambda: shop.process.log().count("longer than its Content-Length") > before, what="the log line")


def test_iteration_stops_where_the_content_length_is_reached(shop: Shop, fact: str) -> None:
    assert len(shop.ask("/endless", query=fact).body) == 100_000
    assert shop.fact(fact) == "closed"


@pytest.mark.parametrize(("code", "method"), [("204", "GET"), ("304", "GET"), ("200", "HEAD"), ("404", "HEAD")])
def test_head_204_and_304_carry_no_body_and_the_iterable_is_closed(
    shop: Shop, fact: str, code: str, method: str
) -> None:
    response = shop.ask(f"/status/{code}", method=method, query=fact)
    assert (response.status, response.reason, response.body) == (int(code), "Whatever", b"")
    assert response.header("x-own") == "yes" and response.header("content-length") is None
    assert shop.fact(fact) == "closed"


def test_an_unusual_status_is_sent_with_its_reason(shop: Shop, fact: str) -> None:
    response = shop.ask("/status/599", query=fact)
    assert (response.status, response.reason, response.body) == (599, "Whatever", b"bodyand more")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "b\r\nSet-Cookie: evil=1"),
        ("X-A", "b\nX: y"),
        ("X-A", "b\0"),
        ("X-A\r\nX-B", "c"),
        ("X A", "b"),
        ("", "b"),
        ("X-A", 5),
        ("X-A", "\u20ac"),
        ("Status", "200 OK"),
        ("Content-Length", "-1"),
    ],
)
def test_a_header_that_would_split_or_confuse_the_response_is_an_error(shop: Shop, name: str, value: Any) -> None:
    response = shop.ask("/header", json.dumps([name, value]).encode(), "POST")
    assert response.status == 500 and b"evil" not in response.raw
    assert shop.ask("/header", json.dumps(["X-A", "caf\xe9"]).encode(), "POST").header("x-a") == "caf\xe9"


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("none", "the application must return an iterable of bytes, such as a list, found NoneType"),
        ("number", "the application must return an iterable of bytes, such as a list, found int"),
        ("str", "the application must return an iterable of bytes, such as a list, found str"),
        ("bytes", "the application must return an iterable of bytes, such as a list, found bytes"),
        ("strs", "the application's blocks must be bytes, found str"),
        ("gen", "the application's blocks must be bytes, found str"),
    ],
)
def test_a_result_that_is_no_iterable_of_bytes_is_named(shop: Shop, kind: str, sentence: str) -> None:
    assert shop.ask("/bad_result", query=kind).status == 500
    shop.logged(re.escape(sentence))


def test_the_write_callable_takes_bytes_only(shop: Shop) -> None:
    assert shop.ask("/write_text").status == 500
    assert shop.ask("/one").status == 200


# --- start_response --------------------------------------------------------------------------------


def test_start_response_twice_without_exc_info_is_an_error(shop: Shop) -> None:
    assert shop.ask("/twice").status == 500
    shop.logged("start_response was called twice without exc_info")


def test_an_answer_without_start_response_is_an_error(shop: Shop) -> None:
    assert shop.ask("/never").status == 500
    assert shop.ask("/unstarted_file").status == 500
    shop.logged("before start_response was called")


def test_exc_info_replaces_a_head_that_is_not_out_yet(shop: Shop) -> None:
    response = shop.ask("/replaced")
    assert (response.status, response.reason, response.body) == (503, "Busy", b"replaced")
    assert (response.header("x-first"), response.header("x-second")) == (None, "yes")
    assert response.header("content-length") == "8"


def test_exc_info_is_raised_again_once_the_head_is_out(shop: Shop, fact: str) -> None:
    response = shop.ask("/too_late", query=fact)
    assert (response.status, response.body) == (200, b"begun")
    assert shop.fact(fact) == "closed"
    shop.logged("ValueError: after the first block")


# --- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        "ValueError", "RecursionError", "MemoryError", "SystemExit", "KeyboardInterrupt", "GeneratorExit",
        "OurError", "Nasty",
    ],
)  # fmt: skip
def test_any_exception_is_a_500_in_the_log_and_costs_no_worker(shop: Shop, kind: str) -> None:
    workers = set(shop.process.workers())
    response = shop.ask("/fail", query=kind)
    assert response.status == 500 and response.reason == "Internal Server Error"
    assert b"Traceback" not in response.body and b"in fail" not in response.raw
    name = "MalformedRequest" if kind == "OurError" else kind
    shop.logged(f"ERROR scgi.request \\[request .*{name}.* while answering GET /fail")
    assert shop.ask("/one").status == 200
    assert workers <= set(shop.process.workers())


def test_the_500_names_the_request_and_the_log_has_its_traceback(shop: Shop) -> None:
    response = shop.ask("/fail", query="ValueError", variables={"HTTP_X_REQUEST_ID": "order-4711"})
    assert response.body == b"500 Internal Server Error\nRequest order-4711\n"
    shop.logged(
        r"\[request order-4711\]: ValueError: seen <in> the log while answering GET /fail\?ValueError\n    \| Trace"
    )


def test_an_exception_before_the_first_block_is_a_500_after_it_an_end(shop: Shop, fact: str) -> None:
    assert shop.ask("/fail_later/0", query=fact).status == 500
    assert shop.fact(fact) == "closed"
    response = shop.ask("/fail_later/2", query=fact)
    assert (response.status, response.body) == (200, b"blockblock")  # a unix socket cannot tell that more was to come
    wait_until(lambda: shop.fact(fact).count("closed") == 2, what="the second close()")


def test_an_exception_in_close_harms_nobody(shop: Shop) -> None:
    assert shop.ask("/fail_to_close").body == b"whole"
    shop.logged("close\\(\\) of the application's iterable raised\n(    \\|.*\n)*    \\| SystemExit: close\\(\\) fails")


def test_close_is_called_when_the_client_is_gone(shop: Shop, fact: str) -> None:
    with connect(shop.address) as peer:
        peer.sendall(build_request({"HTTP_X_REQUEST_ID": fact}, path="/pour", query=fact))
        peer.recv(1000)
    assert shop.fact(fact) == "closed"
    wait_until(lambda: re.search(f'" 499 .* {fact}\n', shop.access_log.read_text()), what="its line in the access log")
    assert f"[request {fact}]: Traceback" not in shop.process.log()


# --- wsgi.file_wrapper -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["real", "unbuffered", "fresh", "bytes", "proxy", "pipe", "gzip", "bz2"])
def test_a_wrapped_file_is_sent_whole_and_closed(shop: Shop, fact: str, kind: str) -> None:
    response = shop.ask(f"/file/{kind}", query=fact)
    assert response.body == FILE and response.header("x-file") == kind
    if kind in ("real", "unbuffered", "fresh"):
        assert response.header("content-length") == str(len(FILE))
    assert shop.fact(fact) == "closed"


@pytest.mark.parametrize("kind", ["real", "bytes", "gzip", "fresh"])
def test_a_wrapped_file_is_sent_from_where_it_stands(shop: Shop, fact: str, kind: str) -> None:
    assert shop.ask(f"/file/{kind}", query=f"{fact},,1000").body == FILE[1000:]
    assert shop.ask(f"/file/{kind}", query=f"{fact},,{len(FILE)}").body == b""


@pytest.mark.parametrize("kind", ["real", "bytes"])
def test_a_wrapped_file_is_cut_at_a_shorter_content_length(shop: Shop, fact: str, kind: str) -> None:
    response = shop.ask(f"/file/{kind}", query=f"{fact},100,5")
    assert (response.header("content-length"), response.body) == ("100", FILE[5:105])
    assert shop.fact(fact) == "closed"


@pytest.mark.parametrize("kind", ["real", "bytes"])
def test_a_wrapped_file_shorter_than_its_content_length_is_said_in_the_log(shop: Shop, fact: str, kind: str) -> None:
    before = shop.process.log().count("the response is 77 bytes shorter than its Content-Length")
    assert shop.ask(f"/file/{kind}", query=f"{fact},{len(FILE) + 77}").body == FILE
    wait_until(lambda: shop.process.log().count("the response is 77 bytes shorter") > before, what="the log line")


def test_a_wrapped_file_that_has_no_size_is_read(shop: Shop, fact: str) -> None:
    assert b"VmRSS" in shop.ask("/file/proc", query=fact).body


def test_a_wrapped_file_is_not_sent_for_head(shop: Shop, fact: str) -> None:
    assert shop.ask("/file/real", method="HEAD", query=fact).body == b""
    assert shop.fact(fact) == "closed"


# --- wsgi.input ------------------------------------------------------------------------------------

WAYS = ["read", "pieces", "beyond", "readline", "short_lines", "readlines", "hint", "iterate"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_the_body_is_what_was_sent_however_it_is_read(shop: Shop, how: str, size: int) -> None:
    body = (b"line\nanother line\r\n\n" * (size // 20 + 1))[:size]
    response = shop.ask(f"/body/{how}", body, "POST", within=30)
    assert (response.status, response.body) == (200, body)


@pytest.mark.parametrize("how", ["read", "readline"])
def test_a_body_that_trickles_is_whole(shop: Shop, how: str) -> None:
    head = len(build_request({}, b"x" * 40, method="POST", path=f"/body/{how}")) - 40
    body = b"ten bytes\nten bytes\nten bytes\nten bytes\n"
    cuts = [head, *range(head + 1, head + 40, 7)]
    assert shop.ask(f"/body/{how}", body, "POST", split=cuts).body == body


def test_a_cut_body_raises_and_never_looks_complete(shop: Shop, fact: str) -> None:
    whole = build_request({}, b"x" * 100_000, method="POST", path="/cut_body", query=fact)
    for missing in (1, 50_000, 99_999):
        with connect(shop.address) as peer:
            peer.sendall(whole[:-missing])
            peer.shutdown(socket.SHUT_WR)
            answer = peer.makefile("rb").read()
        assert answer.startswith(b"Status: 400 Bad Request\r\n")
        received = 100_000 - missing
        assert f"TruncatedBody: the request body ended after {received} of 100000 bytes" in shop.fact(fact)


def test_a_body_that_stalls_is_a_408_and_nothing_that_the_application_hears_of(shop: Shop, scgi_serve: Any) -> None:
    server = scgi_serve(APP, f"--env=FACTS={shop.facts}", "--body-timeout=0.3")
    data = build_request({}, b"x" * 100, method="POST", path="/cut_body", query="stalled")
    assert raw_exchange(server.address, data[:-1]).startswith(b"Status: 408 Request Timeout\r\n")
    assert "the request body stalled after 99 of 100 bytes" in server.log()
    assert not (shop.facts / "stalled").exists()


def test_an_answer_survives_a_body_that_nobody_reads(shop: Shop) -> None:
    response = shop.ask("/ignore_body", b"x" * 3_000_000, "POST")
    assert (response.status, response.body) == (413, b"unread")


@pytest.mark.parametrize("how", ["close", "detach"])
def test_an_input_that_the_application_ends_costs_no_worker(shop: Shop, how: str) -> None:
    workers = set(shop.process.workers())
    for size in (10, 300_000, 3_000_000):
        response = shop.ask("/end_input", b"x" * size, "POST", query=how)
        assert response.body == b"ended" or (how == "detach" and size < 1 << 20)  # such a body is all in memory
    assert shop.ask("/one").status == 200
    assert workers <= set(shop.process.workers())


def test_an_input_that_was_kept_reads_nothing_of_later_requests(shop: Shop, scgi_serve: Any) -> None:
    server = scgi_serve(APP, f"--env=FACTS={shop.facts}", "--max-workers=1")
    seen = [
        scgi_request(server.address, {}, body, method="POST", path="/keep_input").body
        for body in (b"1" * 300_000, b"2" * 300_000, b"3" * 5, b"4" * 300_000)
    ]
    assert seen[0] == b"" and seen[1] in (b"", b"1") and seen[2] in (b"", b"2") and seen[3] == b"3"


# --- the log ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["web.1+2/3=4:5@x-6_7", "Root=1-67891233-abcdef012345678912345678"])
def test_log_lines_carry_the_web_servers_request_id(shop: Shop, given: str) -> None:
    assert shop.ask("/log", variables={"HTTP_X_REQUEST_ID": given}).body == b"logged"
    shop.logged(rf"WARNING shop \[request {re.escape(given)}\]: an order came in\n")


@pytest.mark.parametrize("given", ["", "a b", "a\x1b[2J", 'a"b', "[x]", "x" * 129, "\xe9"])
def test_a_request_id_that_could_harm_a_log_line_is_not_taken_over(shop: Shop, given: str) -> None:
    before = len(shop.process.log())
    shop.ask("/log", variables={"HTTP_X_REQUEST_ID": given})
    wait_until(lambda: "an order came in" in shop.process.log()[before:], what="the log line")
    assert re.search(r"WARNING shop \[request \d+-\d+\]: an order came in", shop.process.log()[before:])


def test_wsgi_errors_are_log_lines_that_cannot_be_forged(shop: Shop, fact: str) -> None:
    shop.ask("/log", variables={"HTTP_X_REQUEST_ID": fact})
    shop.logged(rf"\[request {fact}\]: pieces of one line\n")
    shop.logged(rf"\[request {fact}\]: no line end\\x1b\[2J\\rforged\n")


def test_each_request_is_a_line_in_the_access_log(shop: Shop, fact: str) -> None:
    variables = {"HTTP_X_REQUEST_ID": fact, "HTTP_USER_AGENT": 'a "b"', "REMOTE_ADDR": "192.0.2.1"}
    shop.ask("/one", query="a=1", variables=variables)
    shop.ask("/never", variables=variables)
    pattern = (
        r'192\.0\.2\.1 - - \[[^]]+\] "GET /one\?a=1 HTTP/1\.1" 200 9 "-" "a \\"b\\"" 0\.\d\d\d ' + fact + "\n"
        r'192\.0\.2\.1 - - \[[^]]+\] "GET /never HTTP/1\.1" 500 \d\d "-" .* ' + fact + "\n"
    )
    both = f"(?s).*{fact}.*{fact}"
    wait_until(lambda: re.search(both, shop.access_log.read_text()), what="both lines")
    lines = "".join(line for line in shop.access_log.read_text().splitlines(True) if fact in line)
    assert re.fullmatch(pattern, lines)


def test_the_server_saw_none_of_its_workers_die(shop: Shop) -> None:
    assert not re.search(r"worker \d+ (killed|exited)", shop.process.log())


def test_bytes_after_the_body_are_dropped(shop: Shop) -> None:
    data = build_request({}, b"12345", method="POST", path="/body/read") + b"67890"
    assert raw_exchange(shop.address, data).endswith(b"\r\n\r\n12345")
