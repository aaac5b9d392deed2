"""Refusing new connections at a listener while those that wait in its queue are still accepted.

Linux has a way for unix sockets (`shutdown`), and none for TCP: there a socket filter drops the first packet of every
new connection, so that its peer is refused when the listener closes a moment later. Where the system does not allow
the filter, the queue is made as short as can be. Imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
from typing import Final

_SO_ATTACH_FILTER: Final = 26
_TCP_FLAGS: Final = 13  # offset in the header
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
# A classic BPF program, (code, jump if true, jump if false, value): drop what has SYN set, and neither ACK nor RST.
_DROP_NEW: Final = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, _TCP_FLAGS),  # load the byte
        (0x54, 0, 0, _SYN | _RST | _ACK),  # and
        (0x15, 0, 1, _SYN),  # equal?
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
    )
)


def refuse_new(sock: socket.socket) -> bool:
    """Close the door of a listener that is ours alone; its `accept` does not block any more.

    False if connections can still come in, one at a time.
    """
    if sock.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RD)
        return True
    shut = _drop_new(sock)
    if not shut:
        sock.listen(0)
    sock.setblocking(False)
    return shut


def _drop_new(sock: socket.socket) -> bool:
    if sys.platform != "linux":
        return False
    code = ctypes.create_string_buffer(_DROP_NEW, len(_DROP_NEW))
    program = struct.pack("@HP", len(_DROP_NEW) // 8, ctypes.addressof(code))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except OSError:
        return False
    return True
