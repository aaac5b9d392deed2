"""Descriptors passed between processes over unix sockets: the reference's C module, in Python.

Nothing inside imports this file.
"""

from __future__ import annotations

import os
import socket

__all__ = ["recvfd", "sendfd", "socketpair"]


def socketpair(family: int | None = None, type: int = socket.SOCK_STREAM, proto: int = 0) -> tuple[int, int]:
    """Two connected sockets, as descriptors; unix sockets where there are any."""
    one, other = socket.socketpair(family, type, proto)
    return one.detach(), other.detach()


def sendfd(sockfd: int, fd: int) -> None:
    """Send the descriptor `fd` over the unix socket `sockfd`, with one byte. Raises OSError."""
    with socket.socket(fileno=os.dup(sockfd)) as sock:
        socket.send_fds(sock, [b"\0"], [fd])


def recvfd(sockfd: int) -> int:
    """Receive a descriptor that `sendfd` sent. Raises OSError at end of file or if none came along."""
    with socket.socket(fileno=os.dup(sockfd)) as sock:
        data, fds, _, _ = socket.recv_fds(sock, 1, 1)
    if not fds:
        raise OSError("no descriptor came: " + ("the byte was alone" if data else "end of file"))
    os.set_inheritable(fds[0], False)
    return fds[0]
