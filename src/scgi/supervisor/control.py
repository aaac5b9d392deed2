"""The control socket: root and the server's own user give an order in a line of JSON and are answered in such lines.

::

    → {"order": "reload"}
    ← {"progress": "generation 3 loads"}
    ← {"done": true, "generation": 3, "seconds": 0.8}

What an order means is the master's business. This file only hears it, and never waits: a client that says nothing, or
does not read, costs a descriptor for a while and holds up nobody. Imports `net`.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import socket
import struct
import time
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from pathlib import Path
from typing import Any, Final

from scgi.net.address import Address
from scgi.net.listen import open_listener
from scgi.net.rendezvous import TELLS_PEERS

log = logging.getLogger("scgi.control")

ORDERS: Final = ("status", "stacks", "reload", "stop")
MOST_CLIENTS: Final = 64  # who have not said what they want, or are reading the answer
MOST_WAITING: Final = 256  # for their order to be carried out
LONGEST_ORDER: Final = 64 << 10
LONGEST_ANSWER: Final = 4 << 20  # bytes that wait for a client to read them
PATIENCE: Final = 10.0  # seconds to give the order, and to read the end of the answer
_BACKLOG: Final = 128
_DEAF: Final = 1.0  # seconds without accepting after no descriptor was left for it
_CREDENTIALS: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid


class Turn(Enum):
    """Whose turn it is between a client and us."""

    SPEAKING = 0  # it is to give its order
    WAITING = 1  # we are to answer
    READING = 2  # it has the end of the answer to read


@dataclass(slots=True, eq=False)
class Client:
    """A connection."""

    sock: socket.socket
    deadline: float  # for what it has to do; none while it waits
    turn: Turn = Turn.SPEAKING
    received: bytes = b""
    unsent: bytes = b""
    events: int = 0  # what the selector watches it for
    silent: bool = False  # it has said all that it will, but may still read
    gone: bool = False

    def receive(self) -> bytes | None:
        """The line with the order once it is there, be it too long; what comes after it is not looked at."""
        try:
            data = self.sock.recv(LONGEST_ORDER)
        except BlockingIOError:
            return None
        except OSError:
            self.gone = True
            return None
        self.silent = not data
        if self.turn is not Turn.SPEAKING:
            return None
        self.received += data
        if b"\n" in self.received or len(self.received) > LONGEST_ORDER or (self.silent and self.received):
            return self.received.partition(b"\n")[0]
        self.gone = self.silent
        return None

    def flush(self) -> None:
        """Send what can be sent now."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
        except BlockingIOError:
            self.gone = self.gone or len(self.unsent) > LONGEST_ANSWER
        except OSError:
            self.gone = True


@dataclass(frozen=True, slots=True)
class Order:
    """What a client wants. To answer one that has left meanwhile is no error."""

    name: str
    arguments: dict[str, Any]
    _control: Control = field(repr=False)
    _client: Client = field(repr=False)

    def say(self, message: dict[str, Any]) -> None:
        """Tell it something; it goes on waiting."""
        self._control._send(self._client, message)

    def finish(self, message: dict[str, Any]) -> None:
        """The last line; then the connection is closed."""
        self._control._send(self._client, message, last=True)


