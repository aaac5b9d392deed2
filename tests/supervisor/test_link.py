"""The link between master and pool: whole messages, nobody waits, and no nonsense is believed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from scgi.supervisor.link import Link, LinkLost
from support import wait_until


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    ours, theirs = Link.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, Link]]:
    """A bare socket, for what no `Link` would say, and the link that hears it."""
    raw, sock = socket.socketpair()
    link = Link(sock)
    with raw:
        yield raw, link
    link.close()


def test_messages_come_whole_and_in_order_both_ways(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    ours.say(do="retire", count=2)
    ours.say(do="leave", seconds=0.5)
    theirs.say(failed='"quoted"\nand é \udcff', traceback="")
    assert theirs.hear() == [{"do": "retire", "count": 2}, {"do": "leave", "seconds": 0.5}]
    assert ours.hear() == [{"failed": '"quoted"\nand é \udcff', "traceback": ""}]
    assert ours.hear() == theirs.hear() == []


def test_a_message_in_pieces_is_heard_when_its_last_byte_is_there(wire: tuple[socket.socket, Link]) -> None:
    raw, link = wire
    heard = []
    for byte in b'{"ready": 1}\n{"ready": 2}\n':
        raw.sendall(bytes([byte]))
        heard.append(link.hear())
    assert [one for one in heard if one] == [[{"ready": 1}], [{"ready": 2}]]


def test_what_was_said_before_the_end_is_heard_before_the_link_is_lost(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    theirs.say(ready=1)
    theirs.close()
    assert ours.hear() == [{"ready": 1}]
    with pytest.raises(LinkLost):
        ours.hear()


def test_a_message_that_breaks_off_is_never_heard(wire: tuple[socket.socket, Link]) -> None:
    raw, link = wire
    raw.sendall(b'{"ready": 1}\n{"ready": 1')
    raw.shutdown(socket.SHUT_WR)
    assert link.hear() == [{"ready": 1}]
    with pytest.raises(LinkLost):
        link.hear()


@pytest.mark.parametrize(
    "nonsense",
    [b"ready", b"[1]", b"1", b"null", b'"text"', b"\xff\xfe", b"", b"[" * 100_000, b"9" * 10_000, b'{"a": }'],
    ids=lambda nonsense: repr(nonsense[:10]),
)
def test_what_is_no_json_object_ends_the_link(wire: tuple[socket.socket, Link], nonsense: bytes) -> None:
    raw, link = wire
    raw.sendall(nonsense + b"\n")
    with pytest.raises(LinkLost):
        link.hear()


def test_a_message_without_an_end_ends_the_link_before_it_fills_the_memory(wire: tuple[socket.socket, Link]) -> None:
    raw, link = wire
    raw.setblocking(False)
    sent = 0
    with pytest.raises(LinkLost):
        while sent < 100 << 20:
            try:
                sent += raw.send(b"x" * 65536)
            except BlockingIOError:
                assert link.hear() == []
    assert sent < 3 << 20


def test_whoever_talks_without_a_pause_does_not_keep_the_other_from_its_work(wire: tuple[socket.socket, Link]) -> None:
    raw, link = wire
    raw.setblocking(False)
    real, line = link.sock, json.dumps({"x": "y" * 1000}).encode() + b"\n"

    class Refilled:
        """The socket of a listener whose peer is always quick enough."""

        def recv(self, size: int) -> bytes:
            try:
                while True:
                    raw.send(line)
            except BlockingIOError:
                return real.recv(size)

        def close(self) -> None:
            real.close()

    link.sock = Refilled()  # type: ignore[assignment]
    assert 0 < len(link.hear()) < 3000


def test_nobody_waits_for_a_peer_that_does_not_listen_and_nothing_is_lost(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    for number in range(5000):
        ours.say(number=number, padding="x" * 200)
    assert not ours.flush()
    heard: list[int] = []

    def all_heard() -> bool:
        heard.extend(message["number"] for message in theirs.hear())
        return ours.flush() and len(heard) == 5000

    wait_until(all_heard)
    assert heard == list(range(5000))


def test_speaking_to_who_is_gone_raises_nothing_and_keeps_nothing(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    theirs.close()
    ours.say(do="leave")
    assert ours.flush()
    with pytest.raises(LinkLost):
        ours.hear()
