"""Under load nothing is lost: not by `apachectl graceful`, not by a server that is killed while another lives."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from apache_module.asking import ask
from apache_module.rounds import graceful, killing, two_servers
from gateway.toys import Conversation, Upstream
from support.apache_module import MPMS, serving


@pytest.mark.parametrize("mpm", MPMS)
def test_graceful_under_load_loses_nothing(short_tmp: Path, mpm: str) -> None:
    with two_servers(short_tmp, mpm != "worker", mpm) as (web, _):
        graceful(web, rounds=3)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_server_that_is_killed_under_load_costs_no_request_that_may_be_repeated(short_tmp: Path, kind: str) -> None:
    with two_servers(short_tmp, kind == "tcp") as (web, servers):
        killing(web, servers, short_tmp, rounds=4)


@pytest.mark.parametrize("mpm", MPMS)
def test_slow_requests_side_by_side_are_all_answered(upstream: Upstream, mpm: str) -> None:
    """As many as there are threads, all of them asked before the first is answered."""
    count = 30
    everybody = threading.Barrier(count)

    def answer(talk: Conversation) -> None:
        everybody.wait(30)
        talk.answer(talk.variables["PATH_INFO"].encode())

    upstream.answer = answer
    found: list[bytes] = []
    limits = f"StartServers {count}\nMaxRequestWorkers 64" if mpm == "prefork" else ""
    with serving(f"SCGIMount /app {upstream.address}", mpm=mpm, limits=limits) as web:
        threads = [
            threading.Thread(target=lambda number=number: found.append(ask(web, f"/app/{number}").body))
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found) == sorted(f"/{number}".encode() for number in range(count))
