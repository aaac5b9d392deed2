"""Raises `RequestTimeout` inside a request that has had its time, and in nothing else.

The pool writes the request's serial into the scoreboard and sends a NUDGE, again and again until it has landed. Its
handler, in the main thread, raises if that very request runs now, in the application's code: an exception in the middle
of ours could leave a connection half closed.

Where there are other threads, one of them does nothing but hear signals; it has the interpreter raise in those that
serve (`PyThreadState_SetAsyncExc`). That happens a moment later, so whoever ends such a request calls `settle`, which
has it over with. Imports `apps`, `status`, `errors`.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

from scgi.apps import wsgi
from scgi.apps.handler import HandlerAdapter, SCGIHandler
from scgi.errors import RequestTimeout
from scgi.status.scoreboard import STAGES, Scoreboard, Slot

_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
# Ours that call the application: what runs inside of them, and inside of nothing else of ours, is the application.
_GATES: Final = frozenset(
    function.__code__
    for function in (
        wsgi.WsgiAdapter.answer,
        wsgi.WsgiAnswer.send,
        wsgi.FileWrapper.__iter__,
        wsgi._send_on,
        wsgi._blocks,
        wsgi._close,
        HandlerAdapter.answer,
        HandlerAdapter._lend_connection,
        SCGIHandler.handle_connection,
        SCGIHandler.produce,
    )
)


class Interrupter:
    """Of one worker process; the first of its `slots` is the main thread's."""

    def __init__(self, slots: list[Slot], board: Scoreboard) -> None:
        self._slots = slots
        self._board = board
        self._thrown: dict[int, int] = {}  # slot: the serial that was interrupted in it
        self._lock = threading.Lock()

    def arm(self, stacks: int, also: dict[int, Callable[[], None]]) -> None:
        """From now on SIGUSR2 has all stacks written to the descriptor `stacks`, even where C code holds the
        interpreter. With several threads, signals are also heard while the main one is in C code: `also` says what
        to call then, in a thread."""
        if stacks >= 0:
            faulthandler.register(signal.SIGUSR2, file=stacks, all_threads=True, chain=False)
        if len(self._slots) > 1:
            out, into = os.pipe()
            os.set_blocking(into, False)
            signal.set_wakeup_fd(into, warn_on_full_buffer=False)
            os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # else it would speak for its children
            threading.Thread(target=self._listen, args=(out, also), daemon=True).start()

    def on_signal(self, frame: FrameType | None) -> None:
        """In the main thread, which was interrupted in `frame`. Raises `RequestTimeout` if its request has to end."""
        slot = self._slots[0]
        if self._is_condemned(slot) and in_application(frame):
            ran = time.monotonic() - self._board.sight(slot.index - STAGES).since
            self._note(slot)
            raise RequestTimeout(f"this request has run for {ran:.1f} s")

    def _listen(self, out: int, also: dict[int, Callable[[], None]]) -> None:
        with contextlib.suppress(OSError):  # the application has closed all descriptors it found
            while heard := os.read(out, 64):
                for signum, call in also.items():
                    if signum in heard:
                        call()
                for slot in self._slots[1:]:
                    self.interrupt(slot)

    def interrupt(self, slot: Slot) -> None:
        """From another thread: end this one's request, if it has to end."""
        if self._is_condemned(slot):
            with self._lock:
                self._throw(slot)

    def settle(self, slot: Slot) -> None:
        """By the thread of a slot whose request has ended: what was not raised in it yet is raised here, and is over.

        To take it back would leave Python (3.11) looking for it at every step for ever.
        """
        if slot is self._slots[0]:
            return
        try:
            with self._lock:
                if self._thrown.pop(slot.index, None) is None:
                    return
                _raise_in(slot.thread, RequestTimeout)  # whether or not it was raised before
            for _ in range(1000):
                pass
        except RequestTimeout:
            pass

    def _is_condemned(self, slot: Slot) -> bool:
        """Whether the request that it serves now has had its time, and was not interrupted yet."""
        serial = self._board.condemned(slot.index - STAGES)
        return 0 < serial == slot.serial and slot.fd >= 0 and self._thrown.get(slot.index) != serial

    def _throw(self, slot: Slot) -> None:
        if self._is_condemned(slot) and _is_in_application(slot.thread):
            _raise_in(slot.thread, RequestTimeout)
            if _is_in_application(slot.thread):
                self._note(slot)
            else:  # the interpreter has switched to it in between
                _raise_in(slot.thread, None)

    def _note(self, slot: Slot) -> None:
        self._thrown[slot.index] = slot.serial
        self._board.note_landed(slot.index - STAGES, slot.serial)


def in_application(frame: FrameType | None) -> bool:
    """Whether a thread that is in this frame runs the application's code, or what that has called that is not ours."""
    ours = frame
    while ours is not None and not ours.f_code.co_filename.startswith(_PACKAGE):
        ours = ours.f_back
    if frame is None or ours is None or ours is frame or ours.f_code not in _GATES:
        return False
    # A context manager of ours that is interrupted while it enters would never be left.
    return frame.f_back is not ours or frame.f_code.co_filename != contextlib.contextmanager.__code__.co_filename


def _is_in_application(thread: int) -> bool:
    return in_application(sys._current_frames().get(thread))


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have the interpreter raise in a thread as soon as it runs Python; None takes that back."""
    raised = ctypes.py_object() if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)
