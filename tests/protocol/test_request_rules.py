"""The rules of a request's head, one row each, judged whole, in every split, by single bytes and with a tail."""

from __future__ import annotations

import pytest

from protocol.malformed import FIRST, GOOD, REFUSED, SCGI, USUAL, Pair, block, netstring, of_length, request
from protocol.ways_in import MORE, at_once, in_pieces, verdict, with_tail
from scgi.errors import TruncatedRequest
from scgi.protocol.request import Limits, RequestReader


@pytest.mark.parametrize("name", REFUSED)
def test_each_broken_rule_has_its_code_and_status_however_the_request_is_split(name: str) -> None:
    data, code, status = REFUSED[name]
    found = verdict(data) if len(data) < 3000 else at_once(data)
    assert (found.code, found.status) == (code, status), found.sentence
    assert found.sentence
    assert len(found.sentence) < 300
    with_tail(found, data)
    assert in_pieces(data[i : i + 61] for i in range(0, len(data), 61)) == found


# What is kept, dropped or joined: the pairs after CONTENT_LENGTH, SCGI and the usual ones → what becomes of them.
KEPT: dict[str, tuple[list[Pair], dict[str, str]]] = {
    "lower-case": ([("my_env", "x")], {"my_env": "x"}),
    "dash-and-dot": ([("MY-Env.x", "x")], {"MY-Env.x": "x"}),
    "digits": ([("9_LIVES", "x")], {"9_LIVES": "x"}),
    "empty-value": ([("CONTENT_TYPE", "")], {"CONTENT_TYPE": ""}),
    "like-reserved": ([("wsgi", "1"), ("WSGI.input", "2"), ("scgi_x", "3")],
                      {"wsgi": "1", "WSGI.input": "2", "scgi_x": "3"}),
    "bytes-are-latin-1": ([("SCRIPT_NAME", b"/\xc3\xa9\xff")], {"SCRIPT_NAME": "/\xc3\xa9\xff"}),
    "line-break-in-a-path": ([("DOCUMENT_URI", "/a\r\nb\n")], {"DOCUMENT_URI": "/a\r\nb\n"}),
    "control-bytes-in-a-header": ([("HTTP_X_A", "\x01\x7f\t")], {"HTTP_X_A": "\x01\x7f\t"}),
    "header-outside-the-alphabet": ([("HTTP_X~!", "a"), ("HTTP_X B", "b"), (b"HTTP_\xe9", "c"), ("HTTP_X\n", "d")],
                                    {}),
    "header-with-dot-and-dash": ([("HTTP_X.DOT-DASH", "a")], {"HTTP_X.DOT-DASH": "a"}),
    "header-without-a-name": ([("HTTP_", "a")], {"HTTP_": "a"}),
    "withheld": ([("HTTP_PROXY", "http://evil"), ("HTTP_CONTENT_TYPE", "a/b"), ("HTTP_CONTENT_LENGTH", "9"),
                  ("HTTP_TRANSFER_ENCODING", "chunked")], {}),
    "withheld-in-any-case": ([("HTTP_Proxy", "http://evil"), ("HTTP_content_length", "9")], {}),
    "withheld-and-repeated": ([("HTTP_PROXY", "a"), ("HTTP_PROXY", "b")], {}),
    "not-withheld": ([("HTTP_PROXY_CONNECTION", "a"), ("PROXY", "b")], {"HTTP_PROXY_CONNECTION": "a", "PROXY": "b"}),
    "repeated-header": ([("HTTP_X", "a"), ("HTTP_Y", "-"), ("HTTP_X", "b"), ("HTTP_X", "")],
                        {"HTTP_X": "a, b, ", "HTTP_Y": "-"}),
    "repeated-cookie": ([("HTTP_COOKIE", "a=1"), ("HTTP_COOKIE", "b=2")], {"HTTP_COOKIE": "a=1; b=2"}),
    "names-differ-by-case": ([("HTTP_X", "a"), ("HTTP_x", "b")], {"HTTP_X": "a", "HTTP_x": "b"}),
}  # fmt: skip


@pytest.mark.parametrize("case", KEPT)
def test_what_is_kept_dropped_or_joined(case: str) -> None:
    given, expected = KEPT[case]
    data = request(*given)
    found = verdict(data)
    assert dict(found.variables) == dict((FIRST, SCGI, *USUAL)) | expected
    with_tail(found, data)


@pytest.mark.parametrize("place", range(6))
def test_scgi_may_stand_anywhere(place: int) -> None:
    pairs = [*USUAL]
    pairs.insert(place, SCGI)
    found = verdict(netstring(block(FIRST, *pairs)))
    assert dict(found.variables)["SCGI"] == "1"


@pytest.mark.parametrize(
    ("text", "length"), [("", 0), ("0", 0), ("5", 5), ("007", 7), ("1073741824", 1 << 30)]
)  # fmt: skip
def test_the_bodys_length_is_digits_or_empty(text: str, length: int) -> None:
    found = verdict(of_length(text))
    assert found.content_length == length
    assert int(dict(found.variables)["CONTENT_LENGTH"]) == length


def test_the_absence_of_scgi_can_be_accepted_but_not_another_value() -> None:
    data = netstring(block(FIRST, *USUAL))
    found = verdict(data, require_scgi=False)
    assert "SCGI" not in dict(found.variables)
    with_tail(found, data, require_scgi=False)
    wrong = verdict(netstring(block(FIRST, ("SCGI", "2"))), require_scgi=False)
    assert (wrong.code, wrong.status) == ("scgi-not-1", 400)


def test_each_limit_is_the_last_number_that_is_accepted() -> None:
    data = of_length("100")
    size = int(data.partition(b":")[0])
    count = 2 + len(USUAL)
    assert verdict(data, Limits(head=size, variables=count, body=100)).content_length == 100
    assert verdict(data, Limits(head=size - 1, variables=count, body=100)).code == "head-too-large"
    assert verdict(data, Limits(head=size, variables=count - 1, body=100)).code == "too-many-variables"
    assert verdict(data, Limits(head=size, variables=count, body=99)).code == "body-too-large"


def test_a_head_as_large_as_the_limits_allow_is_understood() -> None:
    pairs: list[Pair] = [(f"HTTP_X_{number}", "v" * 500) for number in range(2000 - 6)]
    data = request(*pairs)
    missing = (1 << 20) - int(data.partition(b":")[0])
    pairs[-1] = (pairs[-1][0], "v" * (500 + missing))
    data = request(*pairs)
    found = at_once(data)
    assert len(found.variables) == 2000
    assert data.startswith(b"1048576:")
    assert in_pieces(data[i : i + 1000] for i in range(0, len(data), 1000)) == found


@pytest.mark.parametrize("data", [b"", b"1", b"12345678901234567890", GOOD[:3], GOOD[:20], GOOD[:-1]])
def test_a_request_that_ends_in_its_head_says_how_far_it_came(data: bytes) -> None:
    reader = RequestReader()
    for number in range(len(data)):
        assert reader.feed(data[number : number + 1]) is None
    assert at_once(data) == MORE
    assert reader.received == len(data)
    with pytest.raises(TruncatedRequest, match=f"after {len(data)} bytes") as caught:
        reader.eof()
    assert (caught.value.code, caught.value.status_hint) == ("head-truncated", 400)
    if b":" in data:
        assert f"expected {len(GOOD)} bytes" in str(caught.value)
