"""What goes to the SCGI server: the request's own variables and its body, no more and no less."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cgi2scgi.program import Run, environment, run
from gateway.toys import Conversation, Upstream
from support import wait_until


def ask(program: Path, upstream: Upstream, body: bytes = b"", **variables: str) -> Run:
    return run(program, {**environment(), "SCGI_SERVER": upstream.address, **variables}, body)


def sent(program: Path, upstream: Upstream, **variables: str) -> dict[str, str]:
    """The variables that arrive for a request with these."""
    done = ask(program, upstream, **variables)
    assert (done.exit_status, done.body, done.log) == (0, b"hello", "")
    assert upstream.last is not None
    return upstream.last.variables


def test_the_length_stands_first_and_scgi_second(program: Path, upstream: Upstream) -> None:
    found = sent(program, upstream, HTTP_HOST="localhost", CONTENT_TYPE="")
    assert upstream.last is not None
    assert upstream.last.names[:2] == ["CONTENT_LENGTH", "SCGI"]
    assert len(upstream.last.names) == len(found)
    wanted = {name: value for name, value in environment().items() if name != "PATH"}
    assert found == {**wanted, "CONTENT_LENGTH": "0", "SCGI": "1", "HTTP_HOST": "localhost", "CONTENT_TYPE": ""}


@pytest.mark.parametrize(
    "name",
    """
    AUTH_TYPE CONTENT_TYPE CONTEXT_PREFIX DOCUMENT_ROOT DOCUMENT_URI HTTPS HTTP2 HTTP_COOKIE HTTP_X_Y1 PATH_TRANSLATED
    REMOTE_HOST REMOTE_IDENT REMOTE_PORT REMOTE_USER REQUEST_SCHEME REQUEST_URI SCRIPT_FILENAME SCRIPT_URL SERVER_ADDR
    SERVER_ADMIN SSL_CLIENT_S_DN SSL_PROTOCOL UNIQUE_ID REDIRECT_STATUS REDIRECT_URL REDIRECT_REDIRECT_STATUS
    REDIRECT_QUERY_STRING REDIRECT_HTTP_HOST
    """.split(),
)
def test_what_web_servers_say_about_a_request_is_passed_on(program: Path, upstream: Upstream, name: str) -> None:
    assert sent(program, upstream, **{name: "v\xe4lue = 1"})[name] == "v\xc3\xa4lue = 1"


@pytest.mark.parametrize(
    "name",
    """
    PATH HOME LD_LIBRARY_PATH LD_PRELOAD PYTHONPATH IFS BASH_ENV SHELL USER TZ LANG SCGI_SERVER SCGI_TIMEOUT scgi.x
    HTTP_PROXY http_proxy HTTP_CONTENT_LENGTH HTTP_CONTENT_TYPE HTTP_ HTTP_A-B HTTP_A.B SSL_CERT_FILE SSL_CERT_DIR
    MY_SETTING REDIRECT_PATH REDIRECT_LD_LIBRARY_PATH REDIRECT_HTTP_PROXY REDIRECT_REDIRECT_HTTP_PROXY REDIRECT_
    STATUS URL HANDLER SERVER_ SSL_ HTTPS_PROXY
    """.split(),
)
def test_the_process_s_own_environment_is_not(program: Path, upstream: Upstream, name: str) -> None:
    given = {"LD_LIBRARY_PATH": "/nowhere", "LD_PRELOAD": "", "SCGI_TIMEOUT": "9"}.get(name, upstream.address)
    found = sent(program, upstream, **{name: given})
    assert name not in found and upstream.address not in found.values()


def test_other_variables_are_passed_on_if_they_are_named(program: Path, upstream: Upstream) -> None:
    found = sent(
        program, upstream, SCGI_PASS="MY_SETTING GEO_*,HTTP_PROXY", MY_SETTING="1", GEO_IP="2", MY_SETTING2="3",
        HTTP_PROXY="4", GEO_="5"
    )  # fmt: skip
    assert (found["MY_SETTING"], found["GEO_IP"]) == ("1", "2")
    assert not {"MY_SETTING2", "HTTP_PROXY", "GEO_"} & found.keys()


class Twice(dict[str, str]):
    """An environment in which names can be there twice; `subprocess` takes what `items` says."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs

    def items(self) -> Any:
        return self.pairs


@pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="this Python starts nothing with a name twice in its environment"
)
def test_no_name_is_sent_twice_and_the_first_counts(program: Path, upstream: Upstream) -> None:
    doubtful = [("CONTENT_LENGTH", "7"), ("SCGI", "2"), ("HTTP_A", "2"), ("REQUEST_METHOD", "PUT"), ("HTTP_A", "3")]
    first = [*environment().items(), ("SCGI_SERVER", upstream.address), ("CONTENT_LENGTH", "0"), ("HTTP_A", "1")]
    done = run(program, Twice(first + doubtful))
    assert done.body == b"hello" and upstream.last is not None
    names = upstream.last.names
    assert len(names) == len(set(names)) and names[:2] == ["CONTENT_LENGTH", "SCGI"]
    found = upstream.last.variables
    assert [found[name] for name in ("CONTENT_LENGTH", "SCGI", "HTTP_A", "REQUEST_METHOD")] == ["0", "1", "1", "GET"]


