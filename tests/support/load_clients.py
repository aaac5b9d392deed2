"""Many clients in one process, for `load.py`: each asks for `echo.py`'s answers again and again, and checks them whole.

::

    python load_clients.py '{"where": "/tmp/s", "clients": 64, "total": 1000, …}'

Its result is a line of JSON; what goes on meanwhile stands in shared memory. It imports nothing of ours: it starts
quickly, and judges by itself.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import select
import socket
import struct
import sys
import time
import zlib
from collections import deque
from typing import Any

COUNTERS = struct.Struct("=QQQQ")  # answered, lost, refused, sent and not yet answered
STOP = COUNTERS.size  # offset of the byte that says: ask no more

_AGAIN_IN = 0.01  # after a refused connection
_HEAD = b"Status: 200 OK\r\n"
_NOBODY_THERE = {errno.ECONNREFUSED, errno.ENOENT}
_QUEUE_FULL = {errno.EAGAIN, errno.ECONNABORTED, errno.ETIMEDOUT}


class Client:
    """One connection at a time, and what is expected of it."""

    __slots__ = ("began", "connected", "expected", "number", "received", "sock", "to_send")
    number: int
    sock: socket.socket
    began: float
    connected: bool
    to_send: bytes
    expected: bytes
    received: list[bytes]


class Clients:
    def __init__(self, orders: dict[str, Any]) -> None:
        where = orders["where"]
        self.where: Any = where if isinstance(where, str) else tuple(where)
        self.family = socket.AF_UNIX
        if not isinstance(where, str):
            self.family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        self.path: str = orders["path"]
        self.total: int = orders["total"]
        self.within: float = orders["within"]
        self.memory = mmap.mmap(orders["memory"], 0)
        self.poller = select.epoll()
        self.busy: dict[int, Client] = {}
        self.sent: set[int] = set()  # those of them that have asked
        self.resting: deque[tuple[float, Client]] = deque()
        for _ in range(orders["clients"]):
            self.resting.append((0.0, Client()))
        self.number = orders["first"]
        self.answered = self.refused = self.full = 0
        self.lost: list[tuple[int, float, float, str]] = []
        self.first_answer = self.last_answer = 0.0
        self.gaps: list[tuple[float, float]] = []  # the longest ones: length, end
        self.slowest = 0.0
        self.processes: dict[str, int] = {}
        self.versions: dict[str, list[float]] = {}  # how many answers, the first, the last

    def run(self) -> dict[str, Any]:
        began = self.last_answer = time.monotonic()
        next_round = 0.0
        while self.busy or self.resting:
            now = time.monotonic()
            while self.resting and self.resting[0][0] <= now:
                client = self.resting.popleft()[1]
                if self.wanted():
                    self.begin(client, now)
            for fd, _ in self.poller.poll(0.05 if not self.resting else _AGAIN_IN):
                self.go_on(fd)
            if (now := time.monotonic()) > next_round:
                next_round = now + 0.25
                for fd, client in list(self.busy.items()):
                    if now - client.began > self.within:
                        self.lose(fd, f"no answer within {self.within:g} s")
            self.publish()
        ended = time.monotonic()
        return {
            "answered": self.answered,
            "refused": self.refused,
            "full": self.full,
            "lost": self.lost,
            "gaps": self.gaps,
            "slowest": self.slowest,
            "processes": self.processes,
            "versions": self.versions,
            "began": began,
            "took": ended - began,
        }

    def wanted(self) -> bool:
        """Whether another request is to be made."""
        if self.memory[STOP]:
            return False
        return not self.total or self.answered + len(self.lost) + len(self.busy) < self.total

    def publish(self) -> None:
        COUNTERS.pack_into(self.memory, 0, self.answered, len(self.lost), self.refused, len(self.sent))

    def begin(self, client: Client, now: float) -> None:
        """Connect and, where that is done at once, send the next request."""
        self.number += 1
        client.number = self.number
        client.received = []
        client.began = now
        client.connected = False
        client.to_send, client.expected = request(self.number, self.path)
        client.sock = socket.socket(self.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        error = client.sock.connect_ex(self.where)
        fd = client.sock.fileno()
        self.busy[fd] = client
        self.poller.register(fd, select.EPOLLIN | select.EPOLLOUT)
        if error and error != errno.EINPROGRESS:
            self.not_connected(fd, error)
        elif not error:
            client.connected = True
            self.go_on(fd)

    def go_on(self, fd: int) -> None:
        """Send and read what can be sent and read."""
        if (client := self.busy.get(fd)) is None:
            return
        try:
            if not client.connected:
                if error := client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    return self.not_connected(fd, error)
                client.connected = True
            if client.to_send:
                sent = client.sock.send(client.to_send)
                client.to_send = client.to_send[sent:]
                if not client.to_send:
                    self.sent.add(fd)
                    self.poller.modify(fd, select.EPOLLIN)
                return
            chunk = client.sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as failure:
            if not client.connected:
                return self.not_connected(fd, failure.errno or 0)
            return self.lose(fd, f"{type(failure).__name__} after {len(b''.join(client.received))} bytes")
        if chunk:
            client.received.append(chunk)
        else:
            self.judge(fd, client, b"".join(client.received))

    def not_connected(self, fd: int, error: int) -> None:
        if error in _NOBODY_THERE:
            self.refused += 1
        elif error in _QUEUE_FULL:
            self.full += 1
        else:
            return self.lose(fd, f"connect: {os.strerror(error)}")
        self.free(fd, _AGAIN_IN)

    def judge(self, fd: int, client: Client, answer: bytes) -> None:
        now = time.monotonic()
        head, _, body = answer.partition(b"\r\n\r\n")
        start, _, rest = body.partition(b" ")
        process, _, rest = rest.partition(b" ")
        if not answer:
            return self.lose(fd, "closed without an answer")
        if answer.count(b"Status: ") > 1:
            return self.lose(fd, f"two answers: {answer!r}")
        if not head.startswith(_HEAD) or rest != client.expected or b"\r\nContent-Length: %d" % len(body) not in head:
            return self.lose(fd, f"a wrong answer: {answer[:200]!r}")
        self.answered += 1
        self.publish()  # before this client asks again: who counts elsewhere is at most one ahead of each
        version = self.versions.setdefault(start.decode(), [0, now, now])
        version[0] += 1
        version[2] = now
        name = process.decode()
        self.processes[name] = self.processes.get(name, 0) + 1
        self.slowest = max(self.slowest, now - client.began)
        if self.answered > 1 and (len(self.gaps) < 10 or now - self.last_answer > self.gaps[-1][0]):
            self.gaps = sorted([*self.gaps, (now - self.last_answer, now)], reverse=True)[:10]
        self.last_answer = now
        self.free(fd)

    def lose(self, fd: int, what: str) -> None:
        client = self.busy[fd]
        self.lost.append((client.number, client.began, time.monotonic(), what))
        self.free(fd, _AGAIN_IN)

    def free(self, fd: int, rest: float = 0.0) -> None:
        client = self.busy.pop(fd)
        self.sent.discard(fd)
        client.sock.close()
        if rest:
            self.resting.append((time.monotonic() + rest, client))
        elif self.wanted():
            self.begin(client, time.monotonic())


def request(number: int, path: str) -> tuple[bytes, bytes]:
    """A request unlike all others, and what its answer's text is after version and process."""
    length = number * 7919 % 3000
    if number % 50 == 0:
        length += 200_000
    body = b""
    if number % 10 == 0:
        body = b"%d," % number * (number * 31 % 1000)
    query = b"%d-%d" % (number, length)
    cookie = b"session=%032x; theme=dark" % (number * 2654435761)
    block = b"\0".join(
        (
            b"CONTENT_LENGTH", b"%d" % len(body), b"REQUEST_METHOD", b"POST" if body else b"GET",
            b"REQUEST_URI", b"%s?%s" % (path.encode(), query), b"QUERY_STRING", query, b"CONTENT_TYPE", b"",
            b"DOCUMENT_URI", path.encode(), b"DOCUMENT_ROOT", b"/usr/share/nginx/html", b"SCGI", b"1",
            b"SERVER_PROTOCOL", b"HTTP/1.1", b"REQUEST_SCHEME", b"http", b"REMOTE_ADDR", b"127.0.0.1",
            b"REMOTE_PORT", b"%d" % (20000 + number % 40000), b"SERVER_PORT", b"80", b"SERVER_NAME", b"shop.example",
            b"SCRIPT_NAME", b"", b"PATH_INFO", path.encode(), b"HTTP_HOST", b"shop.example",
            b"HTTP_USER_AGENT", b"Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0",
            b"HTTP_ACCEPT", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            b"HTTP_X_REQUEST_ID", b"load-%d" % number, b"HTTP_COOKIE", cookie, b"",
        )
    )  # fmt: skip
    digits = b"%d" % number
    filling = (digits * (length // len(digits) + 1))[:length]
    expected = b"%d %d %s\n%s" % (number, zlib.crc32(body), cookie, filling)
    return b"%d:%s,%s" % (len(block), block, body), expected


def main() -> None:
    print(json.dumps(Clients(json.loads(sys.argv[1])).run()), flush=True)


if __name__ == "__main__":
    main()
