"""Bytes over a connected descriptor: send all of them, wait for a head, leave so that the peer gets the answer.

The server's hot path uses bare descriptors (a socket object costs several system calls). Everything here is for when
that one read and one write were not enough. Descriptors may be blocking or not: whoever finds a worker waiting makes
its descriptor non-blocking, and then `BlockingIOError` leads here.

Imports `errors` only.
"""

from __future__ import annotations

import _socket
import contextlib
import ctypes
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scgi.errors import TruncatedRequest

Buffer = bytes | bytearray | memoryview
_AT_ONCE: Final = struct.pack("ii", 1, 0)
_AS_USUAL: Final = struct.pack("ii", 0, 0)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a peer may take. Seconds, and bytes a second."""

    head: float = 10.0  # for the whole head
    body: float = 60.0  # without a byte of the body
    rate: float = 200.0  # of the body on the whole, after the first `body` seconds
    send: float = 60.0  # without taking a byte of the answer
    linger: float = 2.0  # without a byte of what is thrown away after the answer
    linger_total: float = 30.0


class PeerGone(ConnectionError):
    """The peer closed, or stopped taking the answer: there is nobody to answer to."""


def _await(fd: int, event: int, seconds: float) -> bool:
    """Wait until the descriptor is ready; False when the time is over."""
    poller = select.poll()
    poller.register(fd, event)
    return bool(poller.poll(max(0, int(seconds * 1000))))


def comes(fd: int, seconds: float) -> bool:
    """Whether there is something to read, or the end, within so many seconds."""
    return _await(fd, select.POLLIN, seconds)


def limit_reading(fd: int, seconds: float) -> None:
    """From now on a read that has waited for so long raises `BlockingIOError`."""
    sock = socket.socket(fileno=fd)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6)))
    sock.detach()


def stop_reading(fd: int) -> None:
    """Whoever waits in a read finds the end, as does everybody who reads from now on."""
    sock = socket.socket(fileno=fd)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)
    sock.detach()


def send_now(fd: int, buffers: Sequence[Buffer]) -> list[Buffer]:
    """Write until all is out or it would have to wait; returns what is left. Raises `PeerGone` if nobody is there."""
    waiting: list[Buffer] = list(buffers)
    while waiting:
        try:
            sent = os.writev(fd, waiting)
        except BlockingIOError:
            break
        except OSError as error:
            raise PeerGone(error.strerror or "the peer is gone") from None
        while waiting and sent >= len(waiting[0]):
            sent -= len(waiting.pop(0))
        if sent:
            waiting[0] = memoryview(waiting[0])[sent:]
    return waiting


def send_all(fd: int, buffers: Sequence[Buffer], patience: float = 60.0) -> None:
    """Write everything. Raises `PeerGone` when the peer is not there or takes nothing for `patience` seconds."""
    while buffers := send_now(fd, buffers):
        await_room(fd, patience)


def await_room(fd: int, patience: float) -> None:
    """Until the peer has taken something. Raises `PeerGone` when it takes nothing for `patience` seconds."""
    if not _await(fd, select.POLLOUT, patience):
        raise PeerGone(f"the peer took nothing for {patience:g} s")


def send_file_now(fd: int, file: int, offset: int, count: int) -> int:
    """Send `count` bytes of an open file from `offset` without copying them through us; returns the bytes sent.

    Fewer only if the file ends earlier. Raises BlockingIOError with `characters_written` when it would have to wait,
    `PeerGone` as `send_now` does, another OSError if the file cannot be sent so.
    """
    left = count
    while left:
        try:
            sent = os.sendfile(fd, file, offset, min(left, 1 << 20))
        except BlockingIOError as full:
            full.characters_written = count - left
            raise
        except (ConnectionError, TimeoutError) as error:
            raise PeerGone(error.strerror or "the peer is gone") from None
        if not sent:
            break
        offset += sent
        left -= sent
    return count - left


def send_file(fd: int, file: int, offset: int, count: int, patience: float = 60.0) -> int:
    """The same, with waiting. Raises `PeerGone` as `send_all` does."""
    sent = 0
    while True:
        try:
            return sent + send_file_now(fd, file, offset + sent, count - sent)
        except BlockingIOError as full:
            sent += full.characters_written
            await_room(fd, patience)


def receive_head(fd: int, deadline: float) -> bytes:
    """One piece of a head that trickles; b"" at end of file. Raises `TruncatedRequest` (408) after `deadline`."""
    while True:
        if not _await(fd, select.POLLIN, deadline - time.monotonic()):
            raise TruncatedRequest("the request did not come in time", code="head-timeout", status_hint=408)
        try:
            return os.read(fd, 65536)
        except BlockingIOError:
            continue


def has_unread(fd: int) -> bool:
    """Whether the peer has sent something that nobody has read, or its end."""
    return comes(fd, 0.0)


def leave(fd: int, patience: Patience) -> int:
    """Close so that the answer survives: end our side, throw away what the peer still sends (bounded), close.

    Returns how many bytes that were. A plain close with unread bytes resets the connection: Apache then turns a
    correct 413 into a 500.
    """
    dropped = 0
    with socket.socket(fileno=fd) as sock, contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        end = time.monotonic() + patience.linger_total
        while (left := end - time.monotonic()) > 0 and _await(fd, select.POLLIN, min(left, patience.linger)):
            with contextlib.suppress(BlockingIOError):
                if not (size := len(os.read(fd, 1 << 18))):
                    break
                dropped += size
    return dropped


def linger_not(fd: int, on: bool) -> None:
    """Whether closing the connection resets it (TCP), whoever closes it: the system does for a process that dies."""
    sock = _socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)  # any family will do; to ask for it costs more
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE if on else _AS_USUAL)
    sock.detach()


def reset(fd: int) -> None:
    """Close so that the peer can tell that the answer is not whole: TCP resets; a unix socket has no such way.

    At once, even if somebody has a duplicate of the connection: then a close alone ends nothing.
    """
    with socket.socket(fileno=fd) as sock, contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        if sock.family == socket.AF_UNIX:
            sock.shutdown(socket.SHUT_WR)
        elif sys.platform == "linux":  # AF_UNSPEC, which Python cannot say, dissolves a connection (connect(2))
            ctypes.CDLL(None).connect(fd, struct.pack("=H14x", socket.AF_UNSPEC), 16)
