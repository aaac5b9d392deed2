"""When a worker has done enough: after so many requests, so long, or with so much memory.

Pure: numbers in, a reason out. Imports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

_SPARED: Final = 0.1  # of its ration, at most: workers that began together do not end together


@dataclass(frozen=True, slots=True)
class Ration:
    """What a worker may use up; 0 is no limit. Seconds, and bytes of resident memory."""

    max_requests: int = 0
    max_age: float = 0.0
    max_memory: int = 0

    def __bool__(self) -> bool:
        """Whether there is a limit at all."""
        return bool(self.max_requests or self.max_age or self.max_memory)

    def share(self, chance: float) -> Ration:
        """The ration of one worker: up to a tenth fewer requests and less time. `chance` is from 0 to below 1.

        Drawn once, at its birth. Memory is not drawn by lot: no two workers fill up at the same rate.
        """
        spared = _SPARED * chance
        return replace(
            self,
            max_requests=self.max_requests - int(self.max_requests * spared),
            max_age=self.max_age * (1 - spared),
        )

    def due(self, *, served: int, age: float, memory: int | None = None) -> str | None:
        """Why a worker that has got to this is to be replaced; None: it may go on. `memory` None is not known."""
        if 0 < self.max_requests <= served:
            return f"it has served {served} requests"
        if 0 < self.max_age <= age:
            return f"it is {age:.3g} s old" if age < 100 else f"it is {age:.0f} s old"
        if memory is not None and 0 < self.max_memory < memory:
            return f"it has {_mebibytes(memory)} MiB of memory, more than {_mebibytes(self.max_memory)}"
        return None


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.1f}".removesuffix(".0")
