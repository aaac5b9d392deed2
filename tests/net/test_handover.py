"""Connections that are handed to another process: whole, with their bytes, without a descriptor lost or left."""

from __future__ import annotations

import os
import resource
import select
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scgi.net import handover
from scgi.net.handover import Errand, Parcel, hand_over, pair, take
from scgi.net.spool import IN_MEMORY
from support import wait_until

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ways() -> Iterator[Pair]:
    """Where a parcel is given, and where it is taken; afterwards no descriptor more or less is open."""
    before = set(os.listdir("/proc/self/fd"))
    giving, taking = pair()
    yield giving, taking
    giving.close()
    taking.close()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def connection(ways: Pair) -> Iterator[Pair]:
    ours, peer = socket.socketpair()
    peer.settimeout(5)
    yield ours, peer
    ours.close()
    peer.close()


def taken(taking: socket.socket) -> Parcel:
    parcel = take(taking)
    assert parcel is not None
    return parcel


def file_of(parcel: Parcel) -> bytes:
    return os.pread(parcel.file, parcel.size, 0)


@pytest.mark.parametrize("errand", Errand)
@pytest.mark.parametrize("size", [0, 1, IN_MEMORY])
def test_a_connection_arrives_with_its_bytes_and_works(ways: Pair, connection: Pair, errand: Errand, size: int) -> None:
    data = os.urandom(size)
    assert hand_over(ways[0], Parcel(connection[0].fileno(), errand, data, began=12.5, reset=True))
    connection[0].close()
    parcel = taken(ways[1])
    assert (parcel.errand, parcel.data, parcel.file, parcel.began, parcel.reset) == (errand, data, -1, 12.5, True)
    assert not os.get_inheritable(parcel.fd)
    os.write(parcel.fd, b"hello")
    assert connection[1].recv(10) == b"hello"
    parcel.close()
    assert connection[1].recv(10) == b""


@pytest.mark.parametrize("errand", Errand)
def test_what_is_longer_than_a_message_goes_as_a_file_that_has_no_name(
    ways: Pair, connection: Pair, errand: Errand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = os.urandom(IN_MEMORY + 1)
    assert hand_over(ways[0], Parcel(connection[0].fileno(), errand, data))
    assert list(tmp_path.iterdir()) == []
    parcel = taken(ways[1])
    assert (parcel.data, parcel.offset, parcel.size) == (b"", 0, len(data))
    assert file_of(parcel) == data
    assert not os.get_inheritable(parcel.file)
    parcel.close()


def test_an_open_file_goes_along_with_the_bytes_before_it(ways: Pair, connection: Pair) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"0123456789")
        file.flush()
        given = Parcel(connection[0].fileno(), Errand.ANSWER, b"head", file.fileno(), 3, 5)
        assert hand_over(ways[0], given)
    parcel = taken(ways[1])
    assert (parcel.data, os.pread(parcel.file, parcel.size, parcel.offset)) == (b"head", b"34567")
    parcel.close()


def test_a_parcel_without_a_beginning_begins_now(ways: Pair, connection: Pair) -> None:
    before = time.monotonic()
    assert hand_over(ways[0], Parcel(connection[0].fileno(), Errand.REQUEST))
    parcel = taken(ways[1])
    assert before <= parcel.began <= time.monotonic()
    parcel.close()


def test_nothing_there_is_none_without_waiting(ways: Pair) -> None:
    assert take(ways[1]) is None
    ways[0].close()
    assert take(ways[1]) is None


def test_parcels_keep_their_order_and_their_bounds(ways: Pair, connection: Pair) -> None:
    for number in range(20):
        assert hand_over(ways[0], Parcel(connection[0].fileno(), Errand.REQUEST, b"x" * number))
    for number in range(20):
        parcel = taken(ways[1])
        assert len(parcel.data) == number
        parcel.close()


