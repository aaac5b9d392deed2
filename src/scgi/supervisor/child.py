"""Forking: one ceremony for every child process, and the words for how one ended.

Imports `log`, and `workers` for the standard streams.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import random
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from scgi import log as scgi_log
from scgi.supervisor.prctl import PR_SET_PDEATHSIG, prctl
from scgi.workers.forked import cover
from scgi.workers.standard import flush_standard_streams

log = logging.getLogger("scgi.pool")

FORK_FAILED: Final = 0.5  # seconds of rest after a fork that failed
PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_forking = False  # a process of ours
_disowned: list[int] = []  # what the application's own forks from this process are not to keep
_HANDLED: Final = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGURG,
)  # fmt: skip


@dataclass(slots=True)
class Child:
    """A child process as its parent knows it. `born` and `asked` are monotonic seconds."""

    pid: int
    born: float
    first_slot: int = 0
    ready: bool = False
    retiring: bool = False
    peak: int = 0  # bytes of memory at most, known once it has ended
    asked: float = 0.0  # to retire
    replaces: Child | None = None
    chance: float = field(default_factory=random.random)  # its lot: workers of one age do not go together
    nudged: dict[int, tuple[object, float, int]] = field(default_factory=dict)  # slot: what it did, since when, nudges

    def send(self, signum: int) -> None:
        """Signal it; a child that is gone but not yet reaped takes no harm."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    def wait_status(self) -> int | None:
        """Its wait status if it has ended, None while it runs."""
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:  # the program's own code has reaped it
            return 0
        self.peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return status if pid else None


def fork(run: Callable[[], int], close: Iterable[int], lifeline: int) -> int:
    """Fork; the child runs `run` and ends with its result as exit status. Returns the pid. OSError if fork fails.

    `close` are the descriptors that only the parent may hold; `lifeline` reads end of file when the parent is gone.
    Signals are held back until the child has let go of the parent's handlers, so that none is taken for the parent.
    """
    global _forking
    parent = os.getpid()
    flush_standard_streams()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        _forking = True
        try:
            pid = os.fork()
        finally:
            _forking = False
        if pid:
            return pid
        status = 1
        try:
            _become_child(close)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if prctl is not None:
                end_with_parent(parent)
            else:
                _end_with_lifeline(lifeline)
            status = run()
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except BaseException as error:
            log.error("process %d failed", os.getpid(), exc_info=_without_our_frames(error))
        finally:
            _end(status)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    raise AssertionError("unreachable")


def disown(descriptors: Iterable[int]) -> None:
    """What the application forks from this process, while it is imported say, is none of ours: it lets go of these."""
    dead = socket.socket()
    _disowned.extend(descriptors)

    def let_go() -> None:
        if not _forking and _disowned:
            cover(_disowned, dead.fileno())

    os.register_at_fork(after_in_child=let_go)


def written(error: BaseException) -> bytes:
    """The traceback of what an application raised, as text."""
    lines = traceback.format_exception(_without_our_frames(error))
    return "".join(lines).encode("utf-8", "backslashreplace")


def _without_our_frames(error: BaseException) -> BaseException:
    """What an application raised at its start, from its own first frame on; unless all of it is ours."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code is not fork.__code__:
        trace = trace.tb_next  # whoever called us, before the fork
    trace = trace or error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith((PACKAGE, "<frozen importlib")):
        trace = trace.tb_next
    return error if trace is None else error.with_traceback(trace)


def _become_child(close: Iterable[int]) -> None:
    """All that the child lets go of."""
    _disowned.clear()  # these numbers mean something else soon
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGURG):
        signal.signal(signum, _ignore)  # not SIG_IGN: programs that the application starts would inherit that
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, _reopen_logs)
    for descriptor in close:
        os.close(descriptor)
    gc.enable()


def _ignore(signum: int, frame: object) -> None:
    pass


def _reopen_logs(signum: int, frame: object) -> None:
    scgi_log.reopen()


def end_with_parent(parent: int, signum: int = signal.SIGTERM) -> None:
    """Linux: a signal for this process when its parent is gone, however it went. A change of user forgets it."""
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signum)


def _end_with_lifeline(lifeline: int) -> None:
    """Elsewhere: the same by a thread that waits for the end of file."""

    def watch() -> None:
        with contextlib.suppress(OSError):
            os.read(lifeline, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _end(status: int) -> None:
    """Run the application's exit functions, then leave at once: its threads cannot hold us up."""
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    flush_standard_streams()
    os._exit(status & 0xFF)


def describe_end(status: int) -> str:
    """`killed by SIGKILL`, `exited with status 3` for a wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
