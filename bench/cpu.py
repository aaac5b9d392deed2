"""What a process and all its descendants have cost so far, in seconds of CPU time.

The kernel counts in nanoseconds how long each thread has run: the first field of /proc/PID/task/TID/schedstat. The
more usual utime and stime of /proc/PID/stat are the same time cut to whole ticks of 10 ms, a third of a short slice.
Who descends from whom is in /proc/PID/task/TID/children, which costs a hundredth of a search through all of /proc.

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

TICK = os.sysconf("SC_CLK_TCK")


def tree_cpu(root: int) -> float:
    """CPU seconds of the process `root`, its descendants, and those of them that have ended and were waited for."""
    deadline = time.monotonic() + 1.0
    seen = _tree(root)
    while True:
        total = sum(_threads(pid) + left for pid, left in seen.items())
        again = _tree(root)
        if again == seen or time.monotonic() > deadline:
            return total
        seen = again


def descendants(root: int) -> list[int]:
    """`root` and all that descend from it, parents before their children."""
    return list(_tree(root))


class Others:
    """How busy the machine was with other things than this process and its descendants, since this was made."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.busy, self.own = _busy(), tree_cpu(os.getpid())

    def share(self) -> float:
        """0 on a quiet machine, 1 if others had all its CPUs."""
        room = (time.monotonic() - self.began) * (os.cpu_count() or 1)
        return max(0.0, (_busy() - self.busy) - (tree_cpu(os.getpid()) - self.own)) / room


def _busy() -> float:
    """Seconds that all CPUs together have been busy so far."""
    with open("/proc/stat") as file:
        user, nice, system, _idle, _iowait, *rest = map(int, file.readline().split()[1:9])
    return (user + nice + system + sum(rest)) / TICK


def _tree(root: int) -> dict[int, float]:
    """Each process of the tree with the seconds that its ended children have left it."""
    tree: dict[int, float] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop(0)
        try:
            # The name, in brackets, may hold anything: the fields are counted from its end. 13, 14: cutime, cstime.
            fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            children = [_read(f"/proc/{pid}/task/{thread}/children") for thread in os.listdir(f"/proc/{pid}/task")]
        except OSError:
            continue
        tree[pid] = (int(fields[13]) + int(fields[14])) / TICK
        waiting += map(int, b" ".join(children).split())
    return tree


def _threads(pid: int) -> float:
    """CPU seconds of the threads that a process has now; of a zombie its main thread's."""
    total = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            total += int(_read(f"/proc/{pid}/task/{thread}/schedstat").split()[0])
    except OSError:
        pass  # it has just ended: the tree has changed, and all is read again
    return total / 1e9


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()
