"""Load on a server of `echo.py`, from a process of its own, and what became of each request::

    with Load(server.address, clients=64) as load:
        wait_until(lambda: load.answered > 1000)
        server.signal(SIGHUP)
        …
    assert not load.report.lost

A request is *lost* when it was sent into an open connection and its answer did not come, or was not the right one to
the last byte. It is *refused* when nobody listened: a web server would know that it can ask another.
"""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from support import load_clients
from support.addresses import split_address
from support.facts import wait_until

ECHO = Path(__file__).with_name("echo.py")


def write_application(file: Path, version: str, *, first: str = "", last: str = "") -> Path:
    """`echo.py` with this version, and with lines of one's own before and after its code."""
    head, future, rest = ECHO.read_text().partition("from __future__ import annotations\n")
    assert 'VERSION = "1"' in rest
    new = file.with_name(f".{file.name}.new")
    new.write_text(head + future + first + rest.replace('VERSION = "1"', f'VERSION = "{version}"') + last)
    new.replace(file)
    return file


class Loss(NamedTuple):
    """A request that was lost: its number, when it began and when it was lost (monotonic), and how."""

    number: int
    began: float
    ended: float
    what: str


@dataclass(frozen=True, slots=True)
class Version:
    """How many answers came from code of one version, and when the first and the last did (monotonic)."""

    answers: int
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Report:
    answered: int
    refused: int  # nobody listened
    full: int  # the queue was full
    lost: list[Loss]
    gaps: list[tuple[float, float]]  # the ten longest times between two answers: how long, and when it ended
    slowest: float  # the time that the slowest answer took
    processes: dict[int, int]  # answers from each worker
    versions: dict[str, Version]
    began: float
    took: float

    @property
    def longest_gap(self) -> float:
        return self.gaps[0][0] if self.gaps else 0.0

    def __str__(self) -> str:
        return (
            f"{self.answered} answered ({self.answered / self.took:.0f}/s), {len(self.lost)} lost, "
            f"{self.refused} refused, longest gap {self.longest_gap * 1000:.0f} ms, "
            f"slowest {self.slowest * 1000:.0f} ms, {len(self.processes)} workers"
        )


class Load:
    """`clients` clients that ask again and again: `total` times, or (0) as long as the context lasts."""

    def __init__(
        self, address: str, *, clients: int = 64, total: int = 0, pause: float = 0.0, within: float = 30, first: int = 0
    ) -> None:
        self.report: Report
        self._result = b""
        self._shared = os.memfd_create("load")
        os.truncate(self._shared, load_clients.STOP + 1)
        self._memory = mmap.mmap(self._shared, 0)
        self._orders = {
            "where": split_address(address),
            "clients": clients,
            "total": total,
            "path": f"/{pause:g}" if pause else "/",  # how long each request takes
            "within": within,
            "memory": self._shared,
            "first": first,
        }

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(
            [sys.executable, load_clients.__file__, json.dumps(self._orders)],
            stdout=subprocess.PIPE,
            pass_fds=[self._shared],
        )
        return self

    def __exit__(self, kind: object, *failure: object) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self._process.kill()
            self._process.communicate()
            self._memory.close()
            os.close(self._shared)

    def stop(self) -> Report:
        """Ask no more, wait for what was asked."""
        self._memory[load_clients.STOP] = 1
        return self.wait(within=self._orders["within"] + 10)  # type: ignore[operator]

    def wait(self, within: float = 100) -> Report:
        """Until `total` requests are over."""
        if not self._result:
            try:
                self._result = self._process.communicate(timeout=within)[0]
            except subprocess.TimeoutExpired:
                pytest.fail(f"the load does not end within {within:g} s: {self._counters()}")
            if self._process.returncode:
                pytest.fail("the load's own program failed; see its traceback above")
            found = json.loads(self._result)
            found["lost"] = [Loss(*loss) for loss in found["lost"]]
            found["processes"] = {int(pid): count for pid, count in found["processes"].items()}
            found["versions"] = {name: Version(*what) for name, what in found["versions"].items()}
            found["gaps"] = [tuple(gap) for gap in found["gaps"]]
            self.report = Report(**found)
        return self.report

    def _counters(self) -> Sequence[int]:
        found: tuple[int, ...] = load_clients.COUNTERS.unpack_from(self._memory, 0)
        return found

    @property
    def answered(self) -> int:
        return self._counters()[0]

    @property
    def lost(self) -> int:
        return self._counters()[1]

    @property
    def refused(self) -> int:
        return self._counters()[2]

    @property
    def waiting(self) -> int:
        """Requests that are sent and not answered yet."""
        return self._counters()[3]

    def wait_for_more(self, count: int = 100, within: float = 20) -> None:
        """Until so many more requests are answered."""
        wanted = self.answered + count
        wait_until(lambda: self.answered >= wanted, within, f"{count} more answers (lost so far: {self.lost})")
