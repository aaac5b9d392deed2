"""Between the lobby and the workers: what has become whole there is taken by whoever is free first.

Imports `status`, `workers` for the signal's name, and its neighbours.
"""

from __future__ import annotations

from math import inf
from typing import Final

from scgi.status.scoreboard import DELIVERIES, Stage
from scgi.supervisor.lobby import Lobby
from scgi.supervisor.roster import Roster
from scgi.workers.blocking import NUDGE

_AGAIN: Final = 0.01  # seconds until a worker is told again
_AGAIN_IF_IDLE: Final = 0.002  # of a worker's threads one hears it at a time


class Reception:
    """For one pool."""

    def __init__(self, lobby: Lobby, roster: Roster) -> None:
        self._lobby = lobby
        self._roster = roster

    def somebody_waits(self) -> bool:
        """As of the last call of `deliver`."""
        return bool(self._roster.board.memory[DELIVERIES])

    def due(self, now: float) -> float:
        """When to `deliver` again."""
        if not self.somebody_waits():
            return inf
        return now + (_AGAIN_IF_IDLE if self._roster.idle_threads() else _AGAIN)

    def deliver(self) -> bool:
        """Tell a worker that something waits, if it does: the one with most idle threads. Whether nobody is there
        who could take it."""
        waits = self._lobby.somebody_waits()
        self._roster.board.memory[DELIVERIES] = waits
        serving = list(self._roster.serving())
        if waits and serving:
            max(serving, key=lambda child: list(self._roster.stages(child)).count(Stage.IDLE)).send(NUDGE)
        return waits and not serving
