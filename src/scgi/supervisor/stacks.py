"""Where all threads of a worker are: `faulthandler` writes it into a file of the pool's, at a signal.

That works even while C code holds the interpreter. The file is in memory and open before the first fork. There is one
for all workers, so one is asked after the other; the pool never waits, it looks again a moment later. Imports `status`
and its neighbours.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Final

from scgi.supervisor.child import PACKAGE, Child

LONGEST: Final = 100_000  # bytes of one worker's stacks
_STEP: Final = 0.003  # seconds between looks
_SETTLED: Final = 0.1  # the file has not grown for so long: it is whole
_PATIENCE: Final = 0.5  # for one worker
_ENDS: Final = (b" in <module>\n", b" in _run_module_as_main\n")  # of the main thread's stack, which is the last
# Outside of the application's frames in every stack: the worker's loop, or what loads the application.
_OUTSIDE: Final = (f'  File "{PACKAGE}workers/blocking.py"', f'  File "{PACKAGE}supervisor/')
_OURS: Final = f'  File "{PACKAGE}'

Tell = Callable[[str], None]


@dataclass(slots=True)
class _Taking:
    """A worker was asked for its stacks."""

    child: Child
    tell: Tell
    since: float
    size: int = 0
    grown: float = 0.0


class Stacks:
    """Takes the stacks of one worker after the other. They write to `descriptor`; -1 if there can be no such file."""

    def __init__(self) -> None:
        self.descriptor = _memory_file()
        self._queue: deque[tuple[Child, Tell]] = deque()
        self._taking: _Taking | None = None

    def take(self, child: Child, tell: Tell) -> None:
        """`tell` is called with the stacks of `child` in some later `step`; with "" if they cannot be had."""
        self._queue.append((child, tell))

    def due(self, now: float) -> float:
        """When `step` wants to be called."""
        return now + _STEP if self._taking is not None else now if self._queue else inf

    def step(self, now: float) -> None:
        """As far as it goes without waiting."""
        while self._taking is not None or self._queue:
            if self._taking is None:
                child, tell = self._queue.popleft()
                self._taking = _Taking(child, tell, now, grown=now)
                if self.descriptor >= 0:
                    os.ftruncate(self.descriptor, 0)
                    if _catches(child.pid, signal.SIGUSR2):
                        child.send(signal.SIGUSR2)
            taking = self._taking
            if not self._is_whole(taking, now):
                return
            self._taking = None
            taking.tell(trimmed(self._written()))

    def forget(self, child: Child) -> None:
        """It has ended: it will write nothing more."""
        if self._taking is not None and self._taking.child is child:
            self._taking.since = -inf

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def _is_whole(self, taking: _Taking, now: float) -> bool:
        size = os.fstat(self.descriptor).st_size if self.descriptor >= 0 else 0
        if size != taking.size:
            taking.size, taking.grown = size, now
        if now - taking.since >= _PATIENCE or self.descriptor < 0:
            return True
        if not size:
            return False
        ends = os.pread(self.descriptor, 64, max(0, size - 64)).endswith(_ENDS)
        return now - taking.grown >= (_STEP if ends else _SETTLED)

    def _written(self) -> str:
        if self.descriptor < 0:
            return ""
        return os.pread(self.descriptor, LONGEST, 0).decode("utf-8", "backslashreplace")


def trimmed(stacks: str) -> str:
    """Stacks as `faulthandler` writes them, each without the frames of ours, and of what started us, at its outer end.

    A thread that is in no code of the application keeps its innermost frame.
    """
    return "".join(line for block in re.split(r"(?m)^(?=\S)", stacks) for line in _inside(block))


def _inside(block: str) -> Iterator[str]:
    lines = block.splitlines(keepends=True)
    frames = [place for place, line in enumerate(lines) if line.startswith("  File ")]
    end = next((place for place in frames if lines[place].startswith(_OUTSIDE)), len(lines))
    if end < len(lines):
        while end > 0 and lines[end - 1].startswith(_OURS):
            end -= 1
    yield from lines[: max(end, frames[0] + 1 if frames else len(lines))]


def _memory_file() -> int:
    """A file without a name that several processes can append to."""
    with contextlib.suppress(OSError):
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("stacks")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
        return descriptor
    return -1


def _catches(pid: int, signum: int) -> bool:
    """Whether the process has a handler for the signal, which would end it otherwise. Where nobody can tell: yes."""
    with contextlib.suppress(OSError, ValueError, StopIteration), open(f"/proc/{pid}/status") as file:
        caught = next(line.split()[1] for line in file if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (signum - 1) & 1)
    return True
