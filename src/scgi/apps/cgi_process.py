"""A CGI program that runs: how it is started, fed, heard and ended.

It is started by `posix_spawn`, so it costs the same whatever the size of this process, in a process group of its own,
so that it can be ended with all that it has started. Imports `net`, `status`, `errors`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from scgi.errors import RequestTimeout
from scgi.net.stream import PeerGone

log = logging.getLogger("scgi.cgi")

BLOCK: Final = 65536  # bytes that are read at once, and what a pipe holds
_PAUSE: Final = 20  # milliseconds without more of the answer: what is here goes out
_TICK: Final = 50  # milliseconds, where the system cannot say when a process ends
_TO_LEAVE: Final = 2.0  # seconds from TERM to KILL
_HALF_GONE: Final = 2.0  # seconds: TCP does not tell a client that has left from one that has ended its side
_LINE: Final = 8192  # bytes of a line of standard error
_RDHUP: Final = getattr(select, "POLLRDHUP", 0)
_GONE: Final = select.POLLHUP | select.POLLERR
# What we ignore or block, a program should not.
_SIGNALS: Final = [
    number
    for name in ("HUP", "INT", "QUIT", "PIPE", "TERM", "USR1", "USR2", "CHLD", "URG", "WINCH", "XFSZ")
    if (number := getattr(signal, f"SIG{name}", None)) is not None
]


class Feed:
    """The request's body on its way into the program: what is in memory, then what still comes from the peer.

    `more` is a file whose `read1` gives what the peer has sent, `left` bytes in all.
    """

    def __init__(self, first: bytes | memoryview, more: Any = None, left: int = 0) -> None:
        self.waiting = memoryview(first)
        self.more: Any = more if left else None
        self.left = left

    def write(self, into: int) -> bool:
        """Some more of it, without waiting; False once there is none, or nobody who wants it."""
        try:
            while self.waiting:
                self.waiting = self.waiting[os.write(into, self.waiting) :]
        except BlockingIOError:
            return True
        except OSError:
            return False
        return self.more is not None

    def read(self) -> None:
        """What the peer has sent. Raises what the body's own file raises."""
        self.waiting = memoryview(self.more.read1(BLOCK))
        self.left -= len(self.waiting)
        if not self.left or not self.waiting:
            self.more = None


