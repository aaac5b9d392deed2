"""The blocking worker: accept, read, application, write, close, again; one straight function.

The common request costs four system calls: `accept4`, `read`, `write`, `close`. Nothing here has a time-out of its
own: the pool sees in the scoreboard that a worker waits for a peer and *nudges* it (SIGURG), which makes that one
descriptor non-blocking, so that the waiting call raises `BlockingIOError` and the slow path takes over.

A worker is stopped the same way: SIGTERM puts a dead socket over its copy of the listener, and the next `accept` ends
the loop; a request in hand is finished before.

Imports `apps`, `net`, `status`, `protocol`, `errors`, `log`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, BinaryIO, Final

from scgi import log as scgi_log
from scgi.apps.answer import Outcome
from scgi.errors import ProtocolError, RequestTimeout
from scgi.net.allow import AllowList
from scgi.net.stream import Patience, has_unread, reset
from scgi.protocol.request import DEFAULT_LIMITS, Limits, head_parser
from scgi.status.scoreboard import (
    ARMED,
    CROWDED,
    HEAD_ROOM,
    IDLE_BYTE,
    MARKS,
    RECORD,
    STAGES,
    Scoreboard,
    Slot,
    Stage,
    record_offset,
)  # fmt: skip
from scgi.workers import forked
from scgi.workers.bodies import let_go
from scgi.workers.intake import Intake
from scgi.workers.interrupt import Interrupter
from scgi.workers.slow import READ_SIZE, Accept, Read, SlowPeers, end_our_side, has_left, warn_of_more

log = logging.getLogger("scgi.worker")

Adapter = Callable[[Slot, int, dict[str, Any], int, BinaryIO], Outcome]
NUDGE: Final = signal.SIGURG  # ignored by default, and nobody's: the Go runtime chose it for the same reason
_WAKE: Final = signal.SIGWINCH  # within a worker, thread to thread: ignored by default, and not taken for a nudge
NOBODY_IDLE: Final = 0  # what workers write to the bell, among the numbers of signals
ENOUGH: Final = 255  # this one has served as many requests as it is to
HANDED_OVER: Final = 253  # somebody comes to the lobby
LONG_ANSWER: Final = 16384  # bytes; more may still be on its way when we close, and a reset would cut it
NO_VARIABLES: Final[dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """All that a worker needs to know; made before the fork."""

    make_adapter: Callable[[int], Adapter]  # called in the child, once per thread, with the lifeline's descriptor
    base: Mapping[str, Any] = field(default_factory=dict)  # what is added to every request's variables
    threads: int = 1
    limits: Limits = DEFAULT_LIMITS
    require_scgi: bool = True
    patience: Patience = field(default_factory=Patience)
    allow: AllowList | None = None  # who may connect over TCP; None is anybody
    access: Callable[[Slot, float], None] | None = None  # called after each request with its duration (seconds)
    bury: Callable[[int], None] | None = None  # called by the pool with the pid of a worker that did not end well


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker is born with: listeners and which of them are ours to drain, its place in the scoreboard, and the
    ways to others: the bell, the lifeline, the lobby's entrance and exit, and where its stacks are written."""

    listeners: list[socket.socket]
    owned: list[bool]
    board: Scoreboard
    first_slot: int
    bell: int
    lifeline: int
    entrance: socket.socket | None = None
    exit: socket.socket | None = None
    stacks: int = -1


