"""Many clients at once, and what became of each of their requests."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from support import Process, Response, build_request, parse_response, scgi_request, wait_until
from support.addresses import connect


def ask(address: str, target: str, within: float = 20) -> Response:
    """One request for a path, with a query perhaps."""
    path, _, query = target.partition("?")
    return scgi_request(address, path=path, query=query, within=within)


def rest_of(peer: socket.socket) -> Response:
    """The answer to a request that was begun."""
    return parse_response(b"".join(iter(lambda: peer.recv(65536), b"")))


@contextmanager
def begun(address: str, path: str) -> Iterator[socket.socket]:
    """A request that is sent, and whose answer nobody reads yet."""
    with connect(address) as peer:
        peer.sendall(build_request(path=path))
        yield peer


def dozing(server: Process) -> int:
    """The worker that has taken the request for `/doze`, once one has."""
    return int(wait_until(lambda: re.search(r"^dozing: (\d+)\n", server.log(), re.MULTILINE))[1])


def at_once(address: str, count: int, path: str, within: float = 20) -> list[Response]:
    """`count` requests at the same moment; all their answers."""
    gate = threading.Barrier(count)

    def one() -> Response:
        gate.wait()
        return ask(address, path, within)

    with ThreadPoolExecutor(count) as clients:
        futures = [clients.submit(one) for _ in range(count)]
        return [future.result() for future in futures]


@contextmanager
def background(address: str, *paths: str, within: float = 20) -> Iterator[list[Future[Response]]]:
    """Requests that run while the test goes on; an answer is `future.result()`."""
    with ThreadPoolExecutor(len(paths)) as clients:
        yield [clients.submit(ask, address, path, within) for path in paths]


@dataclass
class Crowd:
    """`size` clients that ask again and again, as long as the context lasts."""

    address: str
    size: int = 8
    path: str = "/sleep/0.002"
    answered: int = 0
    refused: int = 0  # could not connect: another server would have been asked
    lost: list[tuple[float, str]] = field(default_factory=list)  # when connected (monotonic), and what happened

    def __enter__(self) -> Crowd:
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.size)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        request = build_request(path=self.path)
        while not self._over.is_set():
            try:
                peer = connect(self.address, 20)
            except OSError:
                with self._lock:
                    self.refused += 1
                self._over.wait(0.01)
                continue
            connected = time.monotonic()
            try:
                with peer:
                    peer.sendall(request)
                    answer = rest_of(peer)
                assert answer.status == 200 and answer.body, answer
            except (OSError, AssertionError) as failure:
                with self._lock:
                    self.lost.append((connected, repr(failure)))
            else:
                with self._lock:
                    self.answered += 1
