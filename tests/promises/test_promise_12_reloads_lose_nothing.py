"""No request is lost while HUP comes again and again, or a hundred times in a second; at most two generations live."""

from __future__ import annotations

import pytest

from soak.scenarios import reload_every_second, storm
from support.room import Room


@pytest.mark.alone
def test_reloads_under_load_lose_nothing_and_make_nobody_wait(either_room: Room) -> None:
    server = either_room.serve("app.py", workers=4)
    found = reload_every_second(server, either_room.app, total=6000, pause=0.001, every=0.4)
    assert found.reloads >= 3


def test_a_hundred_hups_in_one_second_lose_nothing_and_the_last_code_serves(either_room: Room) -> None:
    server = either_room.serve("app.py", workers=3)
    storm(server, either_room.app, clients=32)
