"""Programs under test: started in a session of their own, watched through /proc, stopped with a deadline."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGTERM

import pytest

from support.addresses import is_listening
from support.facts import wait_until

# Whatever a program starts inherits this variable, so that what it leaves behind can be found.
MARK = "TEST_STARTED_PROCESS"


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    return _state_and_parent(pid)[0] not in ("", "Z", "X")


def children_of(pid: int) -> list[int]:
    """The living children of a process, by number."""
    return sorted(child for child in _pids() if _parent_if_alive(child) == pid)


def descendants_of(pid: int) -> list[int]:
    """Living children, their children, and so on."""
    found = [pid]
    for parent in found:
        found += children_of(parent)
    return found[1:]


def title_of(pid: int) -> str:
    """What ``ps`` shows for it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def resident_bytes(pid: int) -> int:
    """The memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Process:
    """One running program; ``start`` makes it."""

    def __init__(self, popen: subprocess.Popen[bytes], name: str, mark: str, log_file: Path, address: str) -> None:
        self.popen = popen
        self.pid = popen.pid
        self._command = [str(word) for word in popen.args] if isinstance(popen.args, list) else []
        self.name = name
        self.address = address
        self.log_file = log_file
        self._mark = f"{MARK}={mark}".encode()

    def log(self) -> str:
        """What it wrote to standard error and standard output so far."""
        return self.log_file.read_text(errors="replace")

    def children(self) -> list[int]:
        return children_of(self.pid)

    def descendants(self) -> list[int]:
        """Its children and theirs: with ``scgi serve`` the pools and their workers."""
        return descendants_of(self.pid)

    def pools(self) -> list[int]:
        """With ``scgi serve``: the pools, also one that is still loading, the oldest first."""
        return [child for child in self.children() if title_of(child).startswith("scgi: pool")]

    def workers(self) -> list[int]:
        """The processes that answer requests: children of ``SCGIServer``; of the pools, with ``scgi serve``.

        What a pool that is loading forks is none; a worker whose pool has died is still one.
        """
        if "serve" not in self._command:
            log = self.log()  # its lobby is a child too, and has no title there
            return [pid for pid in self.children() if f"worker {pid} started" in log]
        loaded = [pool for pool in self.pools() if not title_of(pool).endswith(", loading")]
        found = [worker for parent in (self.pid, *loaded) for worker in children_of(parent)]
        return sorted(pid for pid in found if title_of(pid).startswith("scgi: worker"))

    def signal(self, number: int = SIGHUP) -> None:
        self.popen.send_signal(number)

    def running(self) -> bool:
        return self.popen.poll() is None

    def wait(self, within: float = 10) -> int:
        """Its exit status once it has ended by itself (negative: the signal that ended it)."""
        try:
            return self.popen.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"{self.name} still runs after {within:g} s; its log:\n{self.log()}")

    def stop(self, within: float = 10, number: int = SIGTERM) -> int:
        """Signal it, return its exit status; fail the test if it does not end in time."""
        if self.running():
            self.signal(number)
        return self.wait(within)

    def survivors(self) -> list[int]:
        """Living processes that came from it, the program itself included."""
        return [pid for pid in _pids() if self._came_from_it(pid) and is_alive(pid)]

    def assert_nothing_left(self, within: float = 5) -> None:
        """Fail, and clean up, if anything that it started outlives it."""
        try:
            wait_until(lambda: not self.survivors(), within, f"all processes of {self.name} to be gone")
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL for it and everything that came from it; returns when they are gone."""
        for pid in {self.pid, *self.survivors()}:
            try:
                os.kill(pid, SIGKILL)
            except ProcessLookupError:
                pass
        self.popen.wait()
        wait_until(lambda: not self.survivors(), 5, f"killed processes of {self.name} to be gone")

    def _came_from_it(self, pid: int) -> bool:
        try:
            return os.getsid(pid) == self.pid or self._mark in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False


def start(
    command: Sequence[str | os.PathLike[str]],
    *,
    log_file: Path,
    address: str = "",
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    within: float = 20,
    user: int | None = None,
    group: int | None = None,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Start a program and wait until something listens at ``address`` (if one is given).

    ``env`` comes on top of this process's environment. If the program ends first, the test fails.
    """
    mark = uuid.uuid4().hex
    name = " ".join(Path(os.fspath(part)).name for part in command[:4])
    with open(log_file, "ab") as log:
        popen = subprocess.Popen(
            [os.fspath(part) for part in command],
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {}), MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
            pass_fds=pass_fds,
        )
    process = Process(popen, name, mark, log_file, address)
    if address:
        try:
            wait_until(lambda: is_listening(address) or not process.running(), within, f"{name} at {address}")
        except BaseException:
            process.kill()
            print(f"--- log of {name} ---\n{process.log()}")
            raise
        if not process.running():
            pytest.fail(f"{name} ended with status {popen.returncode} at once; its log:\n{process.log()}")
    return process


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _state_and_parent(pid: int) -> tuple[str, int]:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", 0
    # The name stands in brackets and may hold spaces and brackets itself.
    state, parent = stat.rpartition(")")[2].split()[:2]
    return state, int(parent)


def _parent_if_alive(pid: int) -> int:
    state, parent = _state_and_parent(pid)
    return parent if state not in ("", "Z", "X") else 0
