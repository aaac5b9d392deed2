"""The bell: a pipe that signals and workers write one byte to, so that the pool has one thing to wait for.

Signals come as their numbers (`signal.set_wakeup_fd`), a worker's call as 0. Beside it the lifeline, a pipe that is
never written to: it reads end of file when the pool is gone. Imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Any, Final, Self

_SIGNALS: Final = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


class Bell:
    """Both pipes and the signal handlers, from `with` to its end; what was there before comes back then."""

    def __enter__(self) -> Self:
        self.out, self.into = os.pipe()
        self.lifeline_out, self.lifeline_in = os.pipe()
        os.set_blocking(self.out, False)
        os.set_blocking(self.into, False)
        self._before: dict[int, Any] = {signum: signal.getsignal(signum) for signum in _SIGNALS}
        self._wakeup = signal.set_wakeup_fd(-1)
        self.wire()
        return self

    def wire(self) -> None:
        """Let signals ring, whatever an application has done to their handlers meanwhile."""
        for signum in _SIGNALS:
            signal.signal(signum, _noted)
        signal.set_wakeup_fd(self.into, warn_on_full_buffer=False)

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for signum, handler in self._before.items():
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)
        for descriptor in (self.out, self.into, self.lifeline_out, self.lifeline_in):
            os.close(descriptor)

    def hear(self) -> bytes:
        """What was rung since the last call."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.out, 4096)
        return b""


def _noted(signum: int, frame: FrameType | None) -> None:
    """The signal's number is in the bell already."""
