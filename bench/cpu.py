"""What a process and all its descendants have cost so far, in seconds of CPU time.

The kernel counts in nanoseconds how long each thread has run: the first field of /proc/PID/task/TID/schedstat. The
more usual utime and stime of /proc/PID/stat are the same time cut to whole ticks of 10 ms: half a per cent of a slice
of two seconds, but four of one of a quarter second.

What ended goes on counting. A child that its parent has waited for has left its time, and that of the children it had
waited for itself, in its parent's cutime and cstime. They are kept in nanoseconds too, and shown in ticks: an error of
at most two ticks for each parent that lost a child meanwhile, none for servers that keep their processes. Nothing is
counted twice, because a process is either in /proc or in its parent's cutime, provided both are read at one moment:
so the tree is read until nobody has come or gone between two looks.

Two things are lost, and no server here does them while it is measured: the time of a thread that has ended in a
process that lives on, and the children of a parent that ignores SIGCHLD.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def tree_cpu(root: int) -> float:
    """CPU seconds of the process `root`, its descendants, and those of them that have ended and were waited for."""
    seen = _tree(root)
    deadline = time.monotonic() + 1.0
    while True:
        total = sum(_threads(pid) + ended for pid, ended in seen.items())
        again = _tree(root)
        if again == seen or time.monotonic() > deadline:
            return total
        seen = again


def descendants(root: int) -> list[int]:
    """`root` and all that descend from it, parents before their children."""
    return list(_tree(root))


def _tree(root: int) -> dict[int, float]:
    """Each process of the tree with the seconds that its ended children have left it."""
    children: dict[int, list[int]] = {}
    left: dict[int, float] = {}
    for entry in filter(str.isdigit, os.listdir(PROC)):
        try:
            # The name, in brackets, may hold anything: the fields are counted from its end. 1: parent, 13: cutime.
            fields = (PROC / entry / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            continue
        left[int(entry)] = (int(fields[13]) + int(fields[14])) / TICK
        children.setdefault(int(fields[1]), []).append(int(entry))
    tree: dict[int, float] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop(0)
        if pid in left:
            tree[pid] = left[pid]
            waiting += children.get(pid, [])
    return tree


def _threads(pid: int) -> float:
    """CPU seconds of the threads that a process has now; of a zombie its main thread's."""
    total = 0
    try:
        for thread in os.listdir(PROC / str(pid) / "task"):
            total += int((PROC / str(pid) / "task" / thread / "schedstat").read_bytes().split()[0])
    except OSError:
        pass  # it has just ended: the tree has changed, and all is read again
    return total / 1e9
