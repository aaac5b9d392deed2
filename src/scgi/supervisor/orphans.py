"""Workers whose pool has died come to the master: they finish what they are doing, and the master sees to their end.

Linux gives a process that asks for it the children of its dead children (PR_SET_CHILD_SUBREAPER). What is not a worker,
such as a daemon that an application has started, is reaped when it ends and otherwise left alone. As PID 1 the same
happens by itself. Imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36


class Orphans:
    """The adopted workers that still live; false when there is none."""

    def __init__(self) -> None:
        self._pids: set[int] = set()

    def adopt_all(self) -> None:
        """From now on, orphans of this process's children become its own."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def take(self, pids: Iterable[int], ours: Container[int]) -> None:
        """By its own account these were the workers of a pool that has died: those that really came to us, and were not
        `ours` all along."""
        self._pids |= {pid for pid in pids if pid not in ours and _parent(pid) == os.getpid()}

    def send(self, signum: int) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    def reap(self, ours: Container[int]) -> None:
        """Take leave of whoever has ended, except of `ours`, whose ends others wait for."""
        if sys.platform != "linux":
            return
        self._pids = {pid for pid in self._pids if _parent(pid) == os.getpid()}
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                if ended.si_pid in ours:
                    return  # it is first in line until it is reaped
                os.waitpid(ended.si_pid, 0)
                self._pids.discard(ended.si_pid)

    def __bool__(self) -> bool:
        return bool(self._pids)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return -1
