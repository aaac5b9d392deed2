"""The connection that `handle_connection` gets: a socket that holds exactly one request and takes one response.

The request was read and judged before; here it is to be read once more, as if it came from the web server: its
head, its body, then end of file, whatever is asked for. What is sent is judged as a CGI response and goes out at once.

Imports its neighbours only.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from scgi.apps.output import Output


class Connection(socket.socket):
    """A socket over a duplicate of the worker's descriptor; the worker's own is closed by the worker.

    `response` is the same response as a file, for `SCGIHandler.handle_connection`.
    """

    def __init__(self, fd: int, head: bytes, body: Any, response: Output) -> None:
        super().__init__(fileno=os.dup(fd))
        self.response = response
        self._ahead = memoryview(head)
        self._body = body
        self._over = False

    def _take(self, size: int, flags: int) -> memoryview:
        if not self._ahead:
            self._ahead = memoryview(self._body.read1(size))
        data = self._ahead[:size]
        if not flags & socket.MSG_PEEK:
            self._ahead = self._ahead[size:]
        return data

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        return bytes(self._take(bufsize, flags))

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        view = memoryview(buffer).cast("B")
        data = self._take(nbytes or len(view), flags)
        view[: len(data)] = data
        return len(data)

    def send(self, data: Any, flags: int = 0) -> int:
        view = memoryview(data).cast("B")
        if not self._over:  # what a file of the program still held when its request was over goes nowhere
            self.response.write(view)
            self.response.flush()
        return len(view)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.send(data)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        if offset:
            file.seek(offset)
        sent = 0
        while block := file.read(65536 if count is None else min(65536, count - sent)):
            sent += self.send(block)
        return sent

    def makefile(self, mode: Any = "r", buffering: Any = None, **options: Any) -> Any:
        """As `socket.makefile`; text files are Latin-1 without newline translation, so that no byte raises or shrinks.

        (`int(env['CONTENT_LENGTH'])` characters are then as many bytes.)
        """
        if "b" not in mode:
            options = {"encoding": "latin-1", "newline": "\n"} | {k: v for k, v in options.items() if v is not None}
        return super().makefile(mode, buffering, **options)

    def shutdown(self, how: int) -> None:
        if not self.response.waiting:  # else it is done when the peer has taken the rest
            super().shutdown(how)

    def _real_close(self, *args: Any) -> None:
        """The program has closed the socket and all its files: the peer sees the end of the answer now."""
        if not self._over:
            self.response.close()
            if self.response.begun and not self.response.waiting:
                with contextlib.suppress(OSError):
                    self.shutdown(socket.SHUT_WR)
        self.give_back()

    def give_back(self) -> None:
        """The request is over for this socket, whatever the program left open."""
        self._over = True
        if self.fileno() >= 0:
            os.close(self.detach())
