"""Request bodies that did not come whole with their head: those that are in a file, and those that still come.

Imports `net`, `status`, `errors`.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import time
from typing import Any, BinaryIO, Final

from scgi.errors import BodyTimeout, TruncatedBody
from scgi.net.stream import Patience, comes, limit_reading, stop_reading
from scgi.status.scoreboard import Slot, Stage

_RUNNING: Final = int(Stage.RUNNING)
_RECEIVING: Final = int(Stage.RECEIVING)
_FROM_FILE: Final = 65536  # bytes that are read ahead for an application that reads lines
_FROM_PEER: Final = 8192  # fewer, so that what comes in between goes straight to where the application wants it


class SpooledBody(io.RawIOBase):
    """A request body in a file; one that was cut raises `TruncatedBody` at its end, then and at every later read."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self._length = length
        self._received = 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if self._file.closed:
            return 0
        count: int = self._file.readinto(target)  # type: ignore[attr-defined]
        self._received += count
        if not count and len(target) and self._received < self._length:
            raise TruncatedBody(expected=self._length, received=self._received)
        return count

    def as_file(self) -> int:
        """A descriptor for a program to read the body from: it stands at its beginning, and ends with it.

        Raises `TruncatedBody`.
        """
        file, start = self._file.fileno(), self._file.tell()
        there = os.fstat(file).st_size - start
        if there < self._length:
            raise TruncatedBody(expected=self._length, received=there)
        if there > self._length:
            os.ftruncate(file, start + self._length)
        os.lseek(file, start, os.SEEK_SET)
        return file

    def let_go(self) -> int:
        """Of the file: what is left of the body is not read any more. An application that keeps it reads its end."""
        self._file.close()
        return 0


class StreamedBody(io.RawIOBase):
    """A request body of which the peer has sent the beginning, fast: what has come, then the connection itself.

    Who reads faster than the peer sends waits, in the stage RECEIVING: as long as `patience` says, then `BodyTimeout`
    is raised. One that was cut raises `TruncatedBody`. Any thread of the application may read; the connection must not
    be touched once it is let go, since its descriptor is somebody else's then.
    """

    def __init__(self, slot: Slot, fd: int, begun: bytes, length: int, patience: Patience) -> None:
        limit_reading(fd, patience.body)
        self._slot = slot
        self._fd = fd
        self._begun = memoryview(begun)
        self._length = length
        self._received = len(begun)
        self._patience = patience
        self._started = time.monotonic()
        self._reading = threading.Lock()

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        if begun := len(self._begun):
            count = min(begun, len(target))
            target[:count] = self._begun[:count]
            self._begun = self._begun[count:]
            return count
        view = memoryview(target)[: self._length - self._received]
        if not view:
            return 0
        slot = self._slot
        ours = slot.thread == threading.get_ident()  # what another thread waits for says nothing about this one
        with self._reading:
            if ours:
                slot.board[slot.index] = _RECEIVING
            try:
                count = self._read(view)
            finally:
                if ours:
                    slot.board[slot.index] = _RUNNING
                    slot.note_step()
        self._received += count
        return count

    def as_file(self) -> int:
        """There is none: the body still comes."""
        return -1

    def take_begun(self) -> memoryview:
        """What has come already, for who reads the rest with `read1` when there is more."""
        begun, self._begun = self._begun, memoryview(b"")
        return begun

    def _read(self, view: memoryview) -> int:
        """At least one byte; 0 if it was let go."""
        while self._fd >= 0:
            try:
                count = os.readv(self._fd, [view])
            except BlockingIOError:  # time is up; or the descriptor does not block, since the peer was slow to read
                count = -1
            except OSError:
                count = 0
            left = self._started + self._patience.body + self._received / self._patience.rate - time.monotonic()
            if left < 0 or (count < 0 and not comes(self._fd, min(self._patience.body, left))):
                raise BodyTimeout(expected=self._length, received=self._received)
            if count > 0:
                return count
            if not count and self._fd >= 0:
                raise TruncatedBody(expected=self._length, received=self._received)
        return 0

    def let_go(self) -> int:
        """Of the connection; returns how much of the body was not read from it."""
        fd, self._fd = self._fd, -1
        if not self._reading.acquire(blocking=False):
            stop_reading(fd)  # a thread of the application is at it still
            self._reading.acquire()
        self._reading.release()
        self._begun = memoryview(b"")
        left, self._received = self._length - self._received, self._length
        self._slot.end_stream()
        return left


def from_file(file: BinaryIO, length: int) -> io.BufferedReader:
    """A body of that length, which begins where the file stands."""
    return io.BufferedReader(SpooledBody(file, length), _FROM_FILE)


def from_peer(slot: Slot, fd: int, begun: bytes, length: int, patience: Patience) -> io.BufferedReader | None:
    """A body that is read from the connection while the application runs; None if too many are already."""
    if not slot.begin_stream():
        return None
    return io.BufferedReader(StreamedBody(slot, fd, begun, length, patience), _FROM_PEER)


def let_go(body: Any) -> int:
    """Of the file or the connection that a long body comes from, whoever still refers to it: room and descriptor are
    wanted back now. Returns how many bytes the peer may still send."""
    if isinstance(body, io.BufferedReader):
        with contextlib.suppress(ValueError):  # an application has detached it
            if isinstance(body.raw, SpooledBody | StreamedBody):
                return body.raw.let_go()
    return 0
