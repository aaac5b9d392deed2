"""An SCGI server that can be killed and started again: `echo_server.py ADDRESS`. It says which path was asked for."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from contextlib import suppress


def talk(peer: socket.socket) -> None:
    with peer:
        received = b""
        while b":" not in received:
            if not (data := peer.recv(65536)):
                return
            received += data
        digits, _, rest = received.partition(b":")
        while len(rest) <= int(digits):
            if not (data := peer.recv(65536)):
                return
            rest += data
        items = rest[: int(digits)].split(b"\0")
        variables = dict(zip(items[:-1:2], items[1::2], strict=True))
        left = int(variables[b"CONTENT_LENGTH"]) - (len(rest) - int(digits) - 1)
        while left > 0:
            if not (data := peer.recv(65536)):
                return
            left -= len(data)
        body = variables[b"PATH_INFO"]
        if body.startswith(b"/slow/"):
            time.sleep(0.7)
        # In one piece: who dies here has said nothing or all.
        peer.sendall(b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def listen(address: str) -> socket.socket:
    if not address.startswith("unix:"):
        return socket.create_server(("127.0.0.1", int(address.rpartition(":")[2])), backlog=500)
    path = address.removeprefix("unix:")
    with suppress(FileNotFoundError):
        os.unlink(path)  # of one that was killed
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chmod(path, 0o777)
    listener.listen(500)
    return listener


def serve(address: str) -> None:
    with listen(address) as listener:
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=talk, args=(peer,), daemon=True).start()


if __name__ == "__main__":
    serve(sys.argv[1])
