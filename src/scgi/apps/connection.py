"""The connection that a `handle_connection` override gets: a socket that holds exactly one request.

The request was read and judged before; here it is to be read once more, as if it came from the web server: its
head, its body, then end of file, whatever is asked for. What is written goes straight to the peer.

Imports `errors` only.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any


class Connection(socket.socket):
    """A socket over a duplicate of the worker's descriptor; the worker's own is closed by the worker."""

    def __init__(self, fd: int, head: bytes, body: Any) -> None:
        super().__init__(fileno=os.dup(fd))
        self.setblocking(True)
        self._request = memoryview(head)
        self._body = body
        self.begun = False  # something was sent
        self.finished = False  # the program has closed it

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: nbytes or len(view)]
        if self._request:
            count = min(len(view), len(self._request))
            view[:count] = self._request[:count]
            if not flags & socket.MSG_PEEK:
                self._request = self._request[count:]
            return count
        data = self._body.read1(len(view))
        view[: len(data)] = data
        return len(data)

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        buffer = bytearray(bufsize)
        return bytes(buffer[: self.recv_into(buffer, bufsize, flags)])

    def send(self, data: Any, flags: int = 0) -> int:
        self.begun = True
        return super().send(data, flags)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.begun = True
        super().sendall(data, flags)

    def makefile(self, mode: Any = "r", buffering: Any = None, **options: Any) -> Any:
        """As `socket.makefile`; text files are Latin-1 without newline translation, so that no byte raises or shrinks.

        (`int(env['CONTENT_LENGTH'])` characters are then as many bytes.)
        """
        if "b" not in mode:
            options = {"encoding": "latin-1", "newline": "\n"} | {k: v for k, v in options.items() if v is not None}
        return super().makefile(mode, buffering, **options)

    def _real_close(self, *args: Any) -> None:
        """The program has closed the socket and all its files: the peer sees the end of the answer now."""
        self.give_back(whole=True)

    def give_back(self, whole: bool) -> None:
        """The request is over, whatever the program left open; `whole` tells the peer that this was all."""
        if self.finished:
            return
        self.finished = True
        if whole:
            with contextlib.suppress(OSError):
                self.shutdown(socket.SHUT_WR)
        os.close(self.detach())