@pytest.mark.parametrize("length", [None, "", "0", "00"])
def test_without_a_length_there_is_no_body(program: Path, upstream: Upstream, length: str | None) -> None:
    given = {} if length is None else {"CONTENT_LENGTH": length}
    done = ask(program, upstream, b"not a body", **given)
    assert done.body == b"hello" and upstream.last is not None
    assert (upstream.last.variables["CONTENT_LENGTH"], upstream.last.received) == ("0", b"")


@pytest.mark.parametrize("length", ["abc", "-1", "+1", " 1", "1 ", "0x1", "1_0", "1.0", "1,1", "9" * 19, "9" * 40])
def test_a_length_that_is_no_number_is_a_400(program: Path, upstream: Upstream, length: str) -> None:
    done = ask(program, upstream, b"x", CONTENT_LENGTH=length, REQUEST_METHOD="POST")
    assert (done.status, upstream.last) == (400, None)
    assert done.log == "cgi2scgi: 400: CONTENT_LENGTH is not a whole number\n"


def test_a_body_whose_length_nobody_knows_is_a_411(program: Path, upstream: Upstream) -> None:
    done = ask(program, upstream, b"x", HTTP_TRANSFER_ENCODING="chunked", REQUEST_METHOD="POST")
    assert (done.status, upstream.last) == (411, None)


def test_so_many_bytes_of_body_are_sent_and_no_more(program: Path, upstream: Upstream) -> None:
    got: list[bytes] = []

    def answer(talk: Conversation) -> None:
        got.extend(talk.body())
        talk.answer(b"hello")
        talk.peer.settimeout(10)
        got.append(talk.peer.recv(10))  # it closes, and has sent no more

    upstream.answer = answer
    done = ask(program, upstream, b"12345678", CONTENT_LENGTH="5", REQUEST_METHOD="POST")
    assert done.body == b"hello"
    upstream.settle()
    assert b"".join(got) == b"12345"


@pytest.mark.parametrize("given", [0, 4, 100_000])
def test_a_body_that_ends_too_early_is_a_400_and_never_whole(program: Path, upstream: Upstream, given: int) -> None:
    got: list[bytes] = []

    def answer(talk: Conversation) -> None:
        for piece in talk.body():  # raises EOFError at the cut
            got.append(piece)
        got.append(b"all of it")

    upstream.answer = answer
    done = ask(program, upstream, bytes(given), CONTENT_LENGTH="100001", REQUEST_METHOD="POST")
    assert (done.status, done.exit_status) == (400, 0)
    assert done.log == f"cgi2scgi: 400: the request body ended after {given} of 100001 bytes\n"
    wait_until(lambda: upstream.last, 20, "the server to read the request's head")
    upstream.settle()
    assert sum(map(len, got)) == given and b"all of it" not in got


def test_a_body_that_stalls_is_a_408(program: Path, upstream: Upstream) -> None:
    upstream.answer = lambda talk: [None for _ in talk.body()] and None
    settings = {"SCGI_SERVER": upstream.address, "SCGI_TIMEOUT": "1"}
    variables = {**environment("POST", length=10), **settings}
    done = run(program, variables, b"12345", keep_open=True)
    assert done.status == 408 and done.seconds < 9
    assert done.log == "cgi2scgi: 408: the web server gave no more of the request body for 1 s\n"


def test_nothing_is_tried_twice(program: Path, upstream: Upstream) -> None:
    asked: list[Conversation] = []

    def answer(talk: Conversation) -> None:
        asked.append(talk)
        talk.reset()

    upstream.answer = answer
    done = ask(program, upstream)
    assert done.status == 502
    upstream.settle()
    assert len(asked) == 1


def test_a_web_server_that_has_gone_is_no_error(program: Path, upstream: Upstream) -> None:
    gone: list[bool] = []

    def answer(talk: Conversation) -> None:
        talk.send(b"Status: 200 OK\r\n\r\n")
        try:
            while True:
                talk.send(bytes(65536))
        except OSError:
            gone.append(True)

    upstream.answer = answer
    variables = {**environment(), "SCGI_SERVER": upstream.address}
    done = run(["/bin/sh", "-c", '{ "$0"; echo "status $?" >&2; } | head -c 100', program], variables)
    assert done.log == "status 0\n"
    wait_until(lambda: gone, 10, "the server to see it")


def test_a_web_server_that_goes_while_the_server_thinks_ends_the_request(program: Path, upstream: Upstream) -> None:
    asked, left = threading.Event(), threading.Event()

    def answer(talk: Conversation) -> None:
        asked.set()
        talk.wait_for_eof()
        left.set()

    upstream.answer = answer
    variables = {**environment(), "SCGI_SERVER": upstream.address}
    with subprocess.Popen([program], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as popen:
        assert popen.stdout and popen.stderr and asked.wait(10)
        popen.stdout.close()
        assert left.wait(10)
        assert (popen.wait(10), popen.stderr.read()) == (0, b"")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors_are_no_sockets(program: Path, upstream: Upstream, closed: str) -> None:
    variables = {**environment(), "SCGI_SERVER": upstream.address}
    done = run(["/bin/sh", "-c", f'exec "$0" {closed}', program], variables)
    assert done.exit_status == 0
    upstream.settle()
    assert upstream.last is not None and upstream.last.received == b""
    assert done.output == b"" if ">&-" in closed.replace("2>&-", "") else done.body == b"hello"
