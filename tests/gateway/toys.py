"""A toy SCGI server whose answers are written in the tests, and a real gateway process in front of it."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support import Process, free_port, start

PROGRAM = Path(__file__).with_name("gateway_program.py")


@dataclass
class Conversation:
    """One request as the toy server got it, read by code that shares nothing with ``src``."""

    peer: socket.socket
    variables: dict[str, str] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    received: bytes = b""

    def read_head(self) -> None:
        while b":" not in self.received:
            self.received += self._more()
        size, _, rest = self.received.partition(b":")
        while len(rest) <= int(size):
            rest += self._more()
        block, comma, self.received = (
            rest[: int(size)],
            rest[int(size) : int(size) + 1],
            rest[int(size) + 1 :],
        )
        assert comma == b","
        items = block.decode("latin-1").split("\0")
        self.names = items[:-1:2]
        self.variables = dict(zip(self.names, items[1::2], strict=True))

    def body(self) -> Iterator[bytes]:
        """The request's body, piece by piece."""
        left = int(self.variables["CONTENT_LENGTH"])
        while left:
            piece = self.received or self._more()
            self.received = b""
            left -= len(piece)
            yield piece

    def send(self, data: bytes) -> None:
        self.peer.sendall(data)

    def answer(self, body: bytes, *headers: str) -> None:
        lines = ["Status: 200 OK", *headers, f"Content-Length: {len(body)}", "", ""]
        self.send("\r\n".join(lines).encode("latin-1") + body)

    def reset(self) -> None:
        """Close so that a TCP peer sees a reset."""
        self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.peer.close()

    def wait_for(self, event: threading.Event) -> None:
        assert event.wait(10), "the test did not go on"

    def wait_for_eof(self) -> None:
        while self.peer.recv(65536):
            pass

    def _more(self) -> bytes:
        data = self.peer.recv(65536)
        if not data:
            raise EOFError("the gateway closed within the request")
        return data


Answer = Callable[[Conversation], None]


class Upstream:
    """Answers each connection in a thread of its own, as the test at hand has it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answer: Answer = lambda talk: talk.answer(b"hello")
        self.last: Conversation | None = None
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        if address.startswith("unix:"):
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(address.removeprefix("unix:"))
        else:
            self.listener = socket.create_server(("127.0.0.1", int(address.rpartition(":")[2])))
        self.listener.listen(50)
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._talk, args=(peer, self.answer))
            thread.start()
            self._threads.append(thread)

    def _talk(self, peer: socket.socket, answer: Answer) -> None:
        peer.settimeout(20)
        with peer:
            talk = Conversation(peer)
            try:
                talk.read_head()
                self.last = talk
                answer(talk)
            except (OSError, EOFError):
                pass  # the gateway may leave when it likes
            except BaseException as error:
                self.errors.append(error)

    def settle(self) -> None:
        """Wait for all conversations; raise what one of them found wrong."""
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "a conversation with the gateway does not end"
        self._threads.clear()
        if self.errors:
            raise self.errors.pop()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(5)
        self.listener.close()


@dataclass
class Site:
    """A gateway process and the toy server behind it."""

    gateway: Process
    upstream: Upstream
    address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}"


@contextmanager
def start_gateway(upstream: str, folder: Path, **options: float) -> Iterator[Process]:
    address = f"127.0.0.1:{free_port()}"
    arguments = [f"{name}={value}" for name, value in options.items()]
    command = [sys.executable, str(PROGRAM), address, upstream, *arguments]
    process = start(command, log_file=folder / "gateway.log", address=address)
    try:
        yield process
    finally:
        if process.running():
            process.stop()
        process.kill()
        print(f"--- log of the gateway ---\n{process.log()}")


@contextmanager
def build_site(kind: str, folder: Path, **options: float) -> Iterator[Site]:
    upstream = Upstream(f"unix:{folder}/upstream" if kind == "unix" else f"127.0.0.1:{free_port()}")
    try:
        with start_gateway(upstream.address, folder, **options) as gateway:
            yield Site(gateway, upstream, gateway.address)
    finally:
        upstream.close()
