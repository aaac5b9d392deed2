"""As many silent, half-sent, dribbling or not-reading connections as there are workers delay good requests by a median
under 50 ms, none above 250."""

from __future__ import annotations

import contextlib

import pytest

from lobby.peers import DRIBBLED, LONG, PAGES, SILENT, assert_unharmed, dribbling, peers
from support import Process, build_request, wait_until
from support.generations import workers_of
from support.processes import title_of
from support.room import Room

WORKERS = 5


def serve(room: Room, app: str = "app", *options: str) -> Process:
    (room.folder / "slow_pages.py").write_bytes(PAGES.read_bytes())
    return room.serve(f"slow_pages.py:{app}", *options, workers=WORKERS)


@pytest.mark.alone
@pytest.mark.parametrize("sent", SILENT)
def test_silent_and_half_sent(every_room: Room, sent: str) -> None:
    server = serve(every_room)
    workers = workers_of(server)
    assert_unharmed(server.address, lambda: peers(server.address, WORKERS, SILENT[sent]))
    assert workers_of(server) == workers


@pytest.mark.alone
@pytest.mark.parametrize("what", DRIBBLED)
def test_dribbling(either_room: Room, what: str) -> None:
    server = serve(either_room)
    assert_unharmed(server.address, lambda: dribbling(server.address, WORKERS, *DRIBBLED[what]))


@pytest.mark.alone
@pytest.mark.parametrize("page", LONG)
def test_not_reading(either_room: Room, page: str) -> None:
    server = serve(either_room)
    asked = build_request(path=f"/{page}")
    assert_unharmed(server.address, lambda: peers(server.address, WORKERS, asked))


@pytest.mark.alone
@pytest.mark.parametrize(("app", "page"), [("Handler", "output"), ("OldHandler", "connection")])
def test_not_reading_what_a_handler_writes(either_room: Room, app: str, page: str) -> None:
    server = serve(either_room, app)
    asked = build_request(path=f"/{page}")
    assert_unharmed(server.address, lambda: peers(server.address, WORKERS, asked))


@pytest.mark.alone
def test_all_of_them_at_once_ten_times_as_many_as_workers(either_room: Room) -> None:
    server = serve(either_room)

    def everybody() -> contextlib.ExitStack:
        opened = contextlib.ExitStack()
        for sent in SILENT.values():
            opened.enter_context(peers(server.address, WORKERS, sent))
        for page in LONG:
            opened.enter_context(peers(server.address, WORKERS, build_request(path=f"/{page}")))
        return opened

    assert_unharmed(server.address, everybody, slowest=5)  # who comes at once after them waits for all to be seen off


def test_a_lobby_begins_with_slow_peers_and_ends_some_time_after_them(either_room: Room) -> None:
    server = serve(either_room)
    with peers(server.address, WORKERS, b""):
        wait_until(lambda: any(title.startswith("scgi: lobby") for title in titles(server)))
    wait_until(lambda: not any(title.startswith("scgi: lobby") for title in titles(server)), 20)


def titles(server: Process) -> list[str]:
    return [title_of(pid) for pid in server.descendants()]
