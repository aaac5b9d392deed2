"""A stop is bounded by the graceful timeout, then KILL, whatever the application does with threads, signals, forks."""

from __future__ import annotations

import time
from contextlib import ExitStack

import pytest

from pool.crowd import begun
from support import scgi_request, wait_until
from support.room import Room


@pytest.mark.parametrize("page", ["stubborn/60", "blocked/60"])
def test_what_is_stuck_is_killed_after_the_graceful_timeout(tcp_room: Room, page: str) -> None:
    server = tcp_room.serve("pages.py", "--graceful-timeout", "0.5", workers=2)
    with ExitStack() as stack:
        stuck = [stack.enter_context(begun(server.address, f"/{page}")) for _ in range(2)]
        with begun(server.address, "/pid"):  # in the queue, behind them
            wait_until(lambda: stuck)
            began = time.monotonic()
            assert server.stop(within=10) == 0
            assert 0.4 < time.monotonic() - began < 10  # 60 s is what the stuck would take
    server.assert_nothing_left(within=1)


@pytest.mark.parametrize("page", ["threads/5", "fork_and_go", "zombies/20", "ignore_signals"])
def test_threads_forks_and_signal_handlers_of_the_application_do_not_hold_up_the_end(tcp_room: Room, page: str) -> None:
    server = tcp_room.serve("pages.py", "--graceful-timeout", "2")
    assert scgi_request(server.address, path=f"/{page}").status == 200
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 4
    server.assert_nothing_left(within=1)
