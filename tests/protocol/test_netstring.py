"""Netstrings read from files, for programs that read the connection themselves."""

from __future__ import annotations

import io

import pytest

from protocol.malformed import NOT_DIGITS
from scgi.errors import LimitExceeded, MalformedRequest, TruncatedRequest
from scgi.protocol.netstring import ns_read_size, ns_reads


class Dribble(io.BytesIO):
    """Gives one byte at a time, however many are asked for."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(1)


def test_a_netstring_is_read_from_bytes_text_and_slow_files_and_no_further() -> None:
    for file in (io.BytesIO(b"5:a\xe9\0b,,rest"), io.StringIO("5:a\xe9\0b,,rest"), Dribble(b"5:a\xe9\0b,,rest")):
        assert ns_reads(file) == b"a\xe9\0b,"
        rest = file.read()
        assert rest[:1] in ("r", b"r")
    assert ns_reads(io.BytesIO(b"0:,")) == b""


def test_the_length_is_read_up_to_the_colon() -> None:
    file = io.BytesIO(b"12:x")
    assert ns_read_size(file) == 12
    assert file.read() == b"x"
    assert ns_read_size(io.BytesIO(b"0:")) == 0


@pytest.mark.parametrize("name", NOT_DIGITS)
def test_a_length_is_digits_only(name: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        ns_reads(io.BytesIO(NOT_DIGITS[name] + b":" + b"x" * 500))
    assert caught.value.code == "length-not-digits"


@pytest.mark.parametrize(
    ("data", "error", "code"),
    [
        (b"", TruncatedRequest, "head-truncated"),
        (b"5", TruncatedRequest, "head-truncated"),
        (b"5:abc", TruncatedRequest, "head-truncated"),
        (b"5:abcde", MalformedRequest, "no-comma"),
        (b"5:abcde;", MalformedRequest, "no-comma"),
        (b"1048577:a", LimitExceeded, "head-too-large"),
        (b"1" * 50 + b":", MalformedRequest, "length-not-digits"),
    ],
)
def test_what_is_no_netstring_says_why(data: bytes, error: type[Exception], code: str) -> None:
    with pytest.raises(error) as caught:
        ns_reads(io.BytesIO(data))
    assert getattr(caught.value, "code", "") == code
