"""What a pool needs to know besides its listeners, and the phases of its life. Imports `workers` and its neighbours."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from scgi.supervisor.policy import PoolPolicy
from scgi.supervisor.recycle import Ration
from scgi.workers.blocking import WorkerPlan


class Phase(Enum):
    """The pool's life; it never goes back."""

    SERVING = 0
    DRAINING = 1  # what has arrived is served
    STOPPING = 2  # at once


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What a pool needs to know besides its listeners."""

    worker: WorkerPlan
    policy: PoolPolicy = field(default_factory=PoolPolicy)
    graceful_timeout: float = 30.0
    ration: Ration = field(default_factory=Ration)  # of a worker's life
    at_first: int = 0  # workers to begin with, if more than the minimum
    timeout: float = 0.0  # seconds that a request may take inside the application; 0 is for ever
    slow_log: float = 0.0  # seconds after which the log says where a request is; 0 is never


def slots_for(maximum: int, threads: int) -> int:
    """Slots for so many workers of so many threads, and as many again that finish while they are replaced."""
    return 2 * maximum * threads
