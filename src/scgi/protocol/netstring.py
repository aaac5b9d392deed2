"""Netstrings read from a file, piece by piece, as `handle_connection` programs and `scgi.util` have it.

The server itself never comes here: it reads from descriptors and parses whole heads. Files may be binary, or text in
Latin-1 (`conn.makefile("r")`). Imports `errors` and its neighbour.
"""

from __future__ import annotations

from typing import Any

from scgi.errors import LimitExceeded, MalformedRequest, TruncatedRequest
from scgi.protocol.request import DEFAULT_LIMITS

_MOST_DIGITS = 20


def _read(input: Any, size: int) -> bytes:
    data = input.read(size)
    return data.encode("latin-1") if isinstance(data, str) else bytes(data or b"")


def ns_read_size(input: Any) -> int:
    """Read a netstring's length and the colon. Raises `TruncatedRequest` at end of file, `MalformedRequest`."""
    digits = b""
    while (byte := _read(input, 1)) != b":":
        if not byte:
            raise TruncatedRequest("short netstring read: end of file in the length", code="head-truncated")
        digits += byte
        if not digits.isdigit() or len(digits) > _MOST_DIGITS:
            raise MalformedRequest(f"expected the length of a netstring, found {digits!r}", code="length-not-digits")
    if not digits or (digits[:1] == b"0" and digits != b"0"):
        raise MalformedRequest(f"expected the length of a netstring, found {digits!r}", code="length-not-digits")
    return int(digits)


def ns_reads(input: Any, limit: int = DEFAULT_LIMITS.head) -> bytes:
    """Read one netstring's content, at most `limit` bytes. Raises as `ns_read_size` does, and `LimitExceeded`."""
    size = ns_read_size(input)
    if size > limit:
        raise LimitExceeded(f"the netstring is {size} bytes, the limit is {limit}", code="head-too-large")
    data = b""
    while len(data) < size:
        piece = _read(input, size - len(data))
        if not piece:
            raise TruncatedRequest(f"short netstring read: {len(data)} of {size} bytes", code="head-truncated")
        data += piece
    if (comma := _read(input, 1)) != b",":
        raise MalformedRequest(f"missing netstring terminator: expected ',', found {comma!r}", code="no-comma")
    return data
