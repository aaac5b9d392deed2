"""Sockets that systemd holds: requests wait in them while no server runs, and none is lost or refused."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import Process, scgi_request, wait_until
from support.load import Load, write_application


@pytest.fixture
def serve(manager, tmp_path: Path):
    """Start `scgi serve` on the manager's sockets, for the application of the load generator."""
    write_application(tmp_path / "app.py", "1")

    def serve(*options: str) -> Process:
        server = manager.start(sys.executable, "-m", "scgi", "serve", *options, "app.py:app", cwd=tmp_path)
        manager.hear_of("READY")
        return server

    return serve


def test_a_request_that_came_before_the_server_is_served_by_it(manager, serve) -> None:
    address = manager.listen()
    with ThreadPoolExecutor() as clients:
        early = [clients.submit(scgi_request, address) for _ in range(5)]
        wait_until(lambda: manager.waiting(address) == 5)
        serve()
        assert [one.result().status for one in early] == 5 * [200]


def test_restarts_under_load_lose_and_refuse_nothing(manager, serve) -> None:
    address = manager.listen()
    server = serve()
    with Load(address, clients=16) as load:
        for _ in range(3):
            load.wait_for_more(200)
            assert server.stop() == 0
            server = serve()
        load.wait_for_more(200)
    assert not load.report.lost and not load.report.refused and not load.report.full, load.report
    assert len(load.report.processes) >= 4


def test_what_waited_for_a_server_that_was_killed_is_served_by_the_next(manager, serve) -> None:
    address = manager.listen()
    server = serve()
    server.kill()
    with ThreadPoolExecutor() as clients:
        waits = clients.submit(scgi_request, address)
        wait_until(lambda: manager.waiting(address) == 1)
        serve()
        assert waits.result().status == 200


def test_several_sockets_are_all_served(manager, serve) -> None:
    addresses = [manager.listen("one.sock"), manager.listen("two.sock")]
    server = serve()
    for address in addresses:
        assert scgi_request(address).status == 200
        assert address in server.log()


def test_the_socket_stays_as_it_was(manager, serve) -> None:
    address = manager.listen()
    path = Path(address.removeprefix("unix:"))
    path.chmod(0o640)
    before = path.stat()
    server = serve("--socket-mode", "666")
    assert scgi_request(address).status == 200
    assert server.stop() == 0
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_uid) == (before.st_ino, before.st_mode, before.st_uid)
