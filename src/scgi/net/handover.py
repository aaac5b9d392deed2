"""Connections handed from one process to another, with what has come of a request or is left of an answer.

One message is one parcel: the descriptors as rights, a few numbers, and at most 64 KiB of bytes; what is longer goes
as a file without a name. A parcel is either with its giver or with its taker, and while it is on its way it is the
kernel's: nobody closes a connection by taking or giving it. Imports its neighbours.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import struct
import sys
import time
from array import array
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from scgi.net.spool import IN_MEMORY, nameless_file, write_at

log = logging.getLogger("scgi.lobby")

# Descriptors, the errand, whether to reset at the end; offset and size in the file; when it began.
_NOTE: Final = struct.Struct("=BBBQQd")
_KIND: Final = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_DGRAM
_MOST_DESCRIPTORS: Final = 2
_ROOM: Final = socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4)
_FULL: Final = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)  # it may be otherwise in a moment
_PAUSE: Final = 0.005


class Errand(IntEnum):
    """What is to be done with a connection."""

    REQUEST = 0  # read on until it is whole
    WHOLE = 1  # answer it
    ANSWER = 2  # send the rest, then close


@dataclass(slots=True)
class Parcel:
    """A connection, and what goes with it. The descriptors are its holder's to close.

    REQUEST: what has come is `data`, or, if that is empty, the first `size` bytes of `file`; it `began` then (monotonic
    seconds, 0 is now): the request, or its body if the head is whole. WHOLE: `data`, or the first `size` bytes of
    `file`; `offset` is where the body begins; it `began` then to wait for a worker. ANSWER: `data` is still to be sent,
    then `size` bytes of `file` from `offset`; then our side ends and the peer's rest is thrown away; `reset` if the
    answer broke off.
    """

    fd: int
    errand: Errand
    data: bytes = b""
    file: int = -1
    offset: int = 0
    size: int = 0
    began: float = 0.0
    reset: bool = False

    def close(self) -> None:
        for descriptor in (self.fd, self.file):
            if descriptor >= 0:
                os.close(descriptor)
        self.fd = self.file = -1


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends that parcels go through, either way."""
    return socket.socketpair(socket.AF_UNIX, _KIND)


def hand_over(sock: socket.socket, parcel: Parcel, wait: float = 1.0) -> bool:
    """Give a parcel away; the caller closes its own descriptors afterwards. It may take `wait` seconds.

    False if it cannot be, and then nothing of it has gone. `data` that is longer than 64 KiB must be without a `file`.
    """
    if len(parcel.data) <= IN_MEMORY:
        return _send(sock, parcel, parcel.data, parcel.file, parcel.offset, parcel.size, wait)
    assert parcel.file < 0
    try:
        file = nameless_file()
        try:
            write_at(file, parcel.data, 0)
            return _send(sock, parcel, b"", file, parcel.offset, len(parcel.data), wait)
        finally:
            os.close(file)
    except OSError as error:
        log.warning("a slow connection cannot be handed over: no room for its %d bytes: %s", len(parcel.data), error)
        return False


def _send(sock: socket.socket, parcel: Parcel, data: bytes, file: int, offset: int, size: int, wait: float) -> bool:
    descriptors = [parcel.fd] if file < 0 else [parcel.fd, file]
    note = _NOTE.pack(len(descriptors), parcel.errand, parcel.reset, offset, size, parcel.began or time.monotonic())
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
    deadline = time.monotonic() + wait
    while True:
        try:
            sock.sendmsg((note, data), rights, socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0))
            return True
        except OSError as error:
            left = deadline - time.monotonic()
            if error.errno not in _FULL or left <= 0:
                return False
        _await_room(sock, left)


def _await_room(sock: socket.socket, seconds: float) -> None:
    """Until the queue has room, as far as can be told: too many descriptors on their way are no matter of the queue."""
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    began = time.monotonic()
    poller.poll(seconds * 1000)
    if time.monotonic() - began < _PAUSE:
        time.sleep(min(_PAUSE, seconds))


def take(sock: socket.socket) -> Parcel | None:
    """The next parcel, without waiting; None if there is none.

    OSError (EMFILE) if this process has no number for its descriptors: it is left where it is.
    """
    while True:
        _look_for_numbers(sock)
        try:
            message, rights, flags, _ = sock.recvmsg(
                _NOTE.size + IN_MEMORY, _ROOM, socket.MSG_DONTWAIT | getattr(socket, "MSG_CMSG_CLOEXEC", 0)
            )
        except (BlockingIOError, ConnectionError):
            return None
        descriptors = _descriptors(rights)
        if not message and not descriptors:
            return None  # nobody is there who could give
        if (parcel := _parcel(message, descriptors, flags)) is not None:
            return parcel
        log.error("a connection was lost on its way: %d bytes, %d descriptors", len(message), len(descriptors))
        for descriptor in descriptors:
            os.close(descriptor)


def _look_for_numbers(sock: socket.socket) -> None:
    """Rights for which there is no number would be closed on their way."""
    spare: list[int] = []
    try:
        for _ in range(_MOST_DESCRIPTORS):
            spare.append(os.dup(sock.fileno()))
    finally:
        for descriptor in spare:
            os.close(descriptor)


def _descriptors(rights: list[tuple[int, int, bytes]]) -> list[int]:
    found = array("i")
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    if not hasattr(socket, "MSG_CMSG_CLOEXEC"):
        for descriptor in found:
            os.set_inheritable(descriptor, False)
    return found.tolist()


def _parcel(message: bytes, descriptors: list[int], flags: int) -> Parcel | None:
    """None if it did not come whole."""
    if len(message) < _NOTE.size or flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        return None
    count, errand, reset, offset, size, began = _NOTE.unpack_from(message)
    if not descriptors or count != len(descriptors):
        return None
    with contextlib.suppress(ValueError):
        file = descriptors[1] if count > 1 else -1
        data = message[_NOTE.size :]
        return Parcel(descriptors[0], Errand(errand), data, file, offset, size, began, bool(reset))
    return None
