"""The master killed: idle workers go, busy ones finish, the address is free. A pool killed or stopped is replaced."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pool.crowd import begun, rest_of
from soak.scenarios import master_killed
from support import is_alive, scgi_request, wait_until
from support.generations import pools_of, workers_of
from support.load import Load
from support.room import Room


def test_when_the_master_is_killed_busy_workers_finish_and_a_restart_binds_at_once(either_room: Room) -> None:
    server = either_room.serve("app.py", workers=4)
    master_killed(server, lambda: either_room.serve("app.py", workers=4))


def test_when_the_master_is_killed_idle_workers_are_gone_within_a_second_and_a_long_request_ends_well(
    either_room: Room,
) -> None:
    server = either_room.serve("pages.py", workers=3)
    everybody = server.descendants()
    with begun(server.address, "/sleep/2") as busy:
        assert scgi_request(server.address).status == 200
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        # The one that is busy, and its pool, which waits for it.
        wait_until(lambda: sum(map(is_alive, everybody)) <= 2, 1, "the idle workers to be gone")
        successor = either_room.serve("pages.py")
        assert scgi_request(successor.address).status == 200
        assert rest_of(busy).status == 200
    wait_until(lambda: not any(map(is_alive, everybody)), 1, "the last worker to be gone")


def test_a_pool_that_is_killed_is_replaced_within_a_second_and_costs_no_request(either_room: Room) -> None:
    server = either_room.serve("app.py", workers=3)
    with Load(server.address, clients=16, pause=0.002) as load:
        for _ in range(3):
            load.wait_for_more(200)
            [pool] = pools_of(server)
            before = workers_of(server)
            os.kill(pool, signal.SIGKILL)
            began = time.monotonic()
            wait_until(lambda before=before: len(set(workers_of(server)) - set(before)) == 3)
            assert time.monotonic() - began < 1
    assert load.report.lost == [] and load.report.refused == 0, load.report.lost[:5]
    assert server.log().count("killed by SIGKILL") == 3


@pytest.mark.alone
def test_a_pool_that_stops_responding_is_replaced_and_costs_no_request(tcp_room: Room) -> None:
    server = tcp_room.serve("app.py", workers=3)
    with Load(server.address, clients=16, pause=0.002) as load:
        load.wait_for_more(200)
        [pool] = pools_of(server)
        os.kill(pool, signal.SIGSTOP)
        wait_until(lambda: not is_alive(pool) and len(workers_of(server)) == 3, 15)
        load.wait_for_more(200)
    assert load.report.lost == [] and load.report.refused == 0, load.report.lost[:5]
    assert load.report.longest_gap < 1
    assert "no sign of life" in server.log()