class CgiProcess:
    """One program. OSError if it cannot be started. `close` whatever happens.

    `stdin` is a descriptor, or None for what a `Feed` brings.
    """

    def __init__(
        self,
        path: str,
        folder: str,
        arguments: Sequence[str | bytes],
        environ: Mapping[bytes, bytes],
        stdin: int | None,
    ) -> None:
        self.name = os.path.basename(path)
        self.status: int | None = None  # as waitpid has it
        self._begun = b""  # a line of standard error
        opened: list[int] = []
        self._opened = opened
        self.into = self.pidfd = -1
        try:
            if stdin is None:
                stdin, self.into = os.pipe()
                opened += (stdin, self.into)
                os.set_blocking(self.into, False)
            self.out, out = os.pipe()
            opened += (self.out, out)
            self.err, err = os.pipe()
            opened += (self.err, err)
            os.set_blocking(self.err, False)
            here = os.open(".", os.O_RDONLY | os.O_CLOEXEC)
            opened.append(here)
            os.chdir(folder)
            try:
                self.pid = os.posix_spawn(
                    path,
                    (path, *arguments),
                    environ,
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, stdin, 0),
                        (os.POSIX_SPAWN_DUP2, out, 1),
                        (os.POSIX_SPAWN_DUP2, err, 2),
                    ],
                    setpgroup=0,
                    setsigmask=(),
                    setsigdef=_SIGNALS,
                )
            finally:
                os.fchdir(here)
            for ours in (out, err, here, stdin if self.into >= 0 else -1):
                self._close(ours)
            with contextlib.suppress(AttributeError, OSError):
                self.pidfd = os.pidfd_open(self.pid)
                opened.append(self.pidfd)
        except BaseException:
            self._close_all()
            raise

    def output(self, feed: Feed | None, peer: int, patience: float) -> Iterator[bytes | None]:
        """What it writes, as it comes: an empty block when it pauses, None if it has closed its standard output and
        goes on.

        Until it has ended; whoever else holds its standard output does not count. Raises `RequestTimeout` when
        neither body nor answer has moved for `patience` seconds (0: for ever), `PeerGone` when the client has left,
        and what a body that breaks off raises.
        """
        poller = select.poll()
        watch = _RDHUP if _is_tcp(peer) else 0  # a unix socket tells who has left from who has ended its side
        poller.register(peer, watch)
        for fd in (self.out, self.err, self.pidfd):
            if fd >= 0:
                poller.register(fd, select.POLLIN)
        self._turn(poller, feed, peer, watch)
        still = time.monotonic()
        half_gone = 0.0
        held = False
        while self.status is None:
            wait = _PAUSE if held else 1000 if self.pidfd >= 0 else _TICK
            if patience:
                wait = min(wait, max(1, int(1000 * (still + patience - time.monotonic()))))
            ready = poller.poll(wait)
            if not ready and held:
                held = False
                yield b"" if self.out >= 0 else None
            if patience and time.monotonic() - still >= patience:
                raise RequestTimeout(f"{self.name} gave no sign of life for {patience:g} s, so it was ended")
            for fd, event in ready:
                if fd == self.out:
                    if block := os.read(fd, BLOCK):
                        held, still = True, time.monotonic()
                        yield block
                    else:
                        for over in (fd, peer):  # nobody will leave because of what still comes
                            poller.unregister(over)
                        self._close(fd)
                        self.out, held = -1, True
                elif fd == self.err:
                    self._hear(poller)
                elif fd == self.into or (fd == peer and event & select.POLLIN and feed is not None and feed.more):
                    assert feed is not None
                    if fd == peer:
                        feed.read()
                    else:
                        poller.unregister(fd)
                    self._turn(poller, feed, peer, watch)
                    still = time.monotonic()
                elif fd == peer and event & _GONE:
                    raise PeerGone("the client has left")
                elif fd == peer and event & _RDHUP:
                    half_gone = half_gone or time.monotonic() + _HALF_GONE
                    poller.modify(peer, 0)
            if half_gone and time.monotonic() > half_gone:
                raise PeerGone("the client has left")
            if self.pidfd < 0 or (ready and any(fd == self.pidfd for fd, _ in ready)):
                self._reap(os.WNOHANG)
        self._hear(None)
        if self.out >= 0:
            os.set_blocking(self.out, False)
            with contextlib.suppress(BlockingIOError):
                while block := os.read(self.out, BLOCK):
                    yield block

    def _turn(self, poller: select.poll, feed: Feed | None, peer: int, watch: int) -> None:
        """Write of the body what there is room for, and wait for room or for more of it."""
        if self.into < 0:
            return
        if feed is not None and feed.write(self.into):
            if feed.waiting:
                poller.register(self.into, select.POLLOUT)
                self._watch(poller, peer, 0 if feed.more else watch)
            else:
                self._watch(poller, peer, select.POLLIN)
            return
        if feed is not None:
            feed.more = None
        self._close(self.into)
        self.into = -1
        self._watch(poller, peer, watch)

    def _watch(self, poller: select.poll, peer: int, events: int) -> None:
        if self.out >= 0:
            poller.modify(peer, events)

    def _hear(self, poller: select.poll | None) -> None:
        """Log what it says on standard error, line by line; at the end also a line that was not finished."""
        try:
            while self.err >= 0 and (data := os.read(self.err, BLOCK)):
                *lines, self._begun = (self._begun + data).split(b"\n")
                if len(self._begun) > _LINE:
                    lines, self._begun = [*lines, self._begun], b""
                for line in lines:
                    self._say(line)
                if poller is not None:
                    return
            if poller is not None and self.err >= 0:
                poller.unregister(self.err)
                self._close(self.err)
                self.err = -1
        except BlockingIOError:
            pass
        if poller is None and self._begun:
            self._say(self._begun)
            self._begun = b""

    def _say(self, line: bytes) -> None:
        if line.strip():
            log.error("%s: %s", self.name, line[:_LINE].decode(errors="backslashreplace").rstrip("\r"))

    def _reap(self, options: int) -> None:
        if self.status is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.status = status

    def ending(self) -> str:
        """How it ended, for a sentence; "" if that was as it should be."""
        if self.status is None or self.status == 0:
            return ""
        code = os.waitstatus_to_exitcode(self.status)
        return f"exit status {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"

    @property
    def was_killed(self) -> bool:
        return self.status is not None and os.WIFSIGNALED(self.status)

    def end(self) -> None:
        """TERM for it and whatever it has started; KILL for those who do not heed it within two seconds."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + _TO_LEAVE
        poller = select.poll()
        if self.pidfd >= 0:
            poller.register(self.pidfd, select.POLLIN)
        while self.status is None and (left := deadline - time.monotonic()) > 0:
            poller.poll(int(left * 1000) + 1 if self.pidfd >= 0 else _TICK)
            self._reap(os.WNOHANG)
        self._signal(signal.SIGKILL)
        self._reap(0)
        self._hear(None)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def close(self) -> None:
        """Let go of its pipes; it must have ended."""
        self._close_all()

    def _close(self, fd: int) -> None:
        if fd >= 0:
            self._opened.remove(fd)
            os.close(fd)

    def _close_all(self) -> None:
        for fd in self._opened:
            os.close(fd)
        self._opened.clear()


def lead_session() -> None:
    """This process becomes one by whose session its programs can be found when it is gone."""
    with contextlib.suppress(PermissionError):  # it is one already
        os.setsid()


def end_session(leader: int) -> None:
    """A process that led a session has died: kill the programs that it was running (Linux)."""
    with contextlib.suppress(OSError):
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                with contextlib.suppress(OSError):
                    if os.getsid(int(entry)) == leader:
                        os.kill(int(entry), signal.SIGKILL)


def _is_tcp(fd: int) -> bool:
    sock = socket.socket(fileno=fd)
    family = sock.family
    sock.detach()
    return family != socket.AF_UNIX
