"""Log lines: what they look like, and that nothing in them can pass for another line."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator

import pytest

from scgi import log

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[\d+\] [A-Z]+ \S+( \[request \S+\])?: ")


@pytest.fixture(autouse=True)
def _no_request() -> Iterator[None]:
    yield
    log.set_request_lookup(str)


def record(message: str, *args: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("scgi.workers", logging.WARNING, __file__, 1, message, args, None)
    made.__dict__.update(more)
    return made


def failing(message: str) -> object:
    try:
        raise ValueError(message)
    except ValueError:
        return sys.exc_info()


def test_a_text_line_has_time_pid_level_logger_and_message() -> None:
    line = log.TextFormatter().format(record("worker %d ready", 3, process=4711, created=time.time(), msecs=7.9))
    assert LINE.match(line)
    assert line.endswith(".007 [4711] WARNING scgi.workers: worker 3 ready")


def test_a_line_carries_the_id_of_the_request_that_is_served() -> None:
    log.set_request_lookup(lambda: "4711-12")
    assert " scgi.workers [request 4711-12]: hello" in log.TextFormatter().format(record("hello"))
    assert json.loads(log.JsonFormatter().format(record("hello")))["request"] == "4711-12"


def test_a_lookup_that_fails_costs_the_id_not_the_line() -> None:
    log.set_request_lookup(lambda: str(1 / 0))
    assert log.TextFormatter().format(record("hello")).endswith(" scgi.workers: hello")
    assert "request" not in json.loads(log.JsonFormatter().format(record("hello")))


CONTROLS = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0x202E, 0x2066, 0xFEFF, 0xDC80]


@pytest.mark.parametrize("formatter", [log.TextFormatter(), log.JsonFormatter()])
def test_no_control_character_of_a_message_a_logger_or_a_request_reaches_the_log(
    formatter: logging.Formatter,
) -> None:
    for code in CONTROLS:
        char = chr(code)
        log.set_request_lookup(lambda char=char: f"id{char}")  # type: ignore[misc]
        line = formatter.format(record("a%sb", char, name=f"x{char}", levelname=f"L{char}"))
        assert line.isprintable(), hex(code)


def test_a_line_end_in_a_message_does_not_end_the_line() -> None:
    assert log.TextFormatter().format(record("a\r\nb\tc")).endswith(": a\\r\\nb\\tc")


def test_a_traceback_is_several_lines_of_which_none_can_pass_for_a_record() -> None:
    forged = "bad\n2026-01-01 00:00:00.000 [1] ERROR scgi: forged\r\x1b[2J\u2028\x85"
    text = log.TextFormatter().format(record("failed", exc_info=failing(forged), stack_info="Stack:\n  x\n"))
    first, *rest = re.split("[\n\r\x85\u2028]", text)
    assert LINE.match(first)
    assert len(rest) > 5
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)
    assert "    | 2026-01-01 00:00:00.000 [1] ERROR scgi: forged\\r\\x1b[2J\\u2028\\x85" in rest


def test_a_json_line_is_one_object() -> None:
    line = log.JsonFormatter().format(record("a\nb", exc_info=failing("x\ny"), created=0.0, msecs=5.0))
    assert "\n" not in line
    entry = json.loads(line)
    assert entry["time"] == "1970-01-01T00:00:00.005Z"
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "scgi.workers", "a\nb")
    assert entry["exc"].endswith("ValueError: x\ny")


ENVIRON = {
    "REMOTE_ADDR": "192.0.2.1",
    "REMOTE_USER": "ada",
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/a?b=c",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_REFERER": "http://x/",
    "HTTP_USER_AGENT": "curl/8 (x)",
}


def test_an_access_line_is_in_the_combined_format_with_duration_and_id() -> None:
    line = log.access_line(ENVIRON, 200, 1234, 0.01234, "4711-12")
    assert re.sub(r"\[.*?\]", "[]", line) == (
        '192.0.2.1 - ada [] "GET /a?b=c HTTP/1.1" 200 1234 "http://x/" "curl/8 (x)" 0.012 4711-12'
    )
    assert re.search(r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]", line)


def test_an_access_line_has_hyphens_for_what_the_web_server_did_not_say() -> None:
    assert re.sub(r"\[.*?\]", "[]", log.access_line({}, 400, 0, 0.0)) == '- - - [] "- - -" 400 0 "-" "-" 0.000 -'


def test_an_access_line_builds_the_target_where_the_web_server_does_not_send_it() -> None:
    line = log.access_line({"SCRIPT_NAME": "/app", "PATH_INFO": "/x", "QUERY_STRING": "a=b"}, 200, 0, 0.0)
    assert '"- /app/x?a=b -"' in line


def test_an_access_line_cannot_be_forged() -> None:
    hostile = 'a b"\\\r\n\x00\x7f\x85\xe9\u2028\udc80 - - [x]'
    line = log.access_line(dict.fromkeys(ENVIRON, hostile), 200, 0, 0.0, hostile)
    assert line.isascii() and line.isprintable()
    assert len(re.findall(r'(?<!\\)"', re.sub(r"\\\\", "", line))) == 6
    bare = r"a\x20b\"\\\x0d\x0a\x00\x7f\x85\xe9\xe2\x80\xa8\xed\xb2\x80\x20-\x20-\x20[x]"
    assert line.startswith(f"{bare} - {bare} [")
    assert f'"{bare} {bare} {bare}" 200 0 "' in line
    assert line.endswith(f" {bare}")
