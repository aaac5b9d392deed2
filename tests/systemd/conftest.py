"""A service manager for tests: it holds sockets, starts the server as systemd does, and listens to what it says."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scgi.net.queue import queue_length
from support import Process

# What happens between systemd's fork and the service: sockets at 3 and up, and the process's own number.
AS_SYSTEMD = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 100) for fd in sys.argv[1].split(",") if fd]
for number, fd in enumerate(fds, 3):
    os.dup2(fd, number, inheritable=True)
    os.close(fd)
if fds:
    names = ":".join(["hello"] * len(fds))
    os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names, LISTEN_PID=str(os.getpid()))
if "WATCHDOG_USEC" in os.environ:
    os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execvp(sys.argv[2], sys.argv[2:])
"""


_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group


class Manager:
    """``said`` has every message that was heard so far."""

    def __init__(self, folder: Path, launch: Callable[..., Process]) -> None:
        self.said: list[dict[str, str]] = []
        self.folder = folder
        self.runtime = folder / "runtime"  # RuntimeDirectory=
        self.runtime.mkdir(mode=0o755)
        self._launch = launch
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._notify.bind(str(folder / "notify"))
        os.chmod(folder / "notify", 0o777)
        self.speakers: set[int] = set()  # the processes that have said something
        self._sockets: list[socket.socket] = []

    def listen(self, name: str = "hello.sock") -> str:
        """A socket as a .socket unit makes it: it is there before the service, and after it."""
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(self.folder / name))
        sock.listen(2048)
        self._sockets.append(sock)
        return f"unix:{self.folder / name}"

    def waiting(self, address: str) -> int | None:
        """How many connections wait in a socket of ours."""
        return next(queue_length(sock) for sock in self._sockets if sock.getsockname() == address[len("unix:") :])

    def start(self, *command: str | Path, watchdog: float | None = None, **options: object) -> Process:
        """Start a service with all sockets so far; ``watchdog`` is WatchdogSec=."""
        environ = {"NOTIFY_SOCKET": str(self.folder / "notify"), "RUNTIME_DIRECTORY": str(self.runtime)}
        if watchdog is not None:
            environ["WATCHDOG_USEC"] = str(int(watchdog * 1_000_000))
        environ |= options.pop("env", {})
        numbers = [sock.fileno() for sock in self._sockets]
        return self._launch(
            "-c", AS_SYSTEMD, ",".join(map(str, numbers)), *command, env=environ, pass_fds=numbers, **options
        )

    def hear(self, within: float = 10) -> dict[str, str]:
        """The next message."""
        self._notify.settimeout(within)
        try:
            return self._take()
        except TimeoutError:
            pytest.fail(f"nothing was said for {within:g} s; before: {self.said}")

    def _take(self) -> dict[str, str]:
        text, ancillary, *_ = self._notify.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
        self.speakers.add(_CREDENTIALS.unpack(ancillary[0][2])[0])
        message = dict(line.split("=", 1) for line in text.decode().splitlines())
        self.said.append(message)
        return message

    def hear_of(self, key: str, within: float = 15) -> dict[str, str]:
        """The next message about this."""
        deadline = time.monotonic() + within
        while True:
            message = self.hear(max(0.01, deadline - time.monotonic()))
            if key in message:
                return message

    def rest(self) -> list[dict[str, str]]:
        """What was said and not heard yet."""
        before = len(self.said)
        self._notify.setblocking(False)
        try:
            while True:
                self._take()
        except BlockingIOError:
            return self.said[before:]

    def close(self) -> None:
        for sock in (self._notify, *self._sockets):
            sock.close()


@pytest.fixture
def manager(short_tmp: Path, launch: Callable[..., Process]) -> Iterator[Manager]:
    manager = Manager(short_tmp, launch)
    yield manager
    manager.close()
