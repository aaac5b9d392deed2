"""A response's head as applications give it: nothing in it can split, smuggle or confuse."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgi.errors import MisuseError
from scgi.protocol.response import build_head, error_page, parse_head

Headers = list[tuple[str, str]]


class Built(NamedTuple):
    """The plain tuple that `build_head` returns, with names."""

    data: bytes
    status: int
    content_length: int | None
    bodiless: bool


def built(status: str, headers: Any, length: int | None = None) -> Built:
    return Built(*build_head(status, headers, length))


def test_the_status_comes_first_whatever_the_headers() -> None:
    head = built("404 Not Found", [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b")])
    assert head.data == (
        b"Status: 404 Not Found\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\nSet-Cookie: b\r\n\r\n"
    )
    assert (head.status, head.content_length, head.bodiless) == (404, None, False)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ("200 OK", b"Status: 200 OK"),
        ("200", b"Status: 200 OK"),
        ("200 ", b"Status: 200 OK"),
        ("404 Gone fishing", b"Status: 404 Gone fishing"),
        ("299", b"Status: 299 Unknown"),
        ("500 S\xe4ge", b"Status: 500 S\xe4ge"),
        ("999 Odd", b"Status: 999 Odd"),
    ],
)
def test_a_status_always_has_a_reason(status: str, line: bytes) -> None:
    assert built(status, []).data == line + b"\r\n\r\n"


REFUSED_STATUS: list[Any] = [
    "", "OK", "20", "2000", "2000 OK", "200OK", " 200 OK", "200\tOK", "abc", "-200 OK", "+20 OK", "2 0 OK",
    "100 Continue", "101 Switching Protocols", "103 Early Hints", "099 X", "000 X", "\xb2\xb3\xb2 OK", "٢٠٠ OK",
    "200 OK\r\nX: y", "200 OK\n", "200 OK\r", "200 O\0K", "200 O\x1bK", "200 O\x7fK", "200 \u20ac", b"200 OK", 200,
    None,
]  # fmt: skip


@pytest.mark.parametrize("status", REFUSED_STATUS, ids=repr)
def test_a_status_that_is_none_is_the_applications_error(status: Any) -> None:
    for _ in range(2):  # nothing that was refused is remembered as good
        with pytest.raises(MisuseError) as caught:
            built(status, [])
        assert caught.value.status_hint == 500
        assert caught.value.code in ("bad-status", "not-latin-1")


CONTROL = [chr(code) for code in (*range(9), *range(10, 32), 127)]


@pytest.mark.parametrize("character", CONTROL, ids=ascii)
def test_no_control_character_gets_into_a_response(character: str) -> None:
    headers: list[Headers] = [
        [("X-A", f"a{character}b")],
        [("X-A", character)],
        [("X-A", f"b{character}")],
        [(f"X{character}A", "b")],
        [(f"X-A{character}", "b")],
        [("Location", f"/{character}Set-Cookie: a=b")],
        [("Content-Length", f"1{character}")],
    ]
    for given_headers in headers:
        for _ in range(2):
            with pytest.raises(MisuseError):
                built("200 OK", given_headers)
    with pytest.raises(MisuseError):
        built(f"200 O{character}K", [])


REFUSED_HEADERS: dict[str, list[Any]] = {
    "bad-header-name": [
        ("", "x"), (" X", "x"), ("X ", "x"), ("X Y", "x"), ("X:", "x"), ("X\u20ac", "x"), ("X\xe9", "x"), ("X/Y", "x"),
        (b"X", "x"), (None, "x"), (1, "x"),
    ],
    "bad-header-value": [("X", b"x"), ("X", None), ("X", 1), ("X", ["x"]), ("Content-Length", 5)],
    "not-latin-1": [("X", "\u20ac"), ("X", "a\u2028b"), ("X", "\ud800")],
    "status-header": [("Status", "200 OK"), ("STATUS", "404")],
    "bad-content-length": [
        ("Content-Length", value) for value in ("", "-1", "+1", " 1", "1 ", "1_0", "0x1", "1.0", "\xb2", "9" * 19)
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "header"), [(code, header) for code, rows in REFUSED_HEADERS.items() for header in rows], ids=ascii
)
def test_a_header_that_breaks_the_rules_is_the_applications_error(code: str, header: Any) -> None:
    for _ in range(2):
        with pytest.raises(MisuseError) as caught:
            built("200 OK", [("Content-Type", "text/plain"), header])
        assert (caught.value.code, caught.value.status_hint) == (code, 500)
        assert len(str(caught.value)) <= 300


HOP_BY_HOP = (
    "Connection Keep-Alive Proxy-Authenticate Proxy-Authorization Proxy-Connection TE Trailer Trailers "
    "Transfer-Encoding Upgrade"
).split()


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_hop_by_hop_headers_are_left_out(name: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        head = built("200 OK", [(spelling, "chunked"), ("X-A", "b")])
        assert head.data == b"Status: 200 OK\r\nX-A: b\r\n\r\n"


def test_values_keep_their_bytes() -> None:
    head = built("200 OK", [("X-A", "caf\xe9\t\x80\xff"), ("x-b", "")])
    assert head.data == b"Status: 200 OK\r\nX-A: caf\xe9\t\x80\xff\r\nx-b: \r\n\r\n"


def test_the_length_is_the_applications_or_the_one_that_is_known() -> None:
    declared = built("200 OK", [("Content-Length", "5"), ("X", "y")], 7)
    assert declared.data.count(b"Content-Length: 5\r\n") == declared.data.count(b"Content-Length") == 1
    assert declared.content_length == 5
    known = built("200 OK", [], 7)
    assert known.data == b"Status: 200 OK\r\nContent-Length: 7\r\n\r\n"
    same = built("200 OK", [("Content-Length", "5"), ("content-length", "5")])
    assert same.data.lower().count(b"content-length") == 1
    with pytest.raises(MisuseError, match="5 and 6"):
        built("200 OK", [("Content-Length", "5"), ("Content-Length", "6")])


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answers_without_a_body_say_so(status: str) -> None:
    head = built(status, [("Content-Length", "5")])
    assert head.bodiless
    assert (b"Content-Length" in head.data) == status.startswith("304")  # it says what a GET would bring


@pytest.mark.parametrize("status", [400, 408, 413, 431, 500, 503, 504])
def test_an_error_page_is_a_whole_answer(status: int) -> None:
    page = error_page(status, "found 'é\u20ac'")
    head = parse_head(page)
    assert head is not None
    assert head.status == status
    body = page[head.end :]
    assert head.get("content-length") == str(len(body))
    assert head.get("content-type") == "text/plain; charset=utf-8"
    assert body.decode("utf-8").splitlines() == [f"{status} {head.reason}", "found 'é\u20ac'"]


TOKEN = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=12)
VALUE = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=30)
ANY = st.text(max_size=12)


@given(st.integers(200, 599), VALUE, st.lists(st.tuples(TOKEN, VALUE), max_size=8))
def test_what_is_built_is_parsed_as_it_was(code: int, reason: str, headers: Headers) -> None:
    try:
        made = built(f"{code} {reason}", headers)
    except MisuseError:
        return
    head = parse_head(made.data)
    assert head is not None
    assert head.end == len(made.data)
    assert head.status == code == made.status
    dropped = {name.lower() for name in HOP_BY_HOP}
    kept = [(name, value.strip(" \t")) for name, value in headers if name.lower() not in dropped]
    lengths = [item for item in kept if item[0].lower() == "content-length"]
    assert [item for item in head.headers if item[0].lower() != "content-length"] == [
        item for item in kept if item not in lengths
    ]


@given(ANY, st.lists(st.tuples(ANY, ANY), max_size=4))
def test_whatever_an_application_gives_the_head_has_one_line_per_header(status: str, headers: Headers) -> None:
    try:
        head = built(status, headers)
    except MisuseError:
        return
    lines = head.data.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    assert len(lines) - 3 <= len(headers)
    assert lines[0].startswith(b"Status: ")
    assert not {0, 10, 13} & set(b"".join(lines))
