"""One place that lines go to: a file, a pipe, a terminal, a socket; whatever state that is in, nobody waits for it.

What cannot be written is counted, for each process and for all together. Imports the standard library only.
"""

from __future__ import annotations

import logging
import mmap
import os
import select
import socket
import stat
import struct
import time
from typing import Final

log = logging.getLogger("scgi")

PATIENCE: Final = 0.02  # seconds in each second; a request must not be slower by more than 50 ms for its log lines
# Lines that could not be written, by the process's number: all processes that are forked from here share them.
_LOST: Final = mmap.mmap(-1, mmap.PAGESIZE)
_NUMBER: Final = struct.Struct("=Q")
_CELLS: Final = mmap.PAGESIZE // _NUMBER.size


class Sink:
    """One place that lines go to, held by a descriptor whose number never changes.

    `path` is a file to append to; None takes over the descriptor given, standard error or output, as it is.
    """

    def __init__(self, path: str | None = None, descriptor: int = 2) -> None:
        self.path = path
        self.dropped = 0  # lines, by this process
        self._untold = 0  # of them
        self._tell_at = 0.0  # when that may be said again (monotonic seconds)
        self._pid = 0  # whose lines these are
        self._second = self._left = 0.0  # when it last began to wait anew, and how much of that is left
        self._torn = False  # the last write was cut in mid-line: the next one begins with a line end
        self._stuck = False  # the last write found no room, or failed: the next one does not wait
        self._socket: socket.socket | None = None
        self._guarded = False
        self._name = path or {1: "standard output", 2: "standard error"}.get(descriptor, "the log")
        self.descriptor = descriptor if path is None else _open(path)
        if path is None:
            self._take_over(descriptor)

    def _take_over(self, descriptor: int) -> None:
        """A descriptor shared with others must not be made non-blocking: that is done to another opening."""
        try:
            kind = os.fstat(descriptor).st_mode
        except OSError:  # closed; its number will soon be something else's
            self.descriptor = _open(os.devnull)
            return
        if stat.S_ISSOCK(kind):
            self._socket = socket.socket(fileno=os.dup(descriptor))
        elif stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
            try:
                self.descriptor = _open(f"/proc/self/fd/{descriptor}")
            except OSError:  # another user's terminal, or no /proc
                self._guarded = True

    def write(self, line: str) -> None:
        """Write a line. Never raises; waits for a full pipe once, briefly, then not until it has emptied."""
        rest = (line + "\n").encode("utf-8", "backslashreplace")
        if self._torn:
            rest = b"\n" + rest
        whole = len(rest)
        while True:
            rest = rest[self._send(rest) :]
            if not rest:
                self._torn = self._stuck = False
                if self._untold:
                    self._tell()
                return
            if self._stuck or not self._wait():
                break
        self.drop()
        self._torn = self._torn or len(rest) < whole

    def drop(self) -> None:
        """Count a line that is lost."""
        if self._pid != (pid := os.getpid()):  # what was lost before the fork is the parent's to tell
            self._pid, self.dropped, self._untold = pid, 0, 0
        self.dropped += 1
        self._untold += 1
        _NUMBER.pack_into(_LOST, _place(pid), (_lost(pid) + 1) % 2**64)

    def _tell(self) -> None:
        """There is room again: say in the log how many lines are missing here."""
        if self._pid != (pid := os.getpid()):
            self._untold = 0
        elif (now := time.monotonic()) >= self._tell_at:
            self._tell_at = now + 1.0
            count, self._untold = self._untold, 0
            before = _lost(pid)
            log.error("log lines lost: %d that this process could not write to %s", count, self._name)
            if _lost(pid) != before:
                self._untold += count

    def _wait(self) -> bool:
        """For room. However many lines there are, and however slowly room is made, not long in each second."""
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._second, self._left = now, PATIENCE
        self._stuck = self._left <= 0 or not self._has_room(self._left)
        self._left -= time.monotonic() - now
        return not self._stuck

    def _send(self, data: bytes) -> int:
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT)
            if self._guarded and not self._has_room(0):
                return 0
            return os.write(self.descriptor, data)
        except BlockingIOError:
            return 0
        except (OSError, ValueError):  # disk full, pipe closed: no use waiting
            self._stuck = True
            return 0

    def _has_room(self, seconds: float) -> bool:
        try:
            return bool(select.select((), (self._socket or self.descriptor,), (), max(seconds, 0))[1])
        except (OSError, ValueError):
            return False

    def reopen(self) -> bool:
        """Open the path anew behind the same number; the old file stays in use if that fails."""
        if self.path is None:
            return True
        try:
            fresh = _open(self.path)
        except OSError:
            return False
        try:
            os.dup2(fresh, self.descriptor, inheritable=False)
        except OSError:
            return False
        finally:
            os.close(fresh)
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        elif self.descriptor > 2:
            os.close(self.descriptor)


def _open(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.open(path, flags, 0o640)


def _place(pid: int) -> int:
    return pid % _CELLS * _NUMBER.size


def _lost(pid: int) -> int:
    found: int = _NUMBER.unpack_from(_LOST, _place(pid))[0]
    return found


def dropped_by_all() -> int:
    """How many lines all processes could not write that come from the one that imported this file."""
    return sum(number for (number,) in _NUMBER.iter_unpack(_LOST))
