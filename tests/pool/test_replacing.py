"""HUP: every worker is replaced, one for one, and nobody waits for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from pool.crowd import Crowd, begun, dozing, rest_of
from support import Process, is_alive, scgi_request, wait_until

StartPool = Callable[..., Process]


def test_hup_replaces_all_workers_one_for_one(serve: StartPool) -> None:
    server = serve("--min-workers", "3", "--max-workers", "3")
    before = set(wait_until(lambda: server.workers() if len(server.workers()) == 3 else None))
    server.signal(signal.SIGHUP)
    wait_until(lambda: len(server.workers()) == 3 and not before & set(server.workers()))
    assert scgi_request(server.address).status == 200
    assert "ERROR" not in server.log()


def test_a_replaced_worker_finishes_what_it_has(serve: StartPool) -> None:
    server = serve("--max-workers", "1")
    with begun(server.address, "/doze/0.8") as peer:
        old = dozing(server)
        server.signal(signal.SIGHUP)
        assert scgi_request(server.address).text != str(old)  # the fresh one answers meanwhile
        answer = rest_of(peer)
    assert answer.text == str(old)
    wait_until(lambda: len(server.workers()) == 1)


def test_twenty_hups_in_a_row_under_load_lose_no_request_and_multiply_no_worker(serve: StartPool) -> None:
    server = serve("--min-workers", "2", "--max-workers", "4")
    wait_until(lambda: len(server.workers()) == 2)
    before = set(server.workers())
    with Crowd(server.address, size=8) as crowd:
        for number in range(1, 21):
            server.signal(signal.SIGHUP)
            wait_until(lambda number=number: crowd.answered > 15 * number)
            assert len(server.workers()) <= 8
        for _ in range(20):
            server.signal(signal.SIGHUP)
        wait_until(lambda: not before & set(server.workers()))
        wait_until(lambda: len(server.workers()) <= 4, 10, "no more workers than before")
    assert crowd.lost == [] and crowd.refused == 0
    assert "ERROR" not in server.log()
    assert server.stop() == 0


def test_a_worker_that_dies_while_all_are_replaced_costs_nothing(serve: StartPool) -> None:
    server = serve("--max-workers", "2", "--min-workers", "2")
    victim = wait_until(lambda: server.workers() if len(server.workers()) == 2 else [])[-1]
    server.signal(signal.SIGHUP)
    os.kill(victim, signal.SIGKILL)
    server.signal(signal.SIGHUP)
    wait_until(lambda: not is_alive(victim))
    for _ in range(20):
        assert scgi_request(server.address).status == 200
    wait_until(lambda: len(server.workers()) == 2)
