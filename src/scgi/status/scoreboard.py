"""The scoreboard: one slot per worker thread, written by its worker, read by the pool; no locks, no messages.

::

    byte 0      0; or the pool wants to hear when nobody is idle (1, armed); or too many wait (2, crowded)
    byte 1      draining: take what is queued, then leave
    byte 2      the lobby has whole requests for whoever is free
    byte 8      when a worker last said that it cannot accept (a double, monotonic seconds)
    byte 16     when one last said that it has refused a peer (the same)
    byte 24     the pool's last turn (a double, monotonic seconds; 0 before the first)
    byte 32     requests that workers who are gone have answered; and at 40 how many of them died (the pool writes)
    64 ...      one stage byte per slot, side by side, so that "is anybody idle?" is one search
    16384 ...   one mark per slot: somebody else takes an interest in its request
    32768 ...   one mark per slot: its application reads a body that is still coming
    49152 ...   one record per slot: serial, start of the request, length of its head, its connection's descriptor,
                the head's first bytes; in its last bytes what pool and worker tell each other about this request
                (see `TAIL`)
    at the end  the lobby's figures (see `LobbyFigures`)

A record keeps the request's raw head, so that whoever finds a dead worker can say what it was doing, at the price of
one copy per request and no formatting. All of it can be written by applications too: readers trust nothing.

Imports `errors`, and `protocol` to read a head.
"""

from __future__ import annotations

import mmap
import os
import re
import socket
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

from scgi.errors import ConfigError, ProtocolError
from scgi.protocol.request import parse_head


class Stage(IntEnum):
    """What the thread of a slot is doing."""

    FREE = 0
    IDLE = 1
    READING = 2
    RUNNING = 3
    WRITING = 4
    STARTING = 5
    RESTING = 6  # it cannot accept for now: no descriptor is left
    RECEIVING = 7  # the application waits for more of its request's body


IN_APPLICATION: Final = (Stage.RUNNING, Stage.RECEIVING)  # nothing of the answer is being sent
ANSWERING: Final = (*IN_APPLICATION, Stage.WRITING)
BUSY: Final = (Stage.READING, *ANSWERING)


ARMED: Final = 0
CROWDED: Final = 2  # at ARMED: nobody has been idle for a while, and connections wait
DRAINING: Final = 1
DELIVERIES: Final = 2
COMPLAINED: Final = 8
REFUSED: Final = 16
STAGES: Final = 64
IDLE_BYTE: Final = bytes([Stage.IDLE])
HEARTBEAT: Final = 24
PAST: Final = 32
COUNTS: Final = struct.Struct("=QQ")
COMPLAINT: Final = struct.Struct("=d")
RECORD: Final = struct.Struct("=QdIi")  # serial, monotonic seconds, bytes of the head that follow, descriptor
MARKS: Final = 16384 - 64  # from a slot's stage to its mark
STREAMS: Final = 32768 - 64  # from a slot's stage to the other mark
_RECORDS_START: Final = 49152
_RECORD_SIZE: Final = 4096
# The serial that has had its time (the pool writes), the one that was interrupted for it, when the application's
# clock began anew (monotonic seconds), the serial that something was sent of, and how many peers were refused.
TAIL: Final = struct.Struct("=QQdQQ")
_CONDEMNED, _LANDED, _SINCE, _SENT, _REFUSED = range(0, TAIL.size, 8)
_NUMBER: Final = struct.Struct("=Q")
HEAD_ROOM: Final = _RECORD_SIZE - RECORD.size - TAIL.size
MAX_SLOTS: Final = 16384 - STAGES
_LOBBY: Final = struct.Struct("=IIQQ")

# A request's own id is taken over from the web server if it could not harm a log line.
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}\Z")


@dataclass(frozen=True, slots=True)
class Report:
    """What a slot says: its stage, how many requests it has begun, and the current or last one."""

    stage: int
    serial: int
    started: float
    request: str
    request_id: str
    fd: int = -1
    begun: bool = False  # some of its answer may be out
    condemned: bool = False  # it has had its time

    def describe(self, pid: int, thread: int = 0) -> str:
        """For the log: what this slot's worker, which has ended, was doing."""
        if self.stage == Stage.READING:
            return "while reading a request"
        name = self.request_id or own_id(pid, thread, self.serial)
        return f"while answering {self.request} (request {name}, {self.age():.1f} s)"

    def age(self) -> float:
        """Seconds since the request began, never negative."""
        return max(0.0, time.monotonic() - self.started)


class Sight(NamedTuple):
    """What can be seen of a slot at a moment, without the request's text. `since` is when the application's clock
    began, or began anew when the peer had taken something; `fd` the connection in the worker."""

    stage: int
    serial: int
    started: float
    since: float
    fd: int
    begun: bool
    landed: bool


class LobbyFigures(NamedTuple):
    """Connections in the lobby now, by what they wait for; and ever: answered 408, left by themselves."""

    reading: int = 0
    answering: int = 0
    too_late: int = 0
    gone: int = 0


