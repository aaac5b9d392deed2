"""The lobby's guests: a request that is read on until it is whole, an answer that is sent on until it is out.

Each is one connection; a turn of it takes what is there, or gives what is taken, and never waits. When its time is
over is a number, `deadline`. Imports `net`, `protocol`, `errors`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Final

from scgi.errors import BodyTimeout, ProtocolError, TruncatedRequest
from scgi.net.handover import Errand, Parcel
from scgi.net.spool import Spool
from scgi.net.stream import Patience, PeerGone
from scgi.protocol.request import Limits, parse_head

_PIECE: Final = 65536  # bytes of a request at a turn
_SENT: Final = 1 << 20  # bytes of an answer
_LONGEST: Final = 22  # a netstring's length and its colon
_LEFT: Final = select.POLLHUP | select.POLLERR


class Reading:
    """A request. `turn` is True once it is whole; it raises `ProtocolError` for what is to be refused, `PeerGone` if
    nobody is there any more, OSError if there is no room for it."""

    __slots__ = (
        "_began", "_cut", "_end", "_heard", "_length", "_limits", "_require_scgi", "_wanted", "beyond", "fd", "held",
        "spool",
    )  # fmt: skip

    def __init__(self, parcel: Parcel, limits: Limits, require_scgi: bool) -> None:
        self.fd = parcel.fd
        self.spool = Spool(parcel.data, parcel.file, parcel.size)
        self.held = 0  # how many descriptors its host has counted; 0 if it is not a guest
        self.beyond = 0  # bytes that came after it
        self._limits = limits
        self._require_scgi = require_scgi
        self._began = parcel.began  # the head, or the body once the head is here
        self._heard = time.monotonic()
        self._wanted = 0  # bytes, before which there is no use to look at the head again
        self._end = 0  # of the head, once it is here
        self._length = 0  # of the body
        self._cut = False  # the peer has ended its side in the middle of it

    def look(self) -> bool:
        """Judge what is here; whether that is all."""
        if not self._end and self.spool.size >= self._wanted:
            self._look_at_head()
        return self._end > 0 and self.spool.size >= self._end + self._length

    def _look_at_head(self) -> None:
        data = self.spool.read(0, self._wanted or _LONGEST)
        found = parse_head(data, self._limits, self._require_scgi)
        if found is not None:
            self._length, self._end = found.content_length, found.end
            return
        digits, colon, _ = data.partition(b":")
        if colon:
            self._wanted = len(digits) + 1 + int(digits) + 1
            self.look()

    def turn(self, now: float) -> bool:
        wanted = self._end + self._length - self.spool.size if self._end else _PIECE
        try:
            data = os.read(self.fd, min(wanted, _PIECE))
        except BlockingIOError:
            return False
        except OSError as error:
            raise PeerGone(error.strerror or "the peer is gone") from None
        self._heard = now
        if not data:
            self._end_early()
            return True
        self.spool.append(data)
        had_head = self._end > 0
        whole = self.look()
        if not had_head and self._end:
            self._began = now
        return whole

    def _end_early(self) -> None:
        """The peer has ended its side. In the middle of the body: the application hears of it when it reads."""
        if not self.spool.size:
            raise PeerGone("it said nothing")
        if not self._end:
            raise TruncatedRequest(
                f"the request ended after {self.spool.size} bytes, in the middle of its head"
                + (f" (expected {self._wanted} bytes)" if self._wanted else ""),
                code="head-truncated",
            )
        self._cut = True

    def deadline(self, patience: Patience) -> float:
        if not self._end:
            return self._began + patience.head
        steady = self._began + patience.body + (self.spool.size - self._end) / patience.rate
        return min(self._heard + patience.body, steady)

    def too_late(self) -> ProtocolError:
        """What to answer after the deadline."""
        if self._end:
            return BodyTimeout(expected=self._length, received=self.spool.size - self._end)
        return TruncatedRequest("the request did not come in time", code="head-timeout", status_hint=408)

    def whole(self) -> Parcel:
        """As a worker takes it: nothing comes after the body, and the connection blocks again."""
        whole = min(self._end + self._length, self.spool.size)
        self.beyond = self.spool.size - whole
        os.set_blocking(self.fd, True)
        if self.spool.file < 0:
            data = bytes(self.spool.data[:whole])
            return Parcel(self.fd, Errand.WHOLE, data, offset=self._end, began=self._heard)
        if self.beyond:
            os.ftruncate(self.spool.file, whole)
        return Parcel(self.fd, Errand.WHOLE, b"", self.spool.file, self._end, whole, began=self._heard)

    def unfinished(self) -> Parcel:
        """For another lobby."""
        data, file, size = bytes(self.spool.data), self.spool.file, self.spool.size
        return Parcel(self.fd, Errand.REQUEST, data, file, size=size if file >= 0 else 0, began=self._began)

    def has_left(self) -> bool:
        """Whether nobody waits for the answer. (A peer that has only ended its side may do so.)"""
        if self._cut:
            return False
        poller = select.poll()
        poller.register(self.fd, 0)
        return any(event & _LEFT for _, event in poller.poll(0))

    @property
    def descriptors(self) -> int:
        return 1 + (self.spool.file >= 0)

    def close(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)
        self.spool.close()


class Sending:
    """An answer, then the farewell. `turn` is True when it is over; it raises `PeerGone` if nobody takes it."""

    __slots__ = ("_file", "_heard", "_left_at", "_offset", "_size", "_unsent", "fd", "held", "leaving", "reset")

    def __init__(self, parcel: Parcel, now: float) -> None:
        self.fd = parcel.fd
        self.held = 0
        self.reset = parcel.reset
        self.leaving = False  # all is sent; what the peer still sends is thrown away
        self._unsent = memoryview(parcel.data)
        self._file, self._offset, self._size = parcel.file, parcel.offset, parcel.size
        self._heard = now
        self._left_at = now

    def turn(self, now: float) -> bool:
        if self.leaving:
            return self._throw_away(now)
        try:
            if self._unsent:
                self._unsent = self._unsent[os.write(self.fd, self._unsent[:_SENT]) :]
            elif self._size:
                sent = os.sendfile(self.fd, self._file, self._offset, min(self._size, _SENT))
                if not sent:
                    raise PeerGone("the file to be sent has become shorter")
                self._offset += sent
                self._size -= sent
        except BlockingIOError:
            return False
        except PeerGone:
            raise
        except OSError as error:
            raise PeerGone(error.strerror or "the peer is gone") from None
        self._heard = now
        return self._all_sent(now)

    def _all_sent(self, now: float) -> bool:
        if self._unsent or self._size:
            return False
        if self.reset:
            return True
        with contextlib.suppress(OSError):
            _shutdown(self.fd)
        self.leaving = True
        self._left_at = self._heard = now
        return False

    def _throw_away(self, now: float) -> bool:
        try:
            if not os.read(self.fd, 1 << 18):
                return True
        except BlockingIOError:
            return False
        except OSError:
            return True
        self._heard = now
        return False

    def deadline(self, patience: Patience) -> float:
        if not self.leaving:
            return self._heard + patience.send
        return min(self._heard + patience.linger, self._left_at + patience.linger_total)

    def unfinished(self) -> Parcel:
        return Parcel(
            self.fd, Errand.ANSWER, bytes(self._unsent), self._file, self._offset, self._size, reset=self.reset
        )

    @property
    def descriptors(self) -> int:
        return 1 + (self._file >= 0)

    def close(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)
        if self._file >= 0:
            os.close(self._file)


def _shutdown(fd: int) -> None:
    sock = socket.socket(fileno=fd)
    try:
        sock.shutdown(socket.SHUT_WR)
    finally:
        sock.detach()
