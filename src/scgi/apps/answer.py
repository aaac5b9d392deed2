"""The sending half of a request, shared by all adapters: one head, then body bytes, all rules of a response kept.

Content-Length is enforced both ways, HEAD, 204 and 304 carry no body, and a response that broke off never looks whole.

A worker whose peer is slow to take its answer is nudged: the connection does not block any more. What the peer does
not take is then kept in a backlog, and goes to the lobby with the connection when the application is done.

Imports `net`, `status`, `protocol`, `errors`.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final, NoReturn

from scgi.apps.backlog import Backlog
from scgi.errors import MisuseError, RequestTimeout, TruncatedBody
from scgi.net.handover import hand_over
from scgi.net.stream import Buffer, Patience, PeerGone, linger_not, send_all, send_file, send_file_now, send_now
from scgi.protocol.response import build_head, error_page
from scgi.status.scoreboard import Slot, Stage

log = logging.getLogger("scgi.request")


class Outcome(IntEnum):
    """How to close the connection after an answer. The values are bits; a `Flag` would be slow to test."""

    WHOLE = 0  # the answer is out
    BROKEN = 1  # it broke off: close so that the peer can tell
    LEAVE = 2  # the answer is out, and this worker wants to end
    BROKEN_LEAVE = 3
    HANDED_OVER = 4  # the lobby has the connection, and what is left of the answer
    HANDED_OVER_LEAVE = 6


# A class attribute of an enum costs ten times as much as a module's name.
_WHOLE: Final = Outcome.WHOLE
_WRITING: Final = int(Stage.WRITING)
_RUNNING: Final = int(Stage.RUNNING)
_write: Final = os.write
_SMALL: Final = 4096  # bytes of a body; fewer are quicker joined with the head than told apart


class Answer:
    """One response on its way out: `start`, then `write`, then `finish`; `fail` instead when something went wrong.

    Nothing is sent before the first body bytes, so that a failure until then still gets a clean 500.
    """

    __slots__ = (
        "_backlog", "_head", "_left", "_patience", "_resets", "_slot", "_status", "begun", "bodiless", "fd",
        "head_request",
    )  # fmt: skip

    def __init__(self, slot: Slot, fd: int, head_request: bool, patience: Patience) -> None:
        self.fd = fd
        self.head_request = head_request
        self.begun = False  # bytes are on the wire: no other answer is possible
        self.bodiless = head_request
        self._slot = slot
        self._patience = patience
        self._status = 0  # of the head, once there is one
        self._head = b""
        self._left: int | None = None  # bytes still owed to the declared Content-Length
        self._backlog: Backlog | None = None
        self._resets = False  # the connection, should this process die

    @property
    def started(self) -> bool:
        """Whether a head is there."""
        return self._status != 0

    @property
    def waiting(self) -> bool:
        """Whether the peer has not taken all that was written."""
        return self._backlog is not None

    def start(self, status: str, headers: Iterable[tuple[str, str]], length: int | None = None) -> None:
        """Set, or replace, the head. Raises `MisuseError` for what must not go out."""
        self._head, self._status, self._left, bodiless = build_head(status, headers, length)
        self.bodiless = self.head_request or bodiless

    def set_length(self, length: int) -> None:
        """Add a Content-Length that became known after `start`, unless there is one or the rules forbid it."""
        if self._head and self._left is None and not self.bodiless:
            self._head = self._head[:-2] + b"Content-Length: %d\r\n\r\n" % length
            self._left = length

    def write(self, data: Buffer) -> None:
        """Send body bytes at once, the head before the first.

        Raises `PeerGone`, and `MisuseError` without a head or once the Content-Length is exceeded.
        """
        if not self._status:
            raise MisuseError("body bytes before start_response was called", code="no-head")
        size = len(data)
        if not size:
            return
        if self.bodiless:
            self.flush_head()
            return
        left = self._left
        if left is not None:
            if size > left:
                self._cut(data, left)
            self._left = left - size
        self._send((self._head, data) if self._head else (data,), size)

    def _cut(self, data: Buffer, left: int) -> NoReturn:
        """Send as much as the Content-Length allows, and no more."""
        self.write(memoryview(data)[:left])
        self.flush_head()
        raise MisuseError("the response is longer than its Content-Length; the rest is not sent", code="too-long")

    def send_whole(self, block: bytes) -> Outcome:
        """`set_length`, `write` and `finish` in one, for the most common answer: its body is one block."""
        size = len(block)
        if self._left != size or self.begun or self.bodiless:
            if self._left is not None or self.begun or self.bodiless or not self._status:  # unusual, or wrong
                self.write(block)
                return self.finish()
            self.set_length(size)
        head = self._head
        slot = self._slot
        self.begun = True
        slot.board[slot.index] = _WRITING
        try:
            unsent = len(head) + size
            unsent -= _write(self.fd, head + block) if size < _SMALL else os.writev(self.fd, (head, block))
        except BlockingIOError:
            pass
        except OSError as error:
            raise PeerGone(error.strerror or "the peer is gone") from None
        if unsent:
            return self._end_slowly(memoryview(head + block)[-unsent:], size)
        slot.sent = size
        slot.status = self._status
        return _WHOLE

    def _end_slowly(self, rest: Buffer, size: int) -> Outcome:
        """`send_whole` to a peer that does not take all of it at once."""
        self._push((rest,))
        self._slot.sent = size
        self._slot.status = self._status
        return self._conclude(_WHOLE)

    def write_file(self, file: int, offset: int, size: int) -> None:
        """Send a piece of an open file by its descriptor, at most as much as the Content-Length allows.

        It stays open until the answer is over.
        """
        if not self._status:
            raise MisuseError("a file to send before start_response was called", code="no-head")
        if self._left is not None:
            size = min(size, self._left)
        self.flush_head()
        if self.bodiless or not size:
            return
        slot = self._slot
        slot.board[slot.index] = _WRITING
        sent = self._push_file(file, offset, size)
        slot.board[slot.index] = _RUNNING
        slot.note_step()
        slot.sent += sent
        if self._left is not None:
            self._left -= sent

    def flush_head(self) -> None:
        """Send the head if it is still here."""
        if self._head:
            self._send((self._head,), 0)

    def _send(self, buffers: tuple[Buffer, ...], size: int) -> None:
        slot = self._slot
        if not self.begun:
            slot.note_sent()
            self.begun = True
            if self._left is None and not self.bodiless and self._status:  # else its end would look like the answer's
                self._resets = True
                linger_not(self.fd, True)
        self._head = b""
        slot.board[slot.index] = _WRITING
        self._push(buffers)
        slot.board[slot.index] = _RUNNING
        slot.note_step()
        slot.sent += size

    def _push(self, buffers: tuple[Buffer, ...]) -> None:
        """Send; what the peer does not take now is kept, if the lobby can have it later."""
        waiting: Sequence[Buffer] = buffers
        if self._flushed():
            if not (waiting := send_now(self.fd, buffers)):
                return
            if self._slot.lobby is not None:
                self._backlog = Backlog(self.fd)
        if self._backlog is None or not self._backlog.add(waiting):
            self._wait()
            send_all(self.fd, waiting, self._patience.send)

    def _push_file(self, file: int, offset: int, size: int) -> int:
        """The same with a file; returns how much of it will have been sent."""
        sent = 0
        if self._flushed():
            try:
                return send_file_now(self.fd, file, offset, size)
            except BlockingIOError as full:
                sent = full.characters_written
            if self._slot.lobby is not None:
                self._backlog = Backlog(self.fd)
        if self._backlog is not None and self._backlog.add_file(file, offset + sent, size - sent):
            return size
        if self._slot.lobby is None:
            return sent + send_file(self.fd, file, offset + sent, size - sent, self._patience.send)
        while sent < size and (block := os.pread(file, min(size - sent, 1 << 18), offset + sent)):
            self._push((block,))
            sent += len(block)
        return sent

    def _flushed(self) -> bool:
        """Whether nothing waits any more."""
        if self._backlog is not None and self._backlog.flush():
            self._drop()
        return self._backlog is None

    def _wait(self) -> None:
        """Until the peer has taken all that was kept."""
        if self._backlog is not None:
            self._backlog.wait(self._patience.send)
            self._drop()

    def _drop(self) -> None:
        if self._backlog is not None:
            self._backlog.close()
            self._backlog = None

    def _conclude(self, outcome: Outcome) -> Outcome:
        """Nothing more will be written: what the peer has not taken goes to the lobby, or is waited for."""
        if self._resets and outcome is _WHOLE:
            linger_not(self.fd, False)
        if self._backlog is None or self._flushed():
            return outcome
        lobby = self._slot.lobby
        if lobby is not None and hand_over(lobby, self._backlog.parcel(outcome is not _WHOLE)):
            self._drop()
            return Outcome.HANDED_OVER
        self._wait()
        return outcome

    def finish(self) -> Outcome:
        """The application is done: send what is left of the head, and judge whether the answer is whole."""
        if not self._status:
            raise MisuseError("the application ended without calling start_response", code="no-head")
        if self._head:
            self._send((self._head,), 0)
        self._slot.status = self._status
        if self._left and not self.bodiless:
            log.error("the response is %d bytes shorter than its Content-Length", self._left)
            return self._conclude(Outcome.BROKEN)
        return self._conclude(_WHOLE)

    def fail(self, error: BaseException) -> Outcome:
        """Answer an exception: its status if nothing is out yet; the traceback goes to the log, never to the peer."""
        slot = self._slot
        if slot.forked:  # the answer is the worker's affair, and what to do with this process too
            raise error
        if isinstance(error, PeerGone):
            self._drop()
            log.info("the peer is gone: %s", error)
            slot.status = 499
            return Outcome.BROKEN
        status = 504 if isinstance(error, RequestTimeout) else 500
        if isinstance(error, TruncatedBody):  # the peer's fault
            status = error.status_hint
            log.warning("%s", error)
        else:
            log_failure(slot, error)
        if not self.begun:
            return self.refuse(status, f"Request {slot.request_id()}")
        slot.status = status
        if self._status:
            slot.status = self._status
            if self.bodiless or self._left == 0:  # what the peer has is whole
                return self._conclude_somehow(_WHOLE)
        return self._conclude_somehow(Outcome.BROKEN)

    def _conclude_somehow(self, outcome: Outcome) -> Outcome:
        try:
            return self._conclude(outcome)
        except PeerGone as error:
            self._drop()
            log.info("the peer is gone: %s", error)
            return Outcome.BROKEN

    def refuse(self, status: int, sentence: str) -> Outcome:
        """Answer with a small page of our own, in place of anything that was not sent yet."""
        self._slot.status = status
        page = error_page(status, sentence)
        end = page.index(b"\r\n\r\n") + 4
        try:
            self._send((page[:end] if self.head_request else page,), 0 if self.head_request else len(page) - end)
        except PeerGone as error:
            log.info("the peer is gone: %s", error)
            return Outcome.BROKEN
        return self._conclude_somehow(_WHOLE)


def request_line(slot: Slot) -> str:
    """Method and address of the request, for the log."""
    variables = slot.variables
    return f"{variables.get('REQUEST_METHOD', '-')} {variables.get('REQUEST_URI', variables.get('PATH_INFO', '-'))}"


def log_failure(slot: Slot, error: BaseException) -> None:
    """One error record with the request's identity and the whole traceback."""
    line = request_line(slot)
    try:
        log.error("%s: %s while answering %s", type(error).__name__, error, line, exc_info=error)
    except BaseException:  # its own __str__ raises, whatever that is, or there is no memory for a traceback
        log.error("%s while answering %s", type(error).__name__, line)
        traceback.print_tb(error.__traceback__, limit=20, file=sys.stderr)