class Totals(NamedTuple):
    """What all workers of a board have done: requests answered, deaths, peers that were not allowed."""

    requests: int = 0
    deaths: int = 0
    refused: int = 0


def added(one: Totals, other: Totals) -> Totals:
    return Totals(*map(sum, zip(one, other, strict=True)))


class Scoreboard:
    """Shared memory for `slots` slots; made before the fork, inherited by every worker."""

    def __init__(self, slots: int) -> None:
        if slots > MAX_SLOTS:
            raise ConfigError(
                f"twice the workers times their threads: expected at most {MAX_SLOTS}, got {slots}; set fewer"
            )
        self.slots = slots
        self.memory: mmap.mmap | bytearray = mmap.mmap(-1, record_offset(slots) + _LOBBY.size)

    def stages(self) -> bytes:
        """All stage bytes at this moment."""
        return bytes(self.memory[STAGES : STAGES + self.slots])

    def mark(self, slot: int, stage: Stage) -> None:
        self.memory[STAGES + slot] = stage

    def clear(self, slot: int) -> None:
        """Make a slot as new for its next worker."""
        offset, tail = record_offset(slot), tail_offset(slot)
        self.memory[offset : offset + RECORD.size] = bytes(RECORD.size)
        self.memory[tail : tail + _REFUSED] = bytes(_REFUSED)
        self.memory[STAGES + slot] = Stage.FREE
        self.memory[STAGES + STREAMS + slot] = 0
        self.lose_interest(slot)

    def beat(self, now: float) -> None:
        """The pool is alive (monotonic seconds)."""
        COMPLAINT.pack_into(self.memory, HEARTBEAT, now)

    def last_beat(self) -> float:
        """When the pool was last alive; 0 if it has not begun."""
        found: float = COMPLAINT.unpack_from(self.memory, HEARTBEAT)[0]
        return found

    def bury(self, served: int, died: bool) -> None:
        """Keep what a worker who is gone has done."""
        requests, deaths = COUNTS.unpack_from(self.memory, PAST)
        COUNTS.pack_into(self.memory, PAST, (requests + served) % 2**64, (deaths + died) % 2**64)

    def totals(self) -> Totals:
        """Since the board was made."""
        requests, deaths = COUNTS.unpack_from(self.memory, PAST)
        requests += sum(self.finished(slot) for slot in range(self.slots))
        return Totals(requests, deaths, self.refused_peers())

    def finished(self, slot: int) -> int:
        """How many requests the slot's worker has finished."""
        report = self.glance(slot)
        return report.serial - (report.stage in ANSWERING and report.serial > 0)

    def may_complain(self, slot: int, now: float) -> bool:
        """Whether this slot is the first that rests, and nobody has complained in the last second; counts as one."""
        if self.stages().find(Stage.RESTING) != slot:
            return False
        return self._first_within_a_second(COMPLAINED, now)

    def refuse_peer(self, slot: int, now: float) -> bool:
        """Count a peer that the worker at this slot has turned away; whether nobody has said so in the last second."""
        place = tail_offset(slot) + _REFUSED
        count = _NUMBER.unpack_from(self.memory, place)[0]
        _NUMBER.pack_into(self.memory, place, (count + 1) % 2**64)
        return self._first_within_a_second(REFUSED, now)

    def refused_peers(self) -> int:
        """How many peers were turned away, since the board was made."""
        places = (tail_offset(slot) + _REFUSED for slot in range(self.slots))
        return sum(_NUMBER.unpack_from(self.memory, place)[0] for place in places)

    def _first_within_a_second(self, place: int, now: float) -> bool:
        before = COMPLAINT.unpack_from(self.memory, place)[0]
        if 0 <= now - before < 1.0:
            return False
        COMPLAINT.pack_into(self.memory, place, now)
        return True

    def glance(self, slot: int) -> Report:
        """A report without the request's text, for those who only count."""
        serial, started, _, _ = RECORD.unpack_from(self.memory, record_offset(slot))
        return Report(self.memory[STAGES + slot], serial, started, "", "")

    def sight(self, slot: int) -> Sight:
        """A slot at this moment, or nearly: its worker goes on meanwhile."""
        stage = self.memory[STAGES + slot]
        serial, started, _, fd = RECORD.unpack_from(self.memory, record_offset(slot))
        _, landed, since, sent, _ = TAIL.unpack_from(self.memory, tail_offset(slot))
        begun = 0 < serial == sent or stage == Stage.WRITING
        return Sight(stage, serial, started, max(started, since), fd, begun, 0 < serial == landed)

    def report(self, slot: int) -> Report:
        """The whole report."""
        offset = record_offset(slot)
        serial, started, size, fd = RECORD.unpack_from(self.memory, offset)
        start = offset + RECORD.size
        head = self.memory[start : start + min(size, HEAD_ROOM)]
        stage = self.memory[STAGES + slot]
        condemned, _, _, sent, _ = TAIL.unpack_from(self.memory, tail_offset(slot))
        begun = 0 < serial == sent or stage == Stage.WRITING
        return Report(
            stage, serial, started, *describe(bytes(head)), fd if serial else -1, begun, 0 < serial == condemned
        )

    def take_interest(self, slot: int) -> None:
        """From now on the slot's request ends the long way, with an eye on what others have done about it."""
        self.memory[STAGES + MARKS + slot] = 1

    def lose_interest(self, slot: int) -> None:
        self.memory[STAGES + MARKS + slot] = 0

    def condemn(self, slot: int, serial: int) -> None:
        """This request has had its time: it is to be interrupted."""
        _NUMBER.pack_into(self.memory, tail_offset(slot) + _CONDEMNED, serial)

    def condemned(self, slot: int) -> int:
        """The serial of the slot's request that has had its time; 0 for none."""
        found: int = _NUMBER.unpack_from(self.memory, tail_offset(slot) + _CONDEMNED)[0]
        return found

    def note_landed(self, slot: int, serial: int) -> None:
        """This request was interrupted."""
        _NUMBER.pack_into(self.memory, tail_offset(slot) + _LANDED, serial)

    def note_lobby(self, figures: LobbyFigures) -> None:
        _LOBBY.pack_into(self.memory, record_offset(self.slots), *figures)

    def lobby(self) -> LobbyFigures:
        return LobbyFigures(*_LOBBY.unpack_from(self.memory, record_offset(self.slots)))

    def detach(self) -> None:
        """From now on this process has a board of its own, which nobody reads."""
        self.memory = bytearray(len(self.memory))

    def close(self) -> None:
        if isinstance(self.memory, mmap.mmap):
            self.memory.close()


