"""An SCGI server for the length of a check: it notes what arrives, and answers what the check wants to see arrive.

The check's own requests carry a header with the secret of this probe, a number, and the name of the answer. Whoever
else is sent here meanwhile is told to come back later. Imports `net`, `protocol`, `errors`.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from scgi.errors import MalformedRequest, ScgiError
from scgi.net.address import Address
from scgi.net.listen import open_listener
from scgi.protocol.request import RequestReader

HEADER: Final = "X-Scgi-Check"
FIRST, SECOND = b"the first half, ", b"the second half"
LOCATION: Final = "/scgi-check/elsewhere"
_PATIENCE: Final = 10.0  # seconds without a byte of a request
LONG: Final = 3.0  # seconds: what is passed on as it comes has come by then
_LATER: Final = b"Status: 503 Service Unavailable\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n"
_PLAIN: Final = b"Status: 200 OK\r\nContent-Type: text/plain\r\n"
_TO: Final = b"Location: %s\r\n\r\n" % LOCATION.encode()
_ANSWERS: Final = {
    "plain": _PLAIN + b"Content-Length: 4\r\n\r\nhere",
    "silence": _PLAIN + b"Content-Length: 4\r\n\r\nhere",
    "location": _PLAIN + _TO + b"here",
    "redirect": b"Status: 302 Found\r\n" + _TO,
    "large-head": _PLAIN + b"".join(b"X-Large-%d: %s\r\n" % (number, b"x" * 4000) for number in range(3)) + b"\r\nhere",
    "halves": _PLAIN + b"\r\n" + FIRST,
}


@dataclass
class Sighting:
    """What arrived of one request: its variables as they came, and how much of a body."""

    variables: list[tuple[str, str]] = field(default_factory=list)
    body: int = 0
    arrived: threading.Event = field(default_factory=threading.Event)  # its head has
    go_on: threading.Event = field(default_factory=threading.Event)  # the client has seen the first half
    early: bool = False  # and it has before the second was sent

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.variables if key == name), None)


class Probe:
    """Listens from the beginning of its `with` to the end. Raises `ListenError` where it cannot."""

    def __init__(self, address: Address, silence: float = 0.0) -> None:
        self._address, self._silence = address, silence
        self._secret = secrets.token_hex(8)
        self._sightings: list[Sighting] = []
        self.malformed = ""  # what is wrong with what came last and was no SCGI request

    def __enter__(self) -> Probe:
        # Whoever the web server runs as: what it is told here is no secret.
        self._listener = open_listener(self._address, socket_mode=0o666)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.unlink()
        self._listener.sock.shutdown(socket.SHUT_RDWR)  # which ends `accept` too

    def expect(self, answer: str) -> tuple[Sighting, str]:
        """Make ready for a request: what will be seen of it, and the value of `HEADER` that it must carry."""
        self._sightings.append(Sighting())
        return self._sightings[-1], f"{self._secret} {len(self._sightings) - 1} {answer}"

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.sock.accept()
            except OSError:
                return self._listener.sock.close()
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        peer.settimeout(_PATIENCE)
        with peer:
            try:
                self._exchange(peer)
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(65536):
                    pass  # a peer that is still sending would lose the answer
            except MalformedRequest as error:
                self.malformed = str(error)
            except (OSError, ScgiError):
                pass  # it gave up: what it saw instead of an answer is judged at the other end

    def _exchange(self, peer: socket.socket) -> None:
        reader, received, head = RequestReader(require_scgi=False), b"", None
        while head is None:
            if not (piece := peer.recv(65536)):
                return
            received += piece
            head = reader.feed(piece)
        secret, number, answer = (head.variables.get("HTTP_X_SCGI_CHECK", "").split() + [""] * 3)[:3]
        if secret != self._secret:
            return peer.sendall(_LATER)
        seen = self._sightings[int(number)]
        items = received[received.index(b":") + 1 : head.end - 1].decode("latin-1").split("\0")
        seen.variables, seen.body = list(zip(items[::2], items[1::2], strict=False)), len(reader.rest)
        seen.arrived.set()
        # nginx before 1.29.6, unbuffered: a CONTENT_LENGTH that is too small, then the whole body.
        announced = seen.get("HTTP_CONTENT_LENGTH") or ""
        expected = max(head.content_length, int(announced) if announced.isdecimal() else 0)
        while seen.body < expected and (piece := peer.recv(65536)):
            seen.body += len(piece)
        if answer == "silence":
            time.sleep(self._silence)
        peer.sendall(_ANSWERS[answer])
        if answer == "halves":
            seen.early = seen.go_on.wait(LONG)
            peer.sendall(SECOND)