class Control:
    """Listens at `path`, with mode 0600. Raises `ListenError` if that cannot be, or a live server has it."""

    def __init__(self, path: Path) -> None:
        self._listener = open_listener(Address("unix", path=str(path)), backlog=_BACKLOG, socket_mode=0o600)
        self._listener.sock.setblocking(False)
        self.path = path
        self._clients: list[Client] = []  # the longest connected first
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener.sock, selectors.EVENT_READ)
        self._deaf_until = 0.0

    def fileno(self) -> int:
        """Readable when there is something to hear. `hear` wants to be called then, and about once a second."""
        return self._selector.fileno()

    def descriptors(self) -> list[int]:
        """All that a child process must not keep: clients would wait for its end instead of ours."""
        return [self.fileno(), self._listener.sock.fileno(), *(client.sock.fileno() for client in self._clients)]

    def hear(self, now: float) -> list[Order]:
        """The orders that have come in since the last call; never waits. `now` is in monotonic seconds."""
        orders = []
        self._listen_again(now)
        for key, events in self._selector.select(0):
            client = key.data
            if client is None:
                self._admit(now)
                continue
            if events & selectors.EVENT_WRITE:
                client.flush()
            if events & selectors.EVENT_READ and (line := client.receive()) is not None:
                orders += self._read(client, line)
        for client in list(self._clients):
            client.gone = client.gone or now >= client.deadline
            self._tend(client)
        return orders

    def close(self) -> None:
        """Leave all clients, and remove the socket if it is still ours."""
        for client in list(self._clients):
            client.gone = True
            self._tend(client)
        self._selector.close()
        self._listener.close()

    def _admit(self, now: float) -> None:
        """Accept one; the next comes with the next call."""
        try:
            sock, _ = self._listener.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            log.warning("the control socket cannot accept: %s", error.strerror)
            self._selector.unregister(self._listener.sock)
            self._deaf_until = now + _DEAF
            return
        sock.setblocking(False)
        client = Client(sock, now + PATIENCE)
        self._clients.append(client)
        if (user := _foreign_user(sock)) is not None:
            log.warning("the control socket has refused user %d", user)
            self._refuse(client, "only root and the user who runs the server may give it orders")
        else:
            self._make_room()

    def _listen_again(self, now: float) -> None:
        if 0 < self._deaf_until <= now:
            self._deaf_until = 0.0
            self._selector.register(self._listener.sock, selectors.EVENT_READ)

    def _make_room(self) -> None:
        """Who is silent, or does not read, makes room for others; who waits for us stays."""
        idlers = [client for client in self._clients if client.turn is not Turn.WAITING or client.silent]
        if len(idlers) > MOST_CLIENTS:
            idlers[0].gone = True
            self._tend(idlers[0])

    def _read(self, client: Client, line: bytes) -> list[Order]:
        try:
            found = json.loads(line) if len(line) <= LONGEST_ORDER else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or found.get("order") not in ORDERS:
            names = ", ".join(f'"{name}"' for name in ORDERS)
            self._refuse(client, f'expected a line with a JSON object whose "order" is one of {names}')
            return []
        if sum(other.turn is Turn.WAITING for other in self._clients) >= MOST_WAITING and found["order"] == "reload":
            self._refuse(client, f"{MOST_WAITING} others wait for their orders to be carried out; try again later")
            return []
        client.turn = Turn.WAITING
        client.deadline = inf
        return [Order(found.pop("order"), found, self, client)]

    def _refuse(self, client: Client, sentence: str) -> None:
        self._send(client, {"refused": sentence}, last=True)

    def _send(self, client: Client, message: dict[str, Any], last: bool = False) -> None:
        if client.gone:
            return
        client.unsent += json.dumps(message).encode() + b"\n"
        client.flush()
        if last:
            client.turn = Turn.READING
            client.deadline = time.monotonic() + PATIENCE
        self._tend(client)

    def _tend(self, client: Client) -> None:
        """Watch a client for what matters now; leave it when it is gone or has been told all."""
        if client.gone or (client.turn is Turn.READING and not client.unsent):
            client.gone = True
            self._clients.remove(client)
            events = 0
        else:
            events = (0 if client.silent else selectors.EVENT_READ) | (selectors.EVENT_WRITE if client.unsent else 0)
        if client.events and events:
            self._selector.modify(client.sock, events, client)
        elif events:
            self._selector.register(client.sock, events, client)
        elif client.events:
            self._selector.unregister(client.sock)
        client.events = events
        if client.gone:
            client.sock.close()


def _foreign_user(sock: socket.socket) -> int | None:
    """The number of a user who may give no orders; None for root, for ours, and where the system does not tell."""
    if not TELLS_PEERS:
        return None
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(credentials)[1]
    return None if user in (0, os.geteuid()) else user
