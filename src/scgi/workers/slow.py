"""A worker's side of slow peers: requests that do not come whole in one read, and the ways to the lobby and back.

While a peer is quick its request is read on here. Once the worker was nudged, connection and what has come go to the
lobby's entrance, and the worker takes the next; what has become whole comes back by the lobby's exit, which `take`
serves in the place of `accept`, with a reading of its own. The application starts when the body is whole, or when a
long one comes as fast as it can be read.

Imports `net`, `protocol`, `status`, `errors`, `log` and its neighbours.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Final

from scgi.errors import LimitExceeded, ProtocolError, TruncatedRequest
from scgi.net.handover import Errand, Parcel, hand_over, take
from scgi.net.spool import nameless_file
from scgi.net.stream import Patience, PeerGone, comes, leave, receive_head, send_all
from scgi.protocol.request import Head, Limits, RequestReader
from scgi.protocol.response import error_page
from scgi.status.scoreboard import Slot
from scgi.workers.bodies import from_file, from_peer

log = logging.getLogger("scgi.worker")

Accept = Callable[[], tuple[int, Any]]
Read = Callable[[int, int], bytes]
READ_SIZE: Final = 65536
IN_MEMORY: Final = 1 << 20  # bytes of a body; what is longer goes to a file, or is read by the application
_FULL_SPEED: Final = 1 << 18, 0.05  # bytes of a body, and within how many seconds they come at full speed
_WARY: Final = 50  # requests for which, after a slow peer, a worker does not wait long for the first byte
_GLANCE: Final = 0.002  # seconds of such a wait
_FLOOD: Final = 3  # slow peers in a row, after which nobody is waited for: whoever has queued has spoken meanwhile
_LONG: Final = 0.5  # seconds after which one that waits for a worker may have given up
_FAREWELL: Final = 0.02  # seconds in which most peers close after the answer


class _Calm(BlockingIOError):
    """No slow peer for a while: back to plain reading."""


class SlowPeers:
    """Of one worker process. Without an `entrance` it waits for slow peers itself, with time limits."""

    def __init__(
        self,
        limits: Limits,
        require_scgi: bool,
        patience: Patience,
        entrance: socket.socket | None,
        exit: socket.socket | None,
        handed_over: Callable[[], None],
    ) -> None:
        self._handed_over = handed_over
        self._limits = limits
        self._require_scgi = require_scgi
        self._patience = patience
        self._entrance = entrance
        self._exit = exit
        self._delivered: dict[int, Parcel] = {}
        self._wary = 0
        self._in_a_row = 0  # slow peers, lately

    def reader(self, accept: Accept) -> Read:
        """How to read from what `accept` brings."""
        if accept == self.take:
            return self._delivered_read
        return self._wary_read if self._wary > 0 else os.read

    # From the lobby.

    def take(self) -> tuple[int, Any]:
        """As `accept`: the next request that has become whole in the lobby. Raises BlockingIOError if there is none."""
        while self._exit is not None and (parcel := take(self._exit)) is not None:
            # At once, an ended side may be one that was ended with the request.
            left = time.monotonic() - parcel.began > _LONG and has_left(parcel.fd)
            if left:
                log.info("a client has left while it waited; its request is skipped")
            elif parcel.errand is Errand.WHOLE:
                self._delivered[parcel.fd] = parcel
                return parcel.fd, ""
            for descriptor in (parcel.fd, parcel.file):
                if descriptor >= 0:
                    os.close(descriptor)
        raise BlockingIOError(errno.EAGAIN, "nothing in the lobby is whole")

    def has_brought(self, fd: int) -> bool:
        """Whether that is what `take` has brought: then it has seen to it that somebody waits for the answer."""
        return fd in self._delivered

    def _delivered_read(self, fd: int, size: int) -> bytes:
        """As `os.read`, for what `take` has brought: the whole request, or its head, and `longer_body` has the rest."""
        parcel = self._delivered[fd]
        if parcel.file < 0:
            return self._delivered.pop(fd).data
        head = os.pread(parcel.file, parcel.offset, 0)
        if parcel.size == parcel.offset:
            os.close(self._delivered.pop(fd).file)
        return head

    def _wary_read(self, fd: int, size: int) -> bytes:
        """As `os.read`, for a while after a slow peer: no long wait for the first byte."""
        self._wary -= 1
        if self._wary <= 0:
            raise _Calm(errno.EAGAIN, "no slow peer for a while")
        if not comes(fd, _GLANCE if self._in_a_row < _FLOOD else 0):
            self._in_a_row += 1
            raise BlockingIOError(errno.EAGAIN, "a slow peer")
        self._in_a_row = 0
        return os.read(fd, size)

    def _read(self, fd: int, size: int) -> bytes:
        """What comes next of a request that has begun; for a while after a slow peer without a long wait."""
        if self._wary > 0 and not comes(fd, _GLANCE):
            raise BlockingIOError(errno.EAGAIN, "a slow peer")
        return os.read(fd, size)

    # A head that did not come whole in one read, or came wrong.

    def unready(self, fd: int, data: bytes, error: ProtocolError | OSError | None) -> tuple[Head | None, bytes]:
        """Read on, or answer and close. None: it is not ours any more."""
        try:
            if isinstance(error, ProtocolError):
                raise error
            if (error is None and not data) or not isinstance(error, BlockingIOError | None):
                os.close(fd)  # an empty connection is normal: Apache makes one before a 411
                return None, b""
            return self._read_on(fd, data, isinstance(error, BlockingIOError) and not isinstance(error, _Calm))
        except ProtocolError as refusal:
            self._refuse(fd, refusal)
        except OSError as failure:
            log.debug("connection lost while reading a request: %s", failure)
            os.close(fd)
        return None, b""

    def _read_on(self, fd: int, data: bytes, slow: bool) -> tuple[Head | None, bytes]:
        reader = RequestReader(self._limits, self._require_scgi)
        received = [data]
        head = reader.feed(data)
        deadline = time.monotonic() + self._patience.head
        waits_here = self._entrance is None
        while head is None:
            try:
                if slow:
                    raise BlockingIOError
                data = receive_head(fd, deadline) if waits_here else self._read(fd, READ_SIZE)
            except BlockingIOError:
                slow = False
                if self._to_the_lobby(Parcel(fd, Errand.REQUEST, b"".join(received))):
                    return None, b""
                waits_here = True
                continue
            if not data:
                if not reader.received:
                    os.close(fd)
                    return None, b""
                reader.eof()
            received.append(data)
            head = reader.feed(data)
        return head, b"".join(received)

    def _refuse(self, fd: int, refusal: ProtocolError) -> None:
        log.warning("refused with %d (%s): %s", refusal.status_hint, refusal.code, refusal)
        with contextlib.suppress(PeerGone):
            send_all(fd, [error_page(refusal.status_hint, str(refusal))], self._patience.send)
        self.leave(fd)

    # A body that did not come whole with the head.

    def longer_body(self, slot: Slot, fd: int, data: bytes, end: int, length: int) -> tuple[Any, int]:
        """The body, and how many bytes that are not its own came with it; None for a body: it is not ours any more."""
        parcel = self._delivered.pop(fd, None)
        if parcel is not None:
            file = os.fdopen(parcel.file, "rb")
            file.seek(end)
            return from_file(file, length), 0
        if (beyond := len(data) - end - length) > 0:
            warn_of_more(beyond, length)
            return io.BytesIO(data[end : end + length]), beyond
        try:
            return self._collect(slot, fd, data, end, length), 0
        except ProtocolError as refusal:
            self._refuse(fd, refusal)
        except OSError as failure:
            self._refuse(fd, LimitExceeded(f"no room for the body: {failure.strerror}", code="spool", status_hint=507))
        return None, 0

    def _collect(self, slot: Slot, fd: int, data: bytes, end: int, length: int) -> Any:
        """Read the rest of a body: into memory, or a file. None: the lobby does. A cut one raises when it is read.

        Of a long one that comes as fast as it can be read, the application reads the rest by itself.
        """
        pieces, size = [data], len(data) - end
        file: BinaryIO | None = None  # the whole request, once its body is too long for memory
        waits_here = self._entrance is None
        much, quick = _FULL_SPEED
        end_of_quick = time.monotonic() + quick
        while size < length:
            if waits_here and not comes(fd, self._patience.body):
                raise TruncatedRequest("the body did not come in time", code="body-timeout", status_hint=408)
            try:
                piece = (os.read if waits_here else self._read)(fd, min(length - size, 4 * READ_SIZE))
            except BlockingIOError:
                if not waits_here and self._rest_to_the_lobby(fd, pieces, file, end + size):
                    return None
                waits_here = True
                continue
            except OSError:
                piece = b""
            if not piece:
                break
            size += len(piece)
            if file is not None:
                file.write(piece)
                continue
            pieces.append(piece)
            if size > much and size < length and not waits_here:
                much = length  # asked once
                if time.monotonic() < end_of_quick:
                    begun = b"".join(pieces)[end:]
                    if (body := from_peer(slot, fd, begun, length, self._patience)) is not None:
                        return body
            if size > IN_MEMORY:
                file = os.fdopen(nameless_file(), "r+b")
                file.writelines(pieces)
                pieces = []
        if file is not None:
            file.seek(end)
            return from_file(file, length)
        whole = b"".join(pieces)[end:]
        return io.BytesIO(whole) if size == length else from_file(io.BytesIO(whole), length)

    def _rest_to_the_lobby(self, fd: int, pieces: list[bytes], file: BinaryIO | None, size: int) -> bool:
        if file is None:
            return self._to_the_lobby(Parcel(fd, Errand.REQUEST, b"".join(pieces)))
        file.flush()
        return self._to_the_lobby(Parcel(fd, Errand.REQUEST, file=file.fileno(), size=size))

    # To the lobby.

    def _to_the_lobby(self, parcel: Parcel) -> bool:
        if self._entrance is None or not hand_over(self._entrance, parcel):
            return False
        self._wary = _WARY
        os.close(parcel.fd)
        self._handed_over()
        return True

    def leave(self, fd: int) -> int:
        """Close so that the answer survives what the peer still sends; returns how many bytes of that were seen."""
        end_our_side(fd)
        dropped = 0
        with contextlib.suppress(OSError):
            end = time.monotonic() + _FAREWELL
            while (left := end - time.monotonic()) > 0 and comes(fd, left):
                if not (size := len(os.read(fd, 4 * READ_SIZE))):
                    os.close(fd)
                    return dropped
                dropped += size
        if self._entrance is not None and hand_over(self._entrance, Parcel(fd, Errand.ANSWER)):
            os.close(fd)
            self._handed_over()
            return dropped
        return dropped + leave(fd, self._patience)


def has_left(fd: int) -> bool:
    """Whether the peer has closed.

    TCP does not tell that from ending only one's own side, which no web server does before it has its answer: it counts
    as closed. A unix socket tells.
    """
    sock = socket.socket(fileno=fd)
    half = 0 if sock.family == socket.AF_UNIX else getattr(select, "POLLRDHUP", 0)
    sock.detach()
    poller = select.poll()
    poller.register(fd, half)
    return any(event & (half | select.POLLHUP | select.POLLERR) for _, event in poller.poll(0))


def end_our_side(fd: int) -> None:
    """The peer sees the end of the answer, whoever else still has a duplicate of the connection."""
    sock = socket.socket(fileno=fd)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
    sock.detach()


def warn_of_more(count: int, length: int | str) -> None:
    """Bytes after a body are thrown away, and somebody should know."""
    log.warning(
        "%d bytes follow a body of CONTENT_LENGTH %s and are dropped "
        "(nginx before 1.29.6 with scgi_request_buffering off sends a wrong CONTENT_LENGTH)",
        count,
        length,
    )