def fill(ways: Pair, fd: int) -> int:
    count = 0
    while hand_over(ways[0], Parcel(fd, Errand.REQUEST, b"x" * IN_MEMORY), wait=0):
        count += 1
    return count


def test_a_full_queue_is_no_after_a_while_and_the_giver_still_has_everything(ways: Pair, connection: Pair) -> None:
    fill(ways, connection[0].fileno())
    assert not hand_over(ways[0], Parcel(connection[0].fileno(), Errand.REQUEST, b"x" * IN_MEMORY), wait=0.05)
    connection[0].sendall(b"still mine")
    assert connection[1].recv(20) == b"still mine"


def test_a_full_queue_is_waited_for(ways: Pair, connection: Pair) -> None:
    count = fill(ways, connection[0].fileno())
    given: list[bool] = []
    late = Parcel(connection[0].fileno(), Errand.REQUEST, b"late")
    thread = threading.Thread(target=lambda: given.append(hand_over(ways[0], late, wait=10)))
    thread.start()
    found = []
    while len(found) < count + 1:
        wait_until(lambda: select.select([ways[1]], [], [], 0)[0])
        parcel = taken(ways[1])
        found.append(parcel.data)
        parcel.close()
    thread.join(10)
    assert given == [True]
    assert found[-1] == b"late"


def test_nobody_at_the_other_end_is_no_at_once(ways: Pair, connection: Pair) -> None:
    ways[1].close()
    began = time.monotonic()
    assert not hand_over(ways[0], Parcel(connection[0].fileno(), Errand.REQUEST, b"x"), wait=10)
    assert time.monotonic() - began < 5
    connection[0].sendall(b"still mine")


def test_no_room_on_the_disk_is_no(ways: Pair, connection: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(handover, "nameless_file", full)
    assert not hand_over(ways[0], Parcel(connection[0].fileno(), Errand.REQUEST, b"x" * (IN_MEMORY + 1)))
    assert take(ways[1]) is None


def test_a_taker_without_numbers_takes_nothing_and_loses_nothing(ways: Pair, connection: Pair) -> None:
    assert hand_over(ways[0], Parcel(connection[0].fileno(), Errand.REQUEST, b"kept", connection[0].fileno()))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, before[1]))
    try:
        with pytest.raises(OSError):
            while True:
                fillers.append(os.dup(0))
        os.close(fillers.pop())  # one number is not enough for two descriptors
        with pytest.raises(OSError):
            take(ways[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for filler in fillers:
            os.close(filler)
    parcel = taken(ways[1])
    assert parcel.data == b"kept" and parcel.file >= 0
    parcel.close()


def test_what_is_no_parcel_is_dropped_with_its_descriptors_and_the_next_is_taken(ways: Pair, connection: Pair) -> None:
    giving = ways[0]
    fd = connection[0].fileno()
    giving.send(b"nonsense")
    socket.send_fds(giving, [b"short"], [fd])
    socket.send_fds(giving, [b"\0" * 100], [fd, fd])
    socket.send_fds(giving, [b"\1\11\0" + b"\0" * 100], [fd])  # no such errand
    socket.send_fds(giving, [b"x" * 10], [fd] * 7)
    assert hand_over(giving, Parcel(fd, Errand.REQUEST, b"good"))
    parcel = taken(ways[1])
    assert parcel.data == b"good"
    parcel.close()


def test_too_many_descriptors_on_their_way_are_waited_for(
    ways: Pair, connection: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy:
        """As the kernel, which counts the descriptors of a user that nobody has taken yet."""

        refusals = 3

        def sendmsg(self, *args: object) -> int:
            if self.refusals:
                self.refusals -= 1
                raise OSError(109, "Too many references: cannot splice")
            return ways[0].sendmsg(*args)  # type: ignore[arg-type]

        def fileno(self) -> int:
            return ways[0].fileno()

    assert hand_over(Busy(), Parcel(connection[0].fileno(), Errand.REQUEST))  # type: ignore[arg-type]
    taken(ways[1]).close()
