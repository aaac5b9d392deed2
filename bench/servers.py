"""A server under test: a command, where it answers, and its life from the first answer to its end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from bench.cpu import tree_cpu
from bench.plan import HERE

_VARIABLES = (
    "CONTENT_LENGTH 0 SCGI 1 REQUEST_METHOD GET REQUEST_URI / SCRIPT_NAME  PATH_INFO / QUERY_STRING  "
    "SERVER_NAME localhost SERVER_PORT 80 SERVER_PROTOCOL HTTP/1.1 REMOTE_ADDR 127.0.0.1 "
)
_HEAD = _VARIABLES.replace(" ", "\0").encode()
QUESTIONS = {
    "scgi": b"%d:%b," % (len(_HEAD), _HEAD),
    "http": b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n",
    "none": b"",  # it answers when it can be connected to
}


class Missing(Exception):
    """A server that cannot take part, and why, in one sentence. The report says it in its place."""


@dataclass
class Server:
    """One server. `ours` cannot be left out: if it does not start, the run ends."""

    name: str
    command: Sequence[str]
    address: str  # the path of a unix socket, or HOST:PORT
    cwd: Path = HERE
    env: dict[str, str] = field(default_factory=dict)
    version: str = ""
    missing: str = ""  # why it cannot be started, if that is known beforehand
    protocol: str = "scgi"  # in which it is asked whether it is there: scgi, http, none
    ours: bool = False
    every: int = 1  # takes part in every so many rounds only: the dearer ones need not be known as exactly
    stop_signal: int = signal.SIGINT  # TERM means reload to uWSGI
    within: float = 20.0  # seconds until the first answer
    poll: float = 0.02  # seconds between two looks whether it answers
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    log: IO[bytes] | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} is not running"
        return self.process.pid

    def cpu(self) -> float:
        """CPU seconds of the whole process tree so far."""
        return tree_cpu(self.pid)

    def start(self) -> None:
        """Start it and wait for its first answer. Raises Missing if it is not installed, or does not answer in time."""
        if self.missing or shutil.which(self.command[0]) is None:
            raise Missing(f"{self.name} is left out: {self.missing or self.command[0] + ' is not installed'}.")
        self.log = tempfile.TemporaryFile()
        environ = os.environ | {"SCGI_ALLOW_ROOT": "yes"} | self.env  # as root the others do not ask either
        self.process = subprocess.Popen(
            self.command, cwd=self.cwd, env=environ, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + self.within
        while not self.answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                said = self.said()
                self.stop()
                raise Missing(f"{self.name} is left out: it does not start.\n{said}")
            time.sleep(self.poll)

    def answers(self) -> bool:
        """Whether it answers a request now; anything counts as an answer."""
        question = QUESTIONS[self.protocol]
        try:
            with connect(self.address) as sock:
                sock.sendall(question)
                return not question or bool(sock.recv(1))
        except OSError:
            return False

    def send_signal(self, signum: int) -> None:
        assert self.process is not None, f"{self.name} is not running"
        self.process.send_signal(signum)

    def said(self) -> str:
        """The last lines of its log."""
        if self.log is None:
            return ""
        self.log.seek(max(0, self.log.seek(0, os.SEEK_END) - 4000))
        return self.log.read().decode(errors="replace")

    def stop(self) -> None:
        """End it and whatever it has started."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # it leads its own session; what is left of it goes too
        self.process.wait()
        self.process = None
        if self.log is not None:
            self.log.close()
            self.log = None


def connect(address: str, seconds: float = 5.0) -> socket.socket:
    """A socket connected to a path, or to HOST:PORT. Raises OSError."""
    if "/" in address:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(seconds)
        try:
            sock.connect(address)
        except OSError:
            sock.close()
            raise
        return sock
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), seconds)


def free_port() -> str:
    """127.0.0.1:PORT where nobody listens at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


@contextmanager
def running(
    servers: Sequence[Server], strict: bool = False, apart: bool = False
) -> Iterator[tuple[list[Server], list[str]]]:
    """All that can be started, and a sentence for each that cannot; they end with the block.

    One of ours that does not start raises Missing, and with `strict` any. With `apart` the servers run on the last CPU
    and what loads them on the others: fewer ways for the kernel to place them, so fewer rounds until it is known.
    """
    cpus = os.sched_getaffinity(0)
    if apart and len(cpus) > 1:
        os.sched_setaffinity(0, {max(cpus)})
    started: list[Server] = []
    notes: list[str] = []
    try:
        for server in servers:
            try:
                server.start()
            except Missing as error:
                if server.ours or strict:
                    raise
                notes.append(str(error).splitlines()[0])
            else:
                started.append(server)
        if apart and len(cpus) > 1:
            os.sched_setaffinity(0, cpus - {max(cpus)})
        yield started, notes
    finally:
        os.sched_setaffinity(0, cpus)
        for server in started:
            server.stop()


def end_on_term() -> None:
    """TERM ends this program with status 143, by way of all that has to be stopped; a second one does not disturb."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(143)

    signal.signal(signal.SIGTERM, end)
