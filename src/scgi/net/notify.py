"""What systemd is told about the service, and how often it wants to hear that we are alive (sd_notify(3)).

Where systemd did not ask (no NOTIFY_SOCKET), every call does nothing. Nothing here waits or raises: a service manager
that does not listen is no reason to serve worse. Imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import MutableMapping
from typing import Final

_KEPT: Final = 16  # messages that found no room; more are not worth keeping


class Notifier:
    """Speaks for the main process. Takes the variables out of the environment, so that no child speaks too."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._path = _socket_path(environ.pop("NOTIFY_SOCKET", ""))
        self._unsent: deque[bytes] = deque(maxlen=_KEPT)
        self._socket: socket.socket | None = None
        if self._path:
            with contextlib.suppress(OSError):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
        #: Seconds after which `alive` is to be called again: half of what systemd allows. None: it does not ask.
        self.watchdog_interval = _watchdog_interval(environ) if self._socket else None

    def __bool__(self) -> bool:
        """Whether somebody wants to know."""
        return self._socket is not None

    def ready(self, status: str = "") -> None:
        """The service serves: after its start, and at the end of every reload, however that went."""
        self._send("READY=1", *_status(status))

    def reloading(self, status: str = "") -> None:
        """A reload begins. `ready` has to follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", *_status(status))

    def stopping(self, status: str = "") -> None:
        """The service begins to end."""
        self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self._send(*_status(text))

    def extend(self, seconds: float) -> None:
        """Starting, reloading or stopping takes longer: systemd is to wait this long from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def alive(self) -> None:
        """The main loop turns. To be called at least every `watchdog_interval` seconds."""
        if self.watchdog_interval is not None:
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """For a process that was forked: it is not the one to speak. After this every call does nothing."""
        if self._socket is not None:
            self._socket.close()
        self._socket = self.watchdog_interval = None

    def _send(self, *lines: str) -> None:
        """Send a message; what finds no room goes before the next one."""
        if self._socket is None or not lines:
            return
        self._unsent.append("\n".join(lines).encode("utf-8", "replace"))
        while self._unsent:
            try:
                self._socket.sendto(self._unsent[0], self._path)
            except BlockingIOError:
                return
            except OSError:  # nobody is there (any more)
                pass
            self._unsent.popleft()


def _socket_path(text: str) -> str:
    """A path, or a name in the abstract namespace; other kinds (vsock) are not for us."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""


def _watchdog_interval(environ: MutableMapping[str, str]) -> float | None:
    period, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
    if pid not in ("", str(os.getpid())) or not (period.isascii() and period.isdigit() and int(period)):
        return None
    return int(period) / 2_000_000


def _status(text: str) -> tuple[str, ...]:
    """One line, whatever is in the text."""
    return (f"STATUS={' '.join(text.split())}",) if text else ()
