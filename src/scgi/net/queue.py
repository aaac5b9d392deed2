"""How many connections wait in a listener's queue, asked from the kernel (Linux; None elsewhere).

Unix sockets tell over netlink (sock_diag(7), UDIAG_SHOW_RQLEN), TCP listeners in TCP_INFO. Imports nothing of ours.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST: Final = 1
_UDIAG_SHOW_RQLEN: Final = 0x10
_UNIX_DIAG_RQLEN: Final = 4
_ANY: Final = 0xFFFFFFFF
_HEADER: Final = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_REQUEST: Final = struct.Struct("=BBHIIIII")  # unix_diag_req: family, protocol, -, states, inode, show, cookie
_MESSAGE_SIZE: Final = _HEADER.size + 16  # what precedes the attributes in the answer (unix_diag_msg)
_TCP_INFO_UNACKED: Final = 24  # of a listener: connections that wait (tcpi_unacked in struct tcp_info)


def queue_length(listener: socket.socket) -> int | None:
    """Connections that are established and wait to be accepted; None where the system does not tell."""
    try:
        if listener.family == socket.AF_UNIX:
            return _unix_queue(os.fstat(listener.fileno()).st_ino)
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_UNACKED + 4)
        return int.from_bytes(info[_TCP_INFO_UNACKED:], "little" if struct.pack("=H", 1)[0] else "big")
    except (AttributeError, OSError, struct.error):
        return None


def _unix_queue(inode: int) -> int | None:
    request = _REQUEST.pack(socket.AF_UNIX, 0, 0, _ANY, inode, _UDIAG_SHOW_RQLEN, _ANY, _ANY)
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(0.1)
        kernel.send(header + request)
        answer = kernel.recv(4096)
    size, kind, *_ = _HEADER.unpack_from(answer)
    if kind != _SOCK_DIAG_BY_FAMILY:
        return None
    place = _MESSAGE_SIZE
    while place + 4 <= min(size, len(answer)):
        length, attribute = struct.unpack_from("=HH", answer, place)
        if attribute == _UNIX_DIAG_RQLEN:
            waiting: int = struct.unpack_from("=I", answer, place + 4)[0]
            return waiting
        place += max(4, (length + 3) & ~3)
    return None
