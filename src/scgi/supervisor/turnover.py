"""Which workers are to be replaced by fresh ones: all of them, or one at a time those that have done enough.

Imports `status` and its neighbours.
"""

from __future__ import annotations

import logging
from typing import Final

from scgi.status.process import resident_bytes
from scgi.supervisor.child import Child
from scgi.supervisor.recycle import Ration
from scgi.supervisor.roster import Roster

log = logging.getLogger("scgi.pool")

_LEAVING: Final = 1.0  # seconds for the one before to leave as fast as it should


class Turnover:
    """The queue of those that are to be replaced."""

    def __init__(self, roster: Roster, ration: Ration) -> None:
        self._roster = roster
        self._ration = ration
        self._queue: list[Child] = []

    def everybody(self) -> None:
        """All that serve now, whether they have done enough or not."""
        replaced = {child.replaces.pid for child in self._roster if child.replaces is not None}
        self._queue = [child for child in self._roster.serving() if child.pid not in replaced]
        log.info("replacing %d workers", len(self._queue))

    def recycle(self, now: float) -> None:
        """Find the next one that has done enough, unless one is being replaced or only just about to leave."""
        if not self._ration or self._queue:
            return
        if any(child.replaces or (child.retiring and now - child.asked < _LEAVING) for child in self._roster):
            return
        for child in self._roster.serving():
            memory = resident_bytes(child.pid) if self._ration.max_memory else None
            own = self._ration.share(child.chance)
            served = self._roster.served(child)
            if child.ready and (why := own.due(served=served, age=now - child.born, memory=memory)):
                log.info("worker %d is replaced: %s", child.pid, why)
                self._queue = [child]
                return

    def next(self) -> Child | None:
        """The first that can be replaced now. Who is about to take another's place itself waits."""
        self._queue = [child for child in self._queue if child.pid in self._roster.children and not child.retiring]
        return next((child for child in self._queue if child.ready), None)

    def has_heir(self, child: Child) -> None:
        """Its replacement was started."""
        self._queue.remove(child)

    def again(self, child: Child) -> None:
        """Its replacement died at once."""
        self._queue.append(child)
