"""Clients that ask an Apache again and again, each time over a new connection, and know what the answer should be."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from types import TracebackType
from typing import Self

from apache_module.asking import request, send
from support import wait_until
from support.apache_module import Apache


class Clients:
    """`count` of them, as long as the context lasts. Each tenth request is a POST, which may not be repeated.

    `kind` is where a path begins: "/slow" asks for what takes the echo server a while.
    """

    def __init__(self, web: Apache, mount: str, count: int = 8, kind: str = "") -> None:
        self._web, self._mount, self._kind = web, mount, kind
        self._numbers = itertools.count()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(count)]
        self.answered = 0
        self.lost: list[str] = []  # what should have been answered
        self.posts: Counter[int] = Counter()  # by status; 0: none

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for_more(self, count: int = 50) -> None:
        wanted = self.answered + count
        wait_until(lambda: self.answered >= wanted, 30, f"{count} more answers (lost so far: {self.lost[:3]})")

    def _ask_on(self) -> None:
        while not self._over.is_set():
            number = next(self._numbers)
            path = f"{self._kind}/{number}"
            if number % 10 == 9:
                self._note(number, path, request(self._mount + path, "POST", (), b"x" * 1000))
            else:
                self._note(number, path, request(self._mount + path))

    def _note(self, number: int, path: str, asked: bytes) -> None:
        try:
            answer = send(self._web, asked)
        except OSError as error:
            self.lost.append(f"{number}: {error!r}")
            return
        right = (answer.status, answer.body, answer.whole) == (200, path.encode(), True)
        if asked.startswith(b"POST"):
            self.posts[answer.status] += 1
            if not right and answer.status != 502:
                self.lost.append(f"{number}: POST: {answer.raw[:100]!r}")
        elif not right:
            self.lost.append(f"{number}: {answer.raw[:100]!r}")
        self.answered += right
