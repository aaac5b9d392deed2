"""What the application does to its process, by forks, threads, descriptors or exit, hurts that worker at most."""

from __future__ import annotations

import pytest

from pool.crowd import begun
from support import scgi_request, wait_until
from support.generations import workers_of
from support.room import Room

SURVIVED = ["zombies/20", "fork_and_go", "threads/5", "chdir/tmp", "ignore_signals", "raise_it/SystemExit"]
FATAL = ["close_all", "leave/0", "leave/7", "kill/9", "crash"]


def test_what_an_application_does_to_its_process_leaves_the_others_serving(tcp_room: Room) -> None:
    server = tcp_room.serve("pages.py", "--graceful-timeout", "2", workers=2)
    for page in SURVIVED:
        assert scgi_request(server.address, path=f"/{page}").status in (200, 500)
        for _ in range(4):
            assert scgi_request(server.address).status == 200
    assert len(workers_of(server)) == 2


@pytest.mark.parametrize("page", FATAL)
def test_what_ends_a_process_of_the_application_costs_that_worker_and_no_other(tcp_room: Room, page: str) -> None:
    server = tcp_room.serve("pages.py", workers=2)
    before = workers_of(server)
    with begun(server.address, f"/{page}") as peer:
        assert peer.recv(65536) == b""
    wait_until(lambda: len(workers_of(server)) == 2 and workers_of(server) != before)
    assert len(set(before) & set(workers_of(server))) == 1
    assert all(scgi_request(server.address).status == 200 for _ in range(4))
