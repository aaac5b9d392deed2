"""The client's half of the wire without I/O: each answer is fed whole, byte by byte, and with a tail."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from scgi.client.exchange import HEAD_LIMIT, Answer, Event, Exchange, Finished, Piece
from scgi.errors import MalformedResponse, MisuseError
from scgi.protocol.response import build_head


def run(exchange: Exchange, pieces: Iterable[bytes]) -> tuple[Answer, bytes, bool]:
    """The answer, its body, and whether it was complete before the end of file."""
    events: list[Event] = []
    for piece in pieces:
        events += exchange.feed(piece)
    early = exchange.finished
    events += exchange.eof()
    answer, *middle, end = events
    assert isinstance(answer, Answer)
    assert end == Finished()
    body = b""
    for event in middle:
        assert isinstance(event, Piece)
        assert event.data
        body += event.data
    assert exchange.received == len(body)
    return answer, body, early


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


OK = Answer(200, "OK", [("Content-Type", "text/plain")], None)

# what the server sends, whether the request was HEAD → answer, body, complete before the end of file
ANSWERS = {
    "body to the end of file": (
        b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nhello",
        False,
        (OK, b"hello", False),
    ),
    "no status is 200, lines may end with LF": (
        b"Content-Type: text/plain\n\nhello",
        False,
        (OK, b"hello", False),
    ),
    "no body at all": (b"Content-Type: text/plain\r\n\r\n", False, (OK, b"", False)),
    "a body of the announced length": (
        b"Status: 201 Made\r\nContent-Length: 5\r\n\r\nhello",
        False,
        (Answer(201, "Made", [("Content-Length", "5")], 5), b"hello", True),
    ),
    "what is beyond the announced length is cut": (
        b"Status: 200 OK\r\nContent-Length: 2\r\n\r\nhello",
        False,
        (Answer(200, "OK", [("Content-Length", "2")], 2), b"he", True),
    ),
    "an announced length of nothing": (
        b"Status: 200 OK\r\nContent-Length: 0\r\n\r\nhello",
        False,
        (Answer(200, "OK", [("Content-Length", "0")], 0), b"", True),
    ),
    "lengths that agree are one": (
        b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        False,
        (Answer(200, "OK", [("Content-Length", "1")] * 2, 1), b"x", True),
    ),
    "HEAD has no body, whatever is announced": (
        b"Status: 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        True,
        (Answer(200, "OK", [("Content-Length", "5")], 0), b"", True),
    ),
    "204 has no body": (
        b"Status: 204 No Content\r\n\r\nx",
        False,
        (Answer(204, "No Content", [], 0), b"", True),
    ),
    "304 has no body": (
        b"Status: 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
        False,
        (Answer(304, "Not Modified", [("Content-Length", "9")], 0), b"", True),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_the_same_however_its_bytes_are_split(name: str) -> None:
    data, head, expected = ANSWERS[name]
    assert run(Exchange([], 0, head_request=head), [data]) == expected
    assert run(Exchange([], 0, head_request=head), bytewise(data)) == expected
    for cut in range(1, len(data)):
        assert run(Exchange([], 0, head_request=head), [data[:cut], data[cut:]]) == expected


@pytest.mark.parametrize("name", [name for name, (_, _, (_, _, early)) in ANSWERS.items() if early])
def test_what_follows_a_complete_answer_is_not_part_of_it(name: str) -> None:
    data, head, expected = ANSWERS[name]
    assert run(Exchange([], 0, head_request=head), [data + b"tail", b"more"]) == expected


# what the server sends before it closes → code
REFUSED = {
    "nothing": (b"", "no-answer"),
    "a head that is cut": (b"Status: 200 OK\r\nContent-", "head-truncated"),
    "a body that is cut": (b"Content-Length: 5\r\n\r\nhell", "body-truncated"),
    "a body without a head": (b"<html>\n\n</html>", "no-colon"),
    "NUL in the head": (b"Status: 200 OK\r\nX: a\0b", "control-in-header"),
    "an interim status": (b"Status: 103 Early Hints\r\n\r\nStatus: 200 OK\r\n\r\n", "status-not-final"),
    "a status of four digits": (b"Status: 1000 What\r\n\r\n", "bad-status"),
    "a length that is no number": (b"Content-Length: +5\r\n\r\nhello", "content-length"),
    "a length in other digits": ("Content-Length: \u00b2\r\n\r\n".encode("latin-1"), "content-length"),
    "lengths that differ": (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "content-length"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_answer_is_refused_however_its_bytes_are_split(name: str) -> None:
    data, code = REFUSED[name]
    for pieces in ([data], bytewise(data)):
        exchange = Exchange([], 0)
        with pytest.raises(MalformedResponse) as caught:
            for piece in pieces:
                exchange.feed(piece)
            exchange.eof()
        assert caught.value.code == code
        assert caught.value.status_hint == 502


@pytest.mark.parametrize("status", [200, 599, 600, 999])
def test_every_status_that_the_server_lets_an_application_give_is_taken(status: int) -> None:
    head = build_head(f"{status} Odd", [], 0)[0]
    answer = Exchange([], 0).feed(head)[0]
    assert isinstance(answer, Answer)
    assert (answer.status, answer.reason) == (status, "Odd")


@pytest.mark.parametrize("endless", [b"X-Filler: abcdefghijklmnopqrstuvwxyz\r\n", b"x" * 30])
def test_a_head_without_end_is_refused_at_the_limit(endless: bytes) -> None:
    exchange = Exchange([], 0)
    fed = 0
    with pytest.raises(MalformedResponse) as caught:
        while True:
            exchange.feed(endless)
            fed += len(endless)
    assert caught.value.code == "head-too-large"
    assert HEAD_LIMIT - len(endless) < fed <= HEAD_LIMIT + 4


def test_the_request_goes_out_with_its_length_first_and_its_body_counted() -> None:
    exchange = Exchange([("REQUEST_METHOD", "POST")], 5)
    assert exchange.request_head == b"44:CONTENT_LENGTH\x005\x00SCGI\x001\x00REQUEST_METHOD\x00POST\x00,"
    assert exchange.body(b"hel") == b"hel"
    assert exchange.body_left == 2
    with pytest.raises(MisuseError, match="2 bytes were left to send, 3 came"):
        exchange.body(b"lo!")
    assert exchange.body(b"lo") == b"lo"
    assert exchange.body_left == 0


def test_an_answer_may_come_while_the_body_is_still_being_sent() -> None:
    exchange = Exchange([], 1000)
    exchange.body(b"x" * 10)
    exchange.feed(b"Status: 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
    assert exchange.finished
    assert exchange.body_left == 990


def test_a_reset_is_an_end_only_for_a_request_whose_body_was_turned_down() -> None:
    refused = b"Status: 403 Forbidden\r\n\r\nno"
    exchange = Exchange([], 9)
    assert len(exchange.feed(refused)) == 2
    assert exchange.reset() == [Finished()]
    for length, sent in ((9, b""), (9, b"Status: 200 OK\r\n\r\nyes"), (0, refused)):
        exchange = Exchange([], length)
        exchange.feed(sent)
        with pytest.raises(MalformedResponse, match="reset"):
            exchange.reset()
    exchange = Exchange([], 9)
    exchange.feed(b"Status: 403 Forbidden\r\nContent-Length: 5\r\n\r\nno")
    with pytest.raises(MalformedResponse, match="after 2 bytes"):
        exchange.reset()
