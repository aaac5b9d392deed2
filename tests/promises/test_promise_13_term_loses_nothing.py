"""SIGTERM under load loses nothing that was accepted or queued; exit status 0; nothing left behind."""

from __future__ import annotations

from pathlib import Path

from soak.scenarios import term_under_load, term_with_waiting
from support import free_port
from support.room import Room


def test_term_with_two_hundred_waiting_answers_every_one_of_them(every_room: Room) -> None:
    server = every_room.serve("app.py", workers=4)
    term_with_waiting(server, waiting=200, pause=0.02)
    assert [name for name in Path(every_room.folder).iterdir() if name.is_socket()] == []


def test_term_under_load_loses_nothing_that_had_arrived(every_room: Room) -> None:
    server = every_room.serve("app.py", workers=4)
    # TCP: what connects in the very instant of the end cannot always be told from what is refused.
    term_under_load(server, clients=32, exact=every_room.address.startswith("unix:"))


def test_those_who_wait_at_one_of_several_doors_are_answered_too_and_the_end_is_announced_once(unix_room: Room) -> None:
    server = unix_room.serve("app.py", "--listen", f"127.0.0.1:{free_port()}", workers=4)
    term_with_waiting(server, waiting=120, pause=0.05)
    assert server.log().count("stopping: what has arrived is served") <= 2  # the master, and its pool
