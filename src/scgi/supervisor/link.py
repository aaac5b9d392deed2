"""The link between the master and a pool: a socket pair, one JSON object a line, nobody ever waits for it.

The pool's side may be the application's by then, so the master trusts nothing that comes: what is no small JSON object
ends the link. Imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any, Final

_LONGEST: Final = 1 << 20  # bytes of a message
_READ: Final = 65536


class LinkLost(ConnectionError):
    """The other end is gone, or talks nonsense."""


class Link:
    """One end. Messages that find no room wait here and go with the next `say` or `flush`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._out = b""
        self._in = b""
        sock.setblocking(False)

    @classmethod
    def pair(cls) -> tuple[Link, Link]:
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self.sock.fileno()

    def say(self, **message: Any) -> None:
        """Send a message; if the other end is gone, that is noticed by `hear`."""
        self._out += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Send what waits; True if nothing is left."""
        try:
            while self._out:
                self._out = self._out[self.sock.send(self._out) :]
        except BlockingIOError:
            return False
        except OSError:
            self._out = b""
        return True

    def hear(self) -> list[dict[str, Any]]:
        """The messages that have come. Raises `LinkLost`, after all of them have been heard."""
        data = b""
        try:
            while data := self.sock.recv(_READ):
                self._in += data
                if len(self._in) > _LONGEST:
                    break
        except BlockingIOError:
            data = b"more may come"
        except OSError:
            pass
        *lines, self._in = self._in.split(b"\n")
        if not lines and (not data or len(self._in) > _LONGEST):
            raise LinkLost("the other end of the link is gone")
        return [_message(line) for line in lines]

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()


def _message(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise LinkLost(f"expected a JSON object on the link, got {line[:80]!r}")
    return found
