"""Who is who among the processes of a server."""

from __future__ import annotations

from pathlib import Path

from support.processes import Process, children_of


def pools_of(server: Process) -> list[int]:
    """The pools that have workers, the oldest first."""
    return [child for child in server.children() if children_of(child)]


def workers_of(server: Process) -> list[int]:
    """The workers: children of the pools."""
    return sorted(worker for pool in server.children() for worker in children_of(pool))


def is_stopped(pid: int) -> bool:
    """Whether a SIGSTOP holds the process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False
