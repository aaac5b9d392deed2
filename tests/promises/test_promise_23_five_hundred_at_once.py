"""500 connections at once on 5 workers are all answered, the slowest within 1.1 × of ideal."""

from __future__ import annotations

import pytest

from support.load import Load
from support.room import Room

CLIENTS, WORKERS, EACH = 500, 5, 0.03


@pytest.mark.alone
def test_five_hundred_at_once_are_all_answered_the_slowest_hardly_later_than_can_be(either_room: Room) -> None:
    server = either_room.serve("app.py", workers=WORKERS)
    with Load(server.address, clients=CLIENTS, total=CLIENTS, pause=EACH) as load:
        report = load.wait()
    assert (report.answered, report.lost, report.refused) == (CLIENTS, [], 0)
    assert report.full == 0
    assert report.slowest < 1.1 * CLIENTS / WORKERS * EACH
