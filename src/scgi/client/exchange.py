"""One request and its answer, seen from the web server's side, without any I/O.

Whoever pumps the bytes (the blocking client, the asyncio client, the gateway) asks this object what
to send and tells it what came; what came back is handed out as plain values. So framing, limits and
the rules about bodies are written once. This file knows nothing about sockets or clocks; it may
import protocol and errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scgi.errors import MalformedResponse, MisuseError
from scgi.protocol.request import build_head
from scgi.protocol.response import parse_head

HEAD_LIMIT = 65536  # of a response's header block; nginx takes 4096 bytes, lighttpd 64 KiB


@dataclass(frozen=True, slots=True)
class Answer:
    """The response's head. ``length`` is how many bytes of body follow; None: until end of file."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    length: int | None


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of the response's body, never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Finished:
    """The response is complete; what the server may still send is not part of it."""


Event = Answer | Piece | Finished


class Exchange:
    """Send ``request_head``, then ``body()`` of each piece of the body; ``feed()`` what comes back.

    Reading and sending are independent, because a server may answer before it has read the whole
    body. ``finished`` says that the answer is complete: sending may then be given up.
    """

    def __init__(
        self,
        variables: Iterable[tuple[str, str]],
        body_length: int,
        *,
        head_request: bool = False,
        head_limit: int = HEAD_LIMIT,
    ) -> None:
        self.request_head = build_head(variables, body_length)
        self.body_length = self.body_left = body_length
        self.answer: Answer | None = None
        self.finished = False
        self.received = 0  # bytes of the response's body handed out
        self._head_request = head_request
        self._head_limit = head_limit
        self._unparsed = b""

    def body(self, data: bytes) -> bytes:
        """Account for a piece of the request's body that is about to be sent."""
        if len(data) > self.body_left:
            raise MisuseError(
                f"the request body is longer than announced: {self.body_left} bytes were left to send,"
                f" {len(data)} came",
                code="body-too-long",
            )
        self.body_left -= len(data)
        return data

    def feed(self, data: bytes) -> list[Event]:
        """Take what the server sent. Raises MalformedResponse where no response can come of it."""
        if self.finished:
            return []
        if self.answer is not None:
            return self._take_body(data)
        self._unparsed += data
        if b"\n" not in data and b"\0" not in data and len(self._unparsed) <= self._head_limit:
            return []  # a byte at a time, the head is not searched from its start each time
        head = parse_head(self._unparsed, self._head_limit)
        if head is None:
            return []
        if head.status < 200:  # up to 999, as the server lets applications say and web servers pass on
            raise MalformedResponse(
                f"Status: expected a final one, 200 to 999, found {head.status}", code="status-not-final"
            )
        length = content_length(head.headers)
        if self._head_request or head.status in (204, 304):
            length = 0  # what they announce is what a GET would bring
        self.answer = Answer(head.status, head.reason, head.headers, length)
        rest, self._unparsed = self._unparsed[head.end :], b""
        return [self.answer, *self._take_body(rest)]

    def eof(self) -> list[Event]:
        """The server closed. Raises MalformedResponse unless the response may end here."""
        if self.finished:
            return []
        if self.answer is None:
            if self._unparsed:
                raise MalformedResponse(
                    f"the server closed the connection within the response head, after {len(self._unparsed)} bytes",
                    code="head-truncated",
                )
            raise MalformedResponse("the server closed the connection without answering", code="no-answer")
        if self.answer.length is not None:
            raise MalformedResponse(
                f"the response body ended after {self.received} of {self.answer.length} bytes",
                code="body-truncated",
            )
        self.finished = True
        return [Finished()]

    def reset(self) -> list[Event]:
        """The server reset the connection. Raises MalformedResponse unless the response may end so.

        It may where a request with a body was turned down (3xx, 4xx, 5xx): closing a socket with unread
        bytes in it is a reset, although nothing went wrong.
        """
        if self.answer is None:
            raise MalformedResponse("the server reset the connection without answering", code="reset")
        turned_down = self.body_length > 0 and self.answer.status >= 300
        if self.finished or (turned_down and self.answer.length is None):
            return self.eof()
        raise MalformedResponse(
            f"the server reset the connection after {self.received} bytes of the response body", code="reset"
        )

    def _take_body(self, data: bytes) -> list[Event]:
        assert self.answer is not None
        events: list[Event] = []
        if self.answer.length is not None:
            data = data[: self.answer.length - self.received]
        if data:
            self.received += len(data)
            events.append(Piece(data))
        if self.received == self.answer.length:
            self.finished = True
            events.append(Finished())
        return events


def content_length(headers: list[tuple[str, str]]) -> int | None:
    """What the headers announce; None: nothing. Repeats must agree."""
    found = {value.strip() for name, value in headers if name.lower() == "content-length"}
    if not found:
        return None
    value = found.pop()
    if found or not (value.isascii() and value.isdigit() and len(value) < 20):
        wrong = ", ".join(sorted(repr(other[:40]) for other in (value, *found)))
        raise MalformedResponse(f"Content-Length: expected one whole number, found {wrong}", code="content-length")
    return int(value)
