"""Refusing new connections at a listener while those that wait in its queue are still accepted.

Linux has a way for unix sockets (`shutdown`), and none for TCP: there a socket filter drops the first packet of every
new connection, so that its peer is refused when the listener closes a moment later. Where the system does not allow
the filter, the queue is made as short as can be; a moment later, because whoever is half-way in would stay there: what
the kernel has not yet put into the queue when it is short is lost, though its peer takes it for connected.
Imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
import time
from typing import Final

_HALF_WAY: Final = 0.02  # seconds until a busy kernel has brought in whoever is on the way
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

    False if connections can still come in: then `let_few_in` is next.
    """
    if sock.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RD)
        return True
    sock.setblocking(False)
    return _drop_new(sock)


def let_few_in(socks: list[socket.socket]) -> None:
    """Connections come in one at a time from now on, at the doors that cannot be shut."""
    if socks:
        time.sleep(_HALF_WAY)
    for sock in socks:
        sock.listen(0)


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