class Worker:
    """One process's loops: one per thread, the first in the main thread, which also handles signals.

    After `enough` requests it tells the pool, with each that it still gets; 0 is never.
    """

    def __init__(self, plan: WorkerPlan, around: Surroundings, enough: int = 0) -> None:
        self.plan = plan
        self.enough = -(-enough // plan.threads) if enough else sys.maxsize
        self.slots = [
            Slot(around.board, around.first_slot + n, n + 1 if plan.threads > 1 else 0, around.entrance)
            for n in range(plan.threads)
        ]
        self.board = around.board
        self.bell = around.bell
        self.lifeline = around.lifeline
        self.stacks = around.stacks
        self.leaving = False
        self.exit_status = 0
        self.slow = SlowPeers(
            plan.limits, plan.require_scgi, plan.patience, around.entrance, around.exit, lambda: self._tell(HANDED_OVER)
        )
        self.intake = Intake(around.listeners, around.owned, around.board, plan.allow, around.first_slot, self.slow)
        self.interrupter = Interrupter(self.slots, self.board)

    def run(self) -> int:
        """Serve until told to stop; returns the process's exit status."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(NUDGE, self._on_nudge)
        signal.signal(_WAKE, _woken)
        self.interrupter.arm(
            self.stacks, {signal.SIGTERM: lambda: self._on_stop(signal.SIGTERM, None), NUDGE: self._look_up}
        )
        scgi_log.set_request_lookup(self._current_request)
        adapters = [self.plan.make_adapter(self.lifeline) for _ in self.slots]
        os.register_at_fork(after_in_child=self._on_fork)
        threads = [
            threading.Thread(target=self._serve, args=(slot, adapter))
            for slot, adapter in zip(self.slots[1:], adapters[1:], strict=True)
        ]
        for thread in threads:
            thread.start()
        self._serve(self.slots[0], adapters[0])
        for thread in threads:
            thread.join()
        return self.exit_status

    def _serve(self, slot: Slot, adapter: Adapter) -> None:
        """The loop; a process that the application has forked does not get beyond it."""
        error = None
        try:
            self._loop(slot, adapter)
        except BaseException as raised:
            if not slot.forked:
                raise
            error = raised
        finally:
            slot.thread = 0  # a thread that has ended must not be signalled: that would end the process
        if slot.forked:
            forked.end(error)

    def _on_fork(self) -> None:
        """We are in a process that the application has just forked (see `forked`)."""
        if self.slots[0].forked:
            return  # and this one's parent was too: its descriptors are its own
        self.leaving = True
        self.intake.abandon([slot.fd for slot in self.slots if slot.fd >= 0])
        self.board.detach()
        for slot in self.slots:
            slot.forked = True
            slot.board = self.board.memory
            slot.fd = -1
            slot.sent = LONG_ANSWER + 1  # takes the loop to the unusual end
        for signum, ours in ((signal.SIGTERM, self._on_stop), (NUDGE, self._on_nudge)):
            if signal.getsignal(signum) == ours:
                signal.signal(signum, signal.SIG_DFL)

    # Signals. Both handlers may run between any two bytecodes of the main thread; they touch descriptors, and the
    # second may raise in the application's code.

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        self.leaving = True
        self.intake.stop()
        self._on_nudge(signum, frame)

    def _on_nudge(self, signum: int, frame: FrameType | None) -> None:
        for slot in self.slots:
            if slot.fd >= 0 and slot.board[slot.index] in (Stage.READING, Stage.WRITING):
                with contextlib.suppress(OSError):  # another thread has just closed it
                    os.set_blocking(slot.fd, False)
        self._look_up()
        self.interrupter.on_signal(frame)

    def _look_up(self) -> None:
        """Interrupt the other threads' system calls, which then meet what was changed."""
        self.intake.wake()
        for slot in self.slots[1:]:
            if slot.thread:
                try:
                    signal.pthread_kill(slot.thread, _WAKE)
                except OSError:
                    slot.thread = 0

    # The hot path.

    def _loop(self, slot: Slot, adapter: Adapter) -> None:
        plan = self.plan
        slot.thread = threading.get_ident()
        board = slot.board
        index = slot.index
        mark = index + MARKS
        record = record_offset(index - STAGES)
        head_start = record + RECORD.size
        last_stage = STAGES + self.board.slots
        accept = self.intake.accept
        read: Read = os.read
        parse = head_parser(plan.limits, plan.require_scgi, plan.base)
        access = plan.access
        enough = self.enough
        close, pack, now, empty = os.close, RECORD.pack_into, time.monotonic, io.BytesIO
        find = board.find
        read_size, head_room, long_answer, nothing = READ_SIZE, HEAD_ROOM, LONG_ANSWER, NO_VARIABLES
        IDLE, READING, RUNNING = int(Stage.IDLE), int(Stage.READING), int(Stage.RUNNING)
        serial = 0
        beyond: int | None  # bytes beyond the body, so far; None if no more can be expected either

        while True:  # and not "while not leaving": CPython 3.11 specialises no loop that ends in a conditional jump
            if self.leaving:
                break
            board[index] = IDLE
            try:
                fd, _ = accept()
            except OSError as error:
                if (other := self._other_accept(accept, error)) is None:
                    break
                accept, read = other, self.slow.reader(other)
                continue
            board[index] = READING
            slot.fd = fd
            if board[ARMED] and find(IDLE_BYTE, STAGES, last_stage) < 0:
                self._nobody_is_idle(fd)
            try:
                data = read(fd, read_size)
                head = parse(data)
            except (ProtocolError, OSError) as error:
                head, data = self._unready(fd, b"", error)
                read = self.slow.reader(accept)
            else:
                if head is None:
                    head, data = self._unready(fd, data, None)
                    read = self.slow.reader(accept)
            if head is None:
                slot.fd = -1
                continue
            variables, length, end = head
            size = len(data)
            if size == end + length:
                body: Any = empty(data[end:]) if length else empty()
                try:
                    beyond = None if variables["REQUEST_METHOD"] in ("GET", "HEAD") else 0
                except KeyError:
                    beyond = 0
            else:
                body, beyond = self.slow.longer_body(slot, fd, data, end, length)
                if body is None:
                    slot.fd = -1
                    continue

            slot.serial = serial = serial + 1
            slot.variables = variables
            slot.sent = 0
            started = now()
            if size > head_room:
                data = data[:head_room]
                size = head_room
            pack(board, record, serial, started, size, fd)
            board[head_start : head_start + size] = data
            board[index] = RUNNING
            try:
                outcome = adapter(slot, fd, variables, length, body)
                slot.fd = -1
                if outcome or beyond is not None or slot.sent > long_answer or board[mark]:
                    self._unusual_end(slot, fd, body, beyond, outcome)
                else:
                    close(fd)  # before anything else: a peer that has not woken up yet then wakes up only once
            except RequestTimeout:  # in a thread that was just coming back from the application
                outcome, slot.fd = (outcome if slot.fd < 0 else Outcome.BROKEN), -1
                self._unusual_end(slot, fd, body, beyond, outcome)
            if access is not None:
                access(slot, now() - started)
            slot.variables = nothing
            if serial >= enough:
                self._tell(ENOUGH)
        slot.board[index] = Stage.FREE

    # Off the hot path.

    def _current_request(self) -> str:
        """The id of the request that this thread serves, for log lines."""
        thread = threading.get_ident()
        return next((s.request_id() for s in self.slots if s.thread == thread and s.variables), "")

    def _nobody_is_idle(self, fd: int) -> None:
        """Tell the pool, once until it arms the bell again; or, where many wait, see whether this one still does."""
        if self.board.memory[ARMED] != CROWDED:
            self.board.memory[ARMED] = 0
            self._tell(NOBODY_IDLE)
            return
        if not self.slow.has_brought(fd) and has_left(fd):
            log.info("a client has left while it waited; its request is skipped")
            self.intake.bury(fd)

    def _unready(
        self, fd: int, data: bytes, error: ProtocolError | OSError | None
    ) -> tuple[tuple[dict[str, Any], int, int] | None, bytes]:
        """A head that is not all there, or none; see `SlowPeers.unready`."""
        head, data = self.slow.unready(fd, data, error)
        return head and ({**self.plan.base, **head.variables}, head.content_length, head.end), data

    def _tell(self, what: int) -> None:
        try:
            os.write(self.bell, bytes((what,)))
        except OSError:
            pass  # full: the pool is awake already; closed: it is gone, and so shall we be

    def _unusual_end(self, slot: Slot, fd: int, body: Any, beyond: int | None, outcome: Outcome) -> None:
        """Close a connection that a plain close might harm; end this worker if its handler wanted to."""
        if slot.forked:
            forked.end(None)
        watched = bool(slot.board[slot.index + MARKS])
        if watched:
            self.interrupter.settle(slot)
            slot.board[slot.index + MARKS] = 0
        unread = let_go(body)
        if outcome & Outcome.HANDED_OVER:
            os.close(fd)
            self._tell(HANDED_OVER)
        elif outcome & Outcome.BROKEN:
            reset(fd)
        elif unread or has_unread(fd):
            slot.board[slot.index] = Stage.WRITING
            dropped = self.slow.leave(fd)
            if dropped and not (beyond or unread):  # nothing has been said yet
                warn_of_more(dropped, slot.variables.get("CONTENT_LENGTH", "0"))
        else:
            if watched:
                end_our_side(fd)  # somebody may have a duplicate, which keeps the connection open
            os.close(fd)
        if outcome & Outcome.LEAVE:
            self._on_stop(0, None)

    def _other_accept(self, accept: Accept, error: OSError) -> Accept | None:
        """What to call after `accept` failed; None ends the loop."""
        if self.leaving:
            return None
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
            self._rest(error)
            return accept
        return self.intake.after(accept, error)

    def _rest(self, error: OSError) -> None:
        """Nothing to accept with: wait a second, no candidate for the next request meanwhile."""
        thread = threading.get_ident()
        place = next(slot.index for slot in self.slots if slot.thread == thread)
        self.board.memory[place] = Stage.RESTING
        if self.board.may_complain(place - STAGES, time.monotonic()):
            log.error("cannot accept a connection: %s; trying again every second", error.strerror)
        time.sleep(1.0)


def _woken(signum: int, frame: object) -> None:
    pass
