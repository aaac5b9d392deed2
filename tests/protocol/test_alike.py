"""What a parser remembers of requests, the names that came twice in a row, never changes what it says of the next."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scgi.errors import ProtocolError
from scgi.protocol.request import DEFAULT_LIMITS, HeadParser, Limits, head_parser

BASE: dict[str, Any] = {"wsgi.version": (1, 0), "wsgi.url_scheme": "http"}


def head(*variables: tuple[str, str], length: str = "0") -> bytes:
    block = "".join(f"{name}\0{value}\0" for name, value in (("CONTENT_LENGTH", length), ("SCGI", "1"), *variables))
    return f"{len(block)}:{block},".encode("latin-1")


def said(parse: HeadParser, data: bytes) -> object:
    try:
        return parse(data)
    except ProtocolError as error:
        return type(error), error.code, str(error)


def parser(base: dict[str, Any] | None = BASE) -> HeadParser:
    return head_parser(DEFAULT_LIMITS, True, base)


NAMES = st.sampled_from(
    ["REQUEST_METHOD", "PATH_INFO", "HTTP_HOST", "HTTP_COOKIE", "HTTP_X_A", "HTTP_PROXY", "HTTP_proxy", "HTTP_A B",
     "X", "wsgi.version", "scgi.x", "A B", "CONTENT_LENGTH", "SCGI"]
)  # fmt: skip
LISTS = st.lists(NAMES, max_size=5)
VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\0"), max_size=5)


@given(st.lists(LISTS, min_size=1, max_size=3), st.data())
def test_a_parser_says_of_every_request_what_a_new_one_says(lists: list[list[str]], data: st.DataObject) -> None:
    old = parser()
    for _ in range(12):
        names = data.draw(st.sampled_from(lists))
        request = head(
            *((name, data.draw(VALUES)) for name in names), length=data.draw(st.sampled_from(["0", "", "7"]))
        )
        assert said(old, request) == said(parser(), request)


def test_keys_of_requests_that_are_alike_are_those_by_which_everybody_looks() -> None:
    parse = parser()
    for number in range(4):
        found = parse(head(("PATH_INFO", f"/{number}"), ("HTTP_X_MINE", "x")))
        assert found is not None
        variables = found[0]
        assert (
            variables["PATH_INFO"] == f"/{number}" and variables["HTTP_X_MINE"] == "x" and variables | BASE == variables
        )
    (key,) = [name for name in variables if name == "PATH_INFO"]
    assert key is sys.intern("PATH_INFO")


def test_what_an_application_does_to_its_variables_is_not_seen_by_the_next() -> None:
    parse = parser()
    request = head(("PATH_INFO", "/"), ("HTTP_X_MINE", "x"))
    first = parse(request)
    for _ in range(5):
        found = parse(request)
        assert found == first and found is not None
        variables = found[0]
        variables["PATH_INFO"] = "changed"
        variables["added"] = "by the application"
        del variables["HTTP_X_MINE"]
        variables["wsgi.version"] = "changed"


@pytest.mark.parametrize("count", [1, 97, 98, 99, 500])
def test_requests_of_many_variables_are_understood_too(count: int) -> None:
    parse = parser(None)
    for number in range(4):
        found = parse(head(*((f"HTTP_X_{place}", f"{number}") for place in range(count))))
        assert found is not None and found[0][f"HTTP_X_{count - 1}"] == f"{number}" and len(found[0]) == count + 2


def test_a_limit_of_the_head_that_is_small_is_kept_by_requests_that_are_alike() -> None:
    parse = head_parser(Limits(head=100), True, BASE)
    for _ in range(3):
        assert parse(head(("HTTP_A", "x"))) is not None
    with pytest.raises(ProtocolError):
        parse(head(("HTTP_A", "x" * 100)))
