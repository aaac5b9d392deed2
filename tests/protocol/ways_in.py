"""Feed a request whole, in every split, by single bytes and with a tail; the verdict has to be the same each time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scgi.errors import ProtocolError
from scgi.protocol.request import DEFAULT_LIMITS, Limits, RequestReader, parse_head

TAIL = b"17:CONTENT_LENGTH\0000\0,GET / HTTP/1.1\r\n\r\n\0\xff"


@dataclass(frozen=True)
class Verdict:
    """What one way of feeding came to: a head and what follows it, an error, or (all empty) "feed me more"."""

    variables: tuple[tuple[str, str], ...] = ()  # in their order
    content_length: int | None = None
    rest: bytes = b""
    code: str = ""
    status: int = 0
    sentence: str = ""


MORE = Verdict()


def refusal(error: ProtocolError) -> Verdict:
    return Verdict(code=error.code, status=error.status_hint, sentence=str(error))


def at_once(data: bytes, limits: Limits = DEFAULT_LIMITS, require_scgi: bool = True) -> Verdict:
    """The server's quick way: everything came in one read."""
    try:
        head = parse_head(data, limits, require_scgi)
    except ProtocolError as error:
        return refusal(error)
    if head is None:
        return MORE
    return Verdict(tuple(head.variables.items()), head.content_length, data[head.end :])


def in_pieces(pieces: Iterable[bytes], limits: Limits = DEFAULT_LIMITS, require_scgi: bool = True) -> Verdict:
    """The reader's way; nothing more is fed to it once it has decided."""
    reader = RequestReader(limits, require_scgi)
    left = iter(pieces)
    for piece in left:
        try:
            head = reader.feed(piece)
        except ProtocolError as error:
            return refusal(error)
        if head is not None:
            return Verdict(tuple(head.variables.items()), head.content_length, reader.rest + b"".join(left))
    return MORE


def every_cut(data: bytes) -> Iterator[int]:
    """Where to cut in two: everywhere; in long requests at both ends and in steps between."""
    if len(data) <= 2000:
        return iter(range(1, len(data)))
    return iter([*range(1, 100), *range(100, len(data) - 100, 997), *range(len(data) - 100, len(data))])


def verdict(data: bytes, limits: Limits = DEFAULT_LIMITS, require_scgi: bool = True) -> Verdict:
    """What `data` is, after making sure that every way of feeding it says so.

    Does not try a tail: what follows an incomplete request would complete it.
    """
    whole = at_once(data, limits, require_scgi)
    assert in_pieces([data], limits, require_scgi) == whole
    for cut in every_cut(data):
        assert in_pieces([data[:cut], data[cut:]], limits, require_scgi) == whole, f"cut at {cut}"
    single = [data[i : i + 1] for i in range(len(data))]
    assert in_pieces(single, limits, require_scgi) == whole, "by single bytes"
    return whole


def with_tail(found: Verdict, data: bytes, limits: Limits = DEFAULT_LIMITS, require_scgi: bool = True) -> None:
    """The same request followed by other bytes: the verdict stands, the bytes are what follows."""
    expected = found if found.code else Verdict(found.variables, found.content_length, found.rest + TAIL)
    assert at_once(data + TAIL, limits, require_scgi) == expected
    assert in_pieces([data, TAIL], limits, require_scgi) == expected
    assert in_pieces([data[:-1], data[-1:] + TAIL], limits, require_scgi) == expected