def record_offset(slot: int) -> int:
    """Where the record of a slot begins."""
    return _RECORDS_START + slot * _RECORD_SIZE


def tail_offset(slot: int) -> int:
    """Where the tail of a slot's record begins."""
    return record_offset(slot + 1) - TAIL.size


def describe(head: bytes) -> tuple[str, str]:
    """`GET /path` and the web server's id of a request whose head may be cut, as they came (the log escapes)."""
    try:
        parsed = parse_head(head, require_scgi=False)
    except ProtocolError:
        parsed = None
    if parsed is not None:
        found = parsed.variables
    else:
        items = head.partition(b":")[2].decode("latin-1").split("\0")
        found = dict(zip(items[::2], items[1::2], strict=False))
    method = found.get("REQUEST_METHOD", "a request")
    target = found.get("REQUEST_URI") or found.get("DOCUMENT_URI") or found.get("SCRIPT_NAME", "")
    return f"{method} {target}".strip()[:300], plain_id(found.get("HTTP_X_REQUEST_ID"))


def plain_id(given: str | None) -> str:
    """A request id that came from outside, if it could harm no log line; else nothing."""
    return given if given and _PLAIN_ID.match(given) else ""


def own_id(pid: int, thread: int, serial: int) -> str:
    """The id of a request that came without one; `thread` counts from 1 where a worker has several, else it is 0."""
    return f"{pid}-{thread}.{serial}" if thread else f"{pid}-{serial}"


class Slot:
    """A worker thread's own view of its slot and of the request it runs.

    `fd` is the connection, -1 between requests; `variables` are the current request's; `status` and `sent` are what
    was answered, for the access log; `number` is the thread's for the ids of its requests. `forked`: this process is
    not the slot's worker, but one that the application has forked. `lobby` is where slow connections are handed to.
    """

    __slots__ = (
        "board", "fd", "forked", "index", "lobby", "number", "pid", "sent", "serial", "slots", "status", "tail",
        "thread", "variables",
    )  # fmt: skip

    def __init__(self, board: Scoreboard, slot: int, number: int = 0, lobby: socket.socket | None = None) -> None:
        self.board = board.memory
        self.index = STAGES + slot
        self.tail = tail_offset(slot)
        self.slots = board.slots
        self.lobby = lobby
        self.fd = -1
        self.forked = False
        self.number = number
        self.pid = os.getpid()
        self.serial = 0
        self.status = 0
        self.sent = 0
        self.thread = 0
        self.variables: dict[str, str] = {}

    def note_sent(self) -> None:
        """The first bytes of an answer go out: no other answer is possible."""
        _NUMBER.pack_into(self.board, self.tail + _SENT, self.serial)

    def note_step(self) -> None:
        """The peer has taken something: the application's clock begins anew."""
        COMPLAINT.pack_into(self.board, self.tail + _SINCE, time.monotonic())

    def begin_stream(self) -> bool:
        """Whether the application may read a body that is still coming: few may at a time, for a peer can stop in the
        middle of it. A quarter of the workers, that is, and none of less than four: there are twice as many slots."""
        first = STAGES + STREAMS
        self.board[self.index + STREAMS] = 1  # before one counts: of two at the same time neither overlooks the other
        if self.board[first : first + self.slots].count(1) <= self.slots // 8:
            return True
        self.end_stream()
        return False

    def end_stream(self) -> None:
        self.board[self.index + STREAMS] = 0

    def request_id(self) -> str:
        """The web server's id for the request if it is plain, else our own."""
        return plain_id(self.variables.get("HTTP_X_REQUEST_ID")) or own_id(self.pid, self.number, self.serial)
