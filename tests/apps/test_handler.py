"""The reference API over the wire: a real `scgi serve` answers with the handlers of handler_pages.py."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support import (
    Process,
    Reset,
    Response,
    free_port,
    netstring,
    raw_exchange,
    scgi_request,
    short_folder,
    start,
    wait_until,
)

APP = Path(__file__).with_name("handler_pages.py")


class Handler:
    """A server with one child, and what its pages have noted."""

    def __init__(self, process: Process, folder: Path) -> None:
        self.process = process
        self.address = process.address
        self.folder = folder

    def ask(self, page: str, body: bytes = b"", **request: Any) -> Response:
        return scgi_request(self.address, request.pop("variables", ()), body, path="/" + page, within=20, **request)

    def pid(self) -> str:
        return self.ask("pid").text

    def fact(self, name: str) -> str:
        """What was noted under that name, once there is something; noted anew each time."""
        file = self.folder / name
        wait_until(file.exists, what=f"the fact {name}")
        text = file.read_text()
        file.unlink()
        return text

    def open_gate(self) -> None:
        """Let the page go on that waits at it."""
        os.close(os.open(self.folder / "gate", os.O_WRONLY))

    def logged(self, pattern: str) -> str:
        found = wait_until(lambda: re.search(pattern, self.process.log()), what=f"{pattern!r} in the log")
        return str(found[0])


def serving(handler: str, listen: str = "", *options: str) -> Iterator[Handler]:
    with short_folder() as folder:
        os.mkfifo(folder / "gate")
        address = f"unix:{folder}/socket" if listen == "unix" else f"127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "scgi", "serve", f"{APP}:{handler}", "--listen", address, "--max-workers", "1"]
        process = start(
            [*command, *options],
            log_file=folder / "log",
            address=address,
            env={"FACTS": str(folder), "ALREADY_THERE": "from the start"},
        )
        try:
            yield Handler(process, folder)
            process.stop()
            process.assert_nothing_left()
        finally:
            process.kill()
            print(f"--- log of {handler} ---\n{process.log()}")


@pytest.fixture(scope="module")
def pages() -> Iterator[Handler]:
    yield from serving("Pages")


@pytest.fixture(scope="module")
def pages_on_unix() -> Iterator[Handler]:
    yield from serving("Pages", "unix")


@pytest.fixture(scope="module")
def script() -> Iterator[Handler]:
    yield from serving("Script", "unix")


@pytest.fixture(scope="module")
def connected() -> Iterator[Handler]:
    yield from serving("Connected")


# `output`


def test_output_takes_text_and_bytes_in_any_mixture(pages: Handler) -> None:
    answer = pages.ask("mixed")
    assert answer.text == "tëxt bytes array view a b printed 1\n"
    assert answer.headers == [("Content-Type", "text/plain"), ("Content-Length", str(len(answer.body)))]


def test_write_says_how_much_of_its_argument_it_took(pages: Handler) -> None:
    assert pages.ask("counts").text == "ab€abc(3, 3, True, False)"


def test_a_long_page_goes_out_as_it_comes_and_is_whole(pages: Handler) -> None:
    answer = pages.ask("large")
    assert answer.header("Content-Length") is None
    assert answer.body == b"x" * 1_000_700


def test_flush_sends_what_is_there_once_the_head_is_whole(pages: Handler) -> None:
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(pages.ask, "flushes")
        assert pages.fact("flushed") == "yes"
        assert not answer.done()
        pages.open_gate()
        assert answer.result(20).text == "first second"


def test_a_program_may_close_its_files(pages: Handler) -> None:
    answer = pages.ask("closes", b"unread")
    assert answer.text == "all of it"
    assert answer.header("Content-Length") == "9"
    assert pages.fact("closed") == "the response is closed"


def test_an_output_that_is_kept_writes_into_no_later_answer(pages: Handler) -> None:
    assert pages.ask("keeps").text == "keeps"
    assert pages.ask("keeps").text == "keeps"
    assert pages.fact("kept") == "closed"


@pytest.mark.parametrize(
    ("written", "status", "headers", "body"),
    [
        (b"Location: http://example.com/\n\n", 302, {"Location": "http://example.com/"}, b""),
        (b"Status: 307 There\r\nLocation: /x\r\n\r\n", 307, {"Location": "/x"}, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\nx", 200, {"Content-Type": "a/b"}, b"x"),
        (b"HTTP/1.1 404 Not Found\nX: y\n\nx", 404, {"X": "y"}, b"x"),
        (b"Content-Type: a/b\nStatus: 403\n\nx", 403, {"Content-Type": "a/b"}, b"x"),
        (b"X: y\nConnection: close\nTransfer-Encoding: chunked\n\nx", 200, {"X": "y"}, b"x"),
        (b"Status: 204 No Content\nX: y\n\nbody", 204, {"X": "y"}, b""),
        (b"Content-Length: 2\n\nxyz", 200, {}, b"xy"),
        ("X-Name: é\n\n".encode(), 200, {"X-Name": "é".encode().decode("latin-1")}, b""),
    ],
)
def test_what_a_handler_writes_is_sent_on_as_one_proper_response(
    pages: Handler, written: bytes, status: int, headers: dict[str, str], body: bytes
) -> None:
    answer = pages.ask("raw", written)
    assert answer.status == status
    assert {name: value for name, value in answer.headers if name != "Content-Length"} == headers
    assert answer.body == body


def test_head_sends_no_body(pages: Handler) -> None:
    answer = pages.ask("mixed", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("Content-Type") == "text/plain"


# `output` that is no response


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("nothing", "the handler ended without writing a response"),
        ("headless", "no blank line after its headers: b'just text'"),
        ("blank_first", "begins with a blank line"),
        ("bad_head", "expected 'Name: value', found 'This is not a header'"),
        ("endless_head", "no end of the head within 65536 bytes"),
        ("number", "TypeError"),
    ],
)
def test_what_is_no_response_is_a_500_and_a_sentence_in_the_log(pages: Handler, page: str, sentence: str) -> None:
    answer = pages.ask(page)
    assert answer.status == 500
    assert sentence not in answer.text
    pages.logged(f"ERROR .*{re.escape(sentence)}.* while answering GET /{page}")


@pytest.mark.parametrize(
    "written",
    [
        b"X: a\rSet-Cookie: b=c\n\nx",
        b"X: a\x00b\n\nx",
        b"X\r: a\n\nx",
        b"X Y: a\n\nx",
        b": a\n\nx",
        b"Status: 2000\n\nx",
        b"Status: 200 OK\rX: y\n\nx",
        b"Content-Length: 1\nContent-Length: 2\n\nx",
        b"Content-Length: -1\n\nx",
    ],
)
def test_a_head_that_could_split_a_response_is_refused(pages: Handler, written: bytes) -> None:
    answer = pages.ask("raw", written)
    assert answer.status == 500
    assert answer.header("Set-Cookie") is None


def test_a_page_shorter_than_it_says_breaks_off(pages: Handler) -> None:
    with pytest.raises(Reset) as broken:
        pages.ask("raw", b"Content-Length: 100\n\nshort")
    assert broken.value.received.endswith((b"\r\n\r\nshort", b""))
    pages.logged("95 bytes shorter than its Content-Length")


# Exceptions


@pytest.mark.parametrize("page", ["early", "finally_closed", "interrupt", "memory", "recursion"])
def test_an_exception_before_output_has_gone_out_is_a_clean_500(pages: Handler, page: str) -> None:
    pid = pages.pid()
    answer = pages.ask(page)
    assert answer.status == 500
    request = re.fullmatch(r"500 Internal Server Error\nRequest (\S+)\n", answer.text)
    assert request
    pages.logged(rf"ERROR scgi.request \[request {request[1]}\]: \w+.* while answering GET /{page}\n    \| Traceback")
    assert pages.pid() == pid


@pytest.mark.parametrize("page", ["late", "after_flush"])
def test_after_output_has_begun_a_tcp_connection_is_reset(pages: Handler, page: str) -> None:
    with pytest.raises(Reset):
        pages.ask(page)
    pages.logged(f"LookupError: too late while answering GET /{page}")
    assert pages.ask("pid").status == 200


@pytest.mark.parametrize("page", ["late", "after_flush"])
def test_after_output_has_begun_a_unix_socket_can_only_end(pages_on_unix: Handler, page: str) -> None:
    answer = pages_on_unix.ask(page)
    assert answer.status == 200
    assert b"too late" not in answer.body
    pages_on_unix.logged(f"LookupError: too late while answering GET /{page}")


def test_an_error_page_of_its_own_is_the_answer(pages: Handler) -> None:
    answer = pages.ask("own_error_page")
    assert (answer.status, answer.text) == (503, "later")


def test_a_handler_may_exit_after_its_answer_and_is_replaced(pages: Handler) -> None:
    pid = pages.pid()
    assert pages.ask("exits").text == "last words"
    assert pages.pid() != pid


def test_what_a_handler_exits_with_is_in_the_log_unless_it_means_success(pages: Handler) -> None:
    assert pages.ask("exits_well").text == "last words"
    assert pages.ask("exits_with_text").text == "last words"
    pages.logged(
        r"WARNING scgi.request \[request \S+\]: the handler called sys.exit\('the database is gone'\)"
        " while answering GET /exits_with_text\n"
    )
    assert pages.ask("exits").text == "last words"
    pages.logged(r"the handler called sys.exit\(3\) while answering GET /exits\n")
    assert "GET /exits_well" not in pages.process.log()


def test_a_handler_may_exit_after_a_page_that_breaks_off_and_is_replaced(pages: Handler) -> None:
    pid = pages.pid()
    with pytest.raises(Reset):
        pages.ask("exits_too_early")
    pages.logged("96 bytes shorter than its Content-Length")
    assert pages.pid() != pid


# `input`


def test_input_ends_where_the_body_ends(pages: Handler) -> None:
    assert pages.ask("read", b"a\nb").text == repr([b"a\nb", b"", b"", b"", []])
    assert pages.ask("read").text == repr([b"", b"", b"", b"", []])
    assert pages.ask("read_much", b"a\nb").text == repr((b"a\nb", b""))
    assert pages.ask("readline", b"first\nsecond\nthird").text == repr([b"first\n", b"se", [b"cond\n", b"third"], b""])
    assert pages.ask("iterate", b"a\nb\n\nc").text == repr([b"a\n", b"b\n", b"\n", b"c"])


def test_input_ends_where_a_body_ends_that_trickles(pages: Handler) -> None:
    assert pages.ask("read", b"a\nb", split=50).text == repr([b"a\nb", b"", b"", b"", []])
    assert pages.ask("iterate", b"a\nb\n\nc" * 100, split=300).text.count("b'a\\n'") == 1
    assert pages.ask("sizes", bytes(300_000)).text == "300000 of 300000"


def test_a_program_may_take_its_input_apart(pages: Handler) -> None:
    pid = pages.pid()
    assert pages.ask("detaches", bytes(300_000)).text == "detached"
    assert pages.pid() == pid


def test_a_body_that_is_cut_never_looks_whole(pages: Handler) -> None:
    head = netstring(b"CONTENT_LENGTH\x00100\x00SCGI\x001\x00PATH_INFO\x00/read\x00")
    answer = raw_exchange(pages.address, head + b"only this", half_close=True)
    assert answer.startswith(b"Status: 400 ")
    pages.logged("the request body ended after 9 of 100 bytes")


# `produce_cgilike`


def test_the_streams_are_text_streams_with_a_buffer(script: Handler) -> None:
    assert script.ask("streams").text == "bytes TextIOWrapper utf-8 utf-8 True\n"
    assert script.fact("as-before") == "True True False"


def test_stdin_holds_exactly_this_body(script: Handler) -> None:
    assert script.ask("reads", "zwölf\r\n€ ".encode()).text == "12 zwölf\r\n €  |"
    assert script.ask("reads").text == "0   |"
    body = bytes(range(256)) * 400
    assert script.ask("reads_bytes", body).body == body
    assert script.ask("reads_bytes", body, split=50_000).body == body


def test_bytes_that_are_no_utf8_come_and_go_unharmed(script: Handler) -> None:
    body = "né\r\n".encode() + b"\xff\xfe\r\n"
    assert script.ask("echoes", body).body == body


def test_the_environment_has_the_variables_for_getenv_and_programs(script: Handler) -> None:
    answer = script.ask("environment", b"ALREADY_THERE", variables={"HTTP_X_NAME": "né".encode().decode("latin-1")})
    assert answer.text == "REQUEST_METHOD True GET\nHTTP_X_NAME True né\nALREADY_THERE True from the start\n"
    assert script.fact("as-before") == "True True False"


@pytest.mark.parametrize(
    "name", ["PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "IFS", "BASH_ENV"]
)
def test_no_request_changes_what_the_process_runs(script: Handler, name: str) -> None:
    answer = script.ask("environment", name.encode(), variables={name: "/evil", "HTTP_X_NAME": "x"})
    assert answer.status == 200
    assert "/evil" not in answer.text


@pytest.mark.parametrize("page", ["hello", "changes", "replaces", "closes", "raises", "exits", "big"])
def test_afterwards_everything_is_as_it_was(script: Handler, page: str) -> None:
    answer = script.ask(page)
    assert answer.status == (500 if page == "raises" else 200)
    assert script.fact("as-before") == "True True False"
    assert script.ask("hello").text == "hello\n"
    assert script.fact("as-before") == "True True False"


def test_an_exception_after_print_is_a_clean_500(script: Handler) -> None:
    answer = script.ask("raises")
    assert answer.status == 500
    assert "half" not in answer.text
    script.logged("LookupError: on purpose while answering GET /raises\n    \\| Traceback")


def test_a_printed_page_has_its_length(script: Handler) -> None:
    assert script.ask("hello").header("Content-Length") == "6"


def test_a_read_env_of_its_own_serves_produce_cgilike_too() -> None:
    for handler in serving("Translated", "unix"):
        answer = handler.ask("", b"body", variables={"HTTP_X_NAME": "Łódź".encode().decode("latin-1")})
        assert answer.text == "Łódź Łódź body\n"


# `handle_connection`


@pytest.mark.parametrize("page", ["receives", "reads_all", "into"])
@pytest.mark.parametrize("split", [None, 150])
def test_a_connection_holds_one_request_and_ends(connected: Handler, page: str, split: int | None) -> None:
    body = bytes(range(256)) * 3
    received = connected.ask(page, body, split=split).body
    size, _, rest = received.partition(b":")
    head = rest[: int(size)]
    assert rest[int(size) :] == b"," + body
    assert head.startswith(b"CONTENT_LENGTH\x00768\x00SCGI\x001\x00")
    assert f"PATH_INFO\0/{page}\0".encode() in head


@pytest.mark.parametrize("page", ["echo", "echo_bytes"])
def test_files_of_a_connection_bear_every_byte(connected: Handler, page: str) -> None:
    body = bytes(range(256)) * 2 + b"\r\n\r\n\r\r\n"
    answer = connected.ask(page, body)
    assert answer.body == body
    assert connected.fact("rest") in ("''", "b''")


def test_files_of_a_connection_in_other_modes(connected: Handler) -> None:
    assert connected.ask("both").text == "GET"
    assert connected.ask("utf8").text == "€ GET"
    assert connected.ask("lines", b"a\rb\r\nc\nd").text == repr(["a\rb\r\n", "c\n", "d"])
    assert connected.ask("unclosed").text == "never closed"
    assert connected.ask("file").body == APP.read_bytes()[3:70_003]


def test_what_is_malformed_never_reaches_the_handler(connected: Handler) -> None:
    connected.ask("unclosed")
    assert connected.fact("called") == "yes"
    for request in (b"nonsense", netstring(b"SCGI\x001\x00"), netstring(b"CONTENT_LENGTH\x00x\x00SCGI\x001\x00")):
        assert raw_exchange(connected.address, request).startswith(b"Status: 400 ")
    assert not (connected.folder / "called").exists()


def test_closing_the_connection_ends_the_answer_at_once(connected: Handler) -> None:
    # The page waits at the gate after closing, so this would not return.
    assert connected.ask("closes_early").text == "all of it"
    connected.open_gate()


def test_a_connection_handler_may_exit_after_its_answer_and_is_replaced(connected: Handler) -> None:
    pid = connected.pid()
    assert connected.ask("exits").text == "last words"
    assert connected.pid() != pid


@pytest.mark.parametrize("page", ["raises", "finally_closed", "nothing"])
def test_a_connection_handler_that_fails_early_is_a_500(connected: Handler, page: str) -> None:
    pid = connected.pid()
    assert connected.ask(page).status == 500
    connected.logged(f"while answering GET /{page}")
    assert connected.pid() == pid


def test_a_connection_handler_that_fails_after_output_breaks_off(connected: Handler) -> None:
    with pytest.raises(Reset):
        connected.ask("late")
    connected.logged("LookupError: after output")


def test_a_connection_handlers_answer_is_judged_too(connected: Handler) -> None:
    answer = connected.ask("nph")
    assert (answer.status, answer.reason, answer.text) == (201, "Made", "made")
    answer = connected.ask("nph", method="HEAD")
    assert (answer.status, answer.body) == (201, b"")


def test_an_override_may_call_the_original(connected: Handler) -> None:
    assert connected.ask("base", b"body").text == "text from produce, 4 bytes of body"
    assert connected.ask("base", query="raise").status == 500
