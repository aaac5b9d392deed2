"""Who is who among the processes of a server."""

from __future__ import annotations

from pathlib import Path

from support.processes import Process, children_of, title_of


def pools_of(server: Process) -> list[int]:
    """The pools that have workers, the oldest first."""
    return [pool for pool in server.pools() if workers_below(pool)]


def workers_of(server: Process) -> list[int]:
    """The workers: children of the pools that live."""
    return sorted(worker for pool in server.pools() for worker in workers_below(pool))


def workers_below(pool: int) -> list[int]:
    """A pool's children, without its lobby."""
    return [child for child in children_of(pool) if not title_of(child).startswith("scgi: lobby")]


def is_stopped(pid: int) -> bool:
    """Whether a SIGSTOP holds the process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False
