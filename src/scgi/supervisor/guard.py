"""A stand-in until the guard is here (helper C: write over it)."""

from __future__ import annotations

import socket

from scgi.status.scoreboard import Report, Scoreboard, Sight
from scgi.supervisor.child import Child


class Guard:
    on = False
    why_off = "not here yet"

    def __init__(self, board: Scoreboard, entrance: socket.socket) -> None:
        pass

    def watch(self, child: Child, slot: int, sight: Sight) -> None:
        pass

    def release(self, slot: int) -> None:
        pass

    def let_go_of_ended(self) -> None:
        pass

    def answer(self, child: Child, slot: int, report: Report, status: int) -> None:
        pass

    def descriptors(self) -> list[int]:
        return []
