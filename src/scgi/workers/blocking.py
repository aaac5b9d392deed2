"""The blocking worker: accept, read, application, write, close, again; one straight function.

The common request costs four system calls: `accept4`, `read`, `writev`, `close`. Nothing here has a time-out of its
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
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from scgi import log as scgi_log
from scgi.apps.answer import Outcome
from scgi.errors import ProtocolError
from scgi.net.allow import AllowList
from scgi.net.stream import BodyReader, Patience, PeerGone, has_unread, leave, receive_head, reset, send_all
from scgi.protocol.request import DEFAULT_LIMITS, Head, Limits, RequestReader, parse_head
from scgi.protocol.response import error_page
from scgi.status.scoreboard import (
    ARMED,
    HEAD_ROOM,
    IDLE_BYTE,
    RECORD,
    STAGES,
    Scoreboard,
    Slot,
    Stage,
    record_offset,
)  # fmt: skip
from scgi.workers import forked
from scgi.workers.intake import Accept, Intake

log = logging.getLogger("scgi.worker")

Adapter = Callable[[Slot, int, dict[str, Any], int, BinaryIO], Outcome]
NUDGE: Final = signal.SIGURG  # ignored by default, and nobody's: the Go runtime chose it for the same reason
_WAKE: Final = signal.SIGWINCH  # within a worker, thread to thread: ignored by default, and not taken for a nudge
NOBODY_IDLE: Final = 0  # what workers write to the bell, among the numbers of signals
ENOUGH: Final = 255  # this one has served as many requests as it is to
READ_SIZE: Final = 65536
LONG_ANSWER: Final = 16384  # bytes; more may still be on its way when we close, and a reset would cut it
NO_VARIABLES: Final[dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """All that a worker needs to know; made before the fork."""

    make_adapter: Callable[[int], Adapter]  # called in the child, once per thread, with the lifeline's descriptor
    threads: int = 1
    limits: Limits = DEFAULT_LIMITS
    require_scgi: bool = True
    patience: Patience = field(default_factory=Patience)
    allow: AllowList | None = None  # who may connect over TCP; None is anybody
    access: Callable[[Slot, float], None] | None = None  # called after each request with its duration (seconds)


class Worker:
    """One process's loops: one per thread, the first in the main thread, which also handles signals."""

    def __init__(
        self,
        plan: WorkerPlan,
        listeners: list[socket.socket],
        owned: list[bool],
        board: Scoreboard,
        first_slot: int,
        bell: int,
        lifeline: int,
        enough: int = 0,
    ) -> None:
        self.plan = plan
        # After so many requests a thread tells the pool, with each that it still gets.
        self.enough = -(-enough // plan.threads) if enough else sys.maxsize
        several = plan.threads > 1
        self.slots = [Slot(board, first_slot + n, n + 1 if several else 0) for n in range(plan.threads)]
        self.board = board
        self.bell = bell
        self.lifeline = lifeline
        self.leaving = False
        self.exit_status = 0
        self.intake = Intake(listeners, owned, board, plan.allow, first_slot)

    def run(self) -> int:
        """Serve until told to stop; returns the process's exit status."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(NUDGE, self._on_nudge)
        signal.signal(_WAKE, _woken)
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

    # Signals. Both handlers may run between any two bytecodes of the main thread; they only touch descriptors.

    def _on_stop(self, signum: int, frame: object) -> None:
        self.leaving = True
        self.intake.stop()
        self._on_nudge(signum, frame)

    def _on_nudge(self, signum: int, frame: object) -> None:
        self.intake.wake_for_draining()
        for slot in self.slots:
            if slot.fd >= 0 and slot.board[slot.index] in (Stage.READING, Stage.WRITING):
                with contextlib.suppress(OSError):  # another thread has just closed it
                    os.set_blocking(slot.fd, False)
        self._wake_threads()

    def _wake_threads(self) -> None:
        """Interrupt the other threads' system calls, which then meet what was changed."""
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
        record = record_offset(index - STAGES)
        head_start = record + RECORD.size
        last_stage = STAGES + self.board.slots
        accept = self.intake.accept
        limits = plan.limits
        require_scgi = plan.require_scgi
        access = plan.access
        enough = self.enough
        read, close, pack, now, empty = os.read, os.close, RECORD.pack_into, time.monotonic, io.BytesIO
        find = board.find
        IDLE, READING, RUNNING = int(Stage.IDLE), int(Stage.READING), int(Stage.RUNNING)
        serial = 0
        beyond: int | None  # bytes beyond the body, so far; None if no more can be expected either

        while not self.leaving:
            board[index] = IDLE
            try:
                fd, _ = accept()
            except OSError as error:
                if (other := self._other_accept(accept, error)) is None:
                    break
                accept = other
                continue
            board[index] = READING
            slot.fd = fd
            if board[ARMED] and find(IDLE_BYTE, STAGES, last_stage) < 0:
                self._ring()
            try:
                data = read(fd, READ_SIZE)
                head = parse_head(data, limits, require_scgi)
            except (ProtocolError, OSError) as error:
                head, data = self._unready(slot, fd, b"", error)
            else:
                if head is None:
                    head, data = self._unready(slot, fd, data, None)
            if head is None:
                slot.fd = -1
                continue
            variables, length, end = head
            size = len(data)
            if size == end + length:
                body: Any = empty(data[end:]) if length else empty()
                beyond = None if variables.get("REQUEST_METHOD") in ("GET", "HEAD") else 0
            else:
                body, beyond = self._longer_body(fd, data, end, length)

            slot.serial = serial = serial + 1
            slot.variables = variables
            slot.sent = 0
            started = now()
            if size > HEAD_ROOM:
                data = data[:HEAD_ROOM]
                size = HEAD_ROOM
            pack(board, record, serial, started, size)
            board[head_start : head_start + size] = data
            board[index] = RUNNING
            outcome = adapter(slot, fd, variables, length, body)
            slot.fd = -1
            if outcome or beyond is not None or slot.sent > LONG_ANSWER:
                self._unusual_end(slot, fd, body, beyond, outcome)
            else:
                close(fd)  # before anything else: a peer that has not woken up yet then wakes up only once
            if access is not None:
                access(slot, now() - started)
            slot.variables = NO_VARIABLES
            if serial >= enough:
                self._tell(ENOUGH)
        slot.board[index] = Stage.FREE

    # Off the hot path.

    def _current_request(self) -> str:
        """The id of the request that this thread serves, for log lines."""
        thread = threading.get_ident()
        return next((s.request_id() for s in self.slots if s.thread == thread and s.variables), "")

    def _ring(self) -> None:
        """Tell the pool that nobody is idle; once, until it arms the bell again."""
        self.board.memory[ARMED] = 0
        self._tell(NOBODY_IDLE)

    def _tell(self, what: int) -> None:
        try:
            os.write(self.bell, bytes((what,)))
        except OSError:
            pass  # full: the pool is awake already; closed: it is gone, and so shall we be

    def _unready(
        self, slot: Slot, fd: int, data: bytes, error: ProtocolError | OSError | None
    ) -> tuple[Head | None, bytes]:
        """The head did not come whole in one read, or came wrong: read on, or answer and close."""
        try:
            if isinstance(error, ProtocolError):
                raise error
            if error is None and not data:  # an empty connection is normal: Apache makes one before a 411
                os.close(fd)
                return None, b""
            if error is not None and not isinstance(error, BlockingIOError):
                os.close(fd)
                return None, b""
            return self._read_on(fd, data)
        except ProtocolError as refusal:
            self._refuse(slot, fd, refusal)
        except OSError as failure:
            log.debug("connection lost while reading a request: %s", failure)
            os.close(fd)
        return None, b""

    def _read_on(self, fd: int, data: bytes) -> tuple[Head | None, bytes]:
        deadline = time.monotonic() + self.plan.patience.head
        reader = RequestReader(self.plan.limits, self.plan.require_scgi)
        received = [data]
        head = reader.feed(data)
        while head is None:
            data = receive_head(fd, deadline)
            if not data:
                if not reader.received:
                    os.close(fd)
                    return None, b""
                reader.eof()
            received.append(data)
            head = reader.feed(data)
        return head, b"".join(received)

    def _refuse(self, slot: Slot, fd: int, refusal: ProtocolError) -> None:
        log.warning("refused with %d (%s): %s", refusal.status_hint, refusal.code, refusal)
        try:
            send_all(fd, [error_page(refusal.status_hint, str(refusal))], self.plan.patience.send)
        except PeerGone:
            pass
        leave(fd, self.plan.patience)

    def _longer_body(self, fd: int, data: bytes, end: int, length: int) -> tuple[Any, int]:
        """A body that did not come whole with the head, or that more bytes follow; and how many of those are here."""
        if (beyond := len(data) - end - length) > 0:
            _warn_of_more(beyond, str(length))
            return io.BytesIO(data[end : end + length]), beyond
        return io.BufferedReader(BodyReader(fd, data[end:], length, self.plan.patience), READ_SIZE), 0

    def _unusual_end(self, slot: Slot, fd: int, body: Any, beyond: int | None, outcome: Outcome) -> None:
        """Close a connection that a plain close might harm; end this worker if its handler wanted to."""
        if slot.forked:
            forked.end(None)
        raw = getattr(body, "raw", None)
        left = 0  # of the body
        if isinstance(raw, BodyReader):
            left = raw.unread
            raw.detach_connection()
        unread = left > 0 or has_unread(fd)
        if outcome & Outcome.BROKEN:
            reset(fd)
        elif unread:
            slot.board[slot.index] = Stage.WRITING
            dropped = leave(fd, self.plan.patience)
            if dropped > left and not beyond:  # nothing has been said yet
                _warn_of_more(dropped - left, slot.variables.get("CONTENT_LENGTH", "0"))
        else:
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


def _warn_of_more(count: int, length: str) -> None:
    log.warning(
        "%d bytes follow a body of CONTENT_LENGTH %s and are dropped "
        "(nginx before 1.29.6 with scgi_request_buffering off sends a wrong CONTENT_LENGTH)",
        count,
        length,
    )


def _woken(signum: int, frame: object) -> None:
    pass
