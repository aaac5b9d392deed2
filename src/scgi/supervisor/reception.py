"""Between the lobby and the workers: what has become whole there is taken by whoever is free first.

Imports `status`, `workers` for the signal's name, and its neighbours.
"""

from __future__ import annotations

from math import inf
from typing import Final

from scgi.status.scoreboard import DELIVERIES
from scgi.supervisor.lobby import Lobby
from scgi.supervisor.roster import Roster
from scgi.workers.blocking import NUDGE

_AGAIN: Final = 0.01  # seconds until a worker is told again


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
        return now + _AGAIN if self.somebody_waits() else inf

    def deliver(self) -> bool:
        """Tell a worker that something waits, if it does: an idle one, else the first that comes to look. Whether
        nobody is there who could take it."""
        waits = self._lobby.somebody_waits()
        self._roster.board.memory[DELIVERIES] = waits
        serving = sorted(self._roster.serving(), key=self._roster.is_busy)
        if waits and serving:
            serving[0].send(NUDGE)
        return waits and not serving
