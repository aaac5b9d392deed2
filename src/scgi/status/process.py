"""What the system knows of a process: the CPU time it has taken, its memory; and whether memory has run out.

All of it is Linux's /proc and cgroups; None elsewhere, and for a process that is gone. Imports nothing of ours.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Final

_UTIME: Final = 14 - 3  # fields of /proc/<pid>/stat as proc(5) counts them, less those before the state
_STIME: Final = 15 - 3
_RSS: Final = 24 - 3


def cpu_seconds(pid: int) -> float | None:
    """User and system time together."""
    fields = _stat(pid)
    return (int(fields[_UTIME]) + int(fields[_STIME])) / os.sysconf("SC_CLK_TCK") if fields else None


def resident_bytes(pid: int) -> int | None:
    """Memory that is in use now; what forked processes share counts for each."""
    fields = _stat(pid)
    return int(fields[_RSS]) * os.sysconf("SC_PAGE_SIZE") if fields else None


def parent(pid: int) -> int | None:
    """Its parent's process id."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped it (SIGSTOP), so that it does nothing until another lets it go on."""
    fields = _stat(pid)
    return bool(fields) and fields[0] == "T"


def is_runnable(pid: int) -> bool:
    """Whether it computes, or would if a processor were free."""
    fields = _stat(pid)
    return bool(fields) and fields[0] == "R"


def processors_are_taken() -> bool:
    """Whether there is somebody for each of the machine's processors, this process aside; False where it is unknown."""
    try:
        running = int(_read("/proc/loadavg").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return False
    return running - 1 >= _processors()


@cache
def _processors() -> int:
    return os.cpu_count() or 1


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes of our own cgroup the kernel has killed so far because memory had run out."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # In a container the path may be the host's; then only the mount's own folder exists.
        if "memory" in controllers.split(","):
            places = [mounts / "memory" / path.lstrip("/"), mounts / "memory"]
            file = "memory.oom_control"
        elif not controllers:
            places = [mounts / path.lstrip("/"), mounts]
            file = "memory.events"
        else:
            continue
        for place in places:
            if (count := _oom_kill(place / file)) is not None:
                return count
    return None


def _oom_kill(file: Path) -> int | None:
    try:
        words = dict(line.split(None, 1) for line in file.read_text().splitlines())
        return int(words["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None


def _stat(pid: int) -> list[str]:
    """The fields from the state on; the name before it stands in brackets and may hold spaces and brackets."""
    try:
        return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    except OSError:
        return []


def _read(path: str) -> str:
    """A short file of the kernel's; a file object would cost three times as much, and pools ask often."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 4096).decode("latin-1")
    finally:
        os.close(file)
