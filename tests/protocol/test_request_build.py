"""What our own clients send: built by the same rules that the server judges by."""

from __future__ import annotations

import pytest

from captures_index import CAPTURES, Capture
from scgi.errors import MisuseError
from scgi.protocol.request import build_head, parse_head


def test_the_example_of_the_specification() -> None:
    built = build_head([("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/deepthought")], 27)
    assert built == b"70:CONTENT_LENGTH\x0027\0SCGI\x001\0REQUEST_METHOD\0POST\0REQUEST_URI\0/deepthought\0,"


@pytest.mark.parametrize("capture", [c for c in CAPTURES if not c.duplicates], ids=lambda c: c.name)
def test_what_a_web_server_said_can_be_said_again(capture: Capture) -> None:
    first = parse_head(capture.data, require_scgi=False)
    assert first is not None
    others = [item for item in first.variables.items() if item[0] not in ("CONTENT_LENGTH", "SCGI")]
    again = parse_head(build_head(others, first.content_length))
    assert again is not None
    assert again.variables == {**first.variables, "SCGI": "1"}
    assert again.content_length == first.content_length


@pytest.mark.parametrize(
    ("pairs", "length", "code"),
    [
        ([("CONTENT_LENGTH", "5")], 5, "repeated-name"),
        ([("SCGI", "1")], 0, "repeated-name"),
        ([("A", "1"), ("A", "1")], 0, "repeated-name"),
        ([("HTTP_A", "1"), ("HTTP_A", "2")], 0, "repeated-name"),
        ([("", "x")], 0, "bad-name"),
        ([("A\0B", "x")], 0, "bad-name"),
        ([("A B", "x")], 0, "bad-name"),
        ([("HTTP_X~", "x")], 0, "bad-name"),
        ([("wsgi.input", "x")], 0, "bad-name"),
        ([("N\xe9", "x")], 0, "bad-name"),
        ([("A", "x\0SCGI\0")], 0, "bad-value"),
        ([("HTTP_A", "x\r\nB: y")], 0, "bad-value"),
        ([("A", "\u20ac")], 0, "not-latin-1"),
        ([], -1, "bad-content-length"),
    ],
)
def test_what_a_server_would_refuse_is_not_built(pairs: list[tuple[str, str]], length: int, code: str) -> None:
    with pytest.raises(MisuseError) as caught:
        build_head(pairs, length)
    assert caught.value.code == code
    assert caught.value.status_hint == 500
