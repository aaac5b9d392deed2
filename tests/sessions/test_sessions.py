"""Sessions on real processes: one child each, in order, bounded, replaced."""

from __future__ import annotations

import signal
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support import free_port, scgi_request

PAGES = Path(__file__).with_name("session_pages.py")


def ask(address: str, session: str, path: str = "/") -> Any:
    return scgi_request(address, {"HTTP_COOKIE": f'session="{session}"'}, path=path)


@pytest.fixture
def server(launch: Any) -> Any:
    def serve(children: int) -> tuple[Any, str]:
        port = free_port()
        address = f"127.0.0.1:{port}"
        return launch(PAGES, str(port), str(children), address=address), address

    return serve


def test_a_thousand_sessions_on_twenty_children_stay_where_they_are(server: Any) -> None:
    process, address = server(20)
    seen = defaultdict(set)
    with ThreadPoolExecutor(20) as pool:
        jobs = [(f"s{n}", pool.submit(ask, address, f"s{n}")) for _ in range(3) for n in range(1000)]
        for session, job in jobs:
            seen[session].add(job.result().text.split()[0])
    assert len(seen) == 1000
    assert all(len(pids) == 1 for pids in seen.values())
    assert len(set().union(*seen.values())) == 20
    assert process.stop() == 0


def test_who_hammers_gets_503_and_others_are_answered(server: Any) -> None:
    _, address = server(3)
    with ThreadPoolExecutor(40) as pool:
        hammer = [pool.submit(ask, address, "greedy", "/slow") for _ in range(30)]
        while not any(job.done() for job in hammer):
            assert ask(address, "modest").status == 200
        answers = [job.result() for job in hammer]
    refused = [answer for answer in answers if answer.status == 503]
    assert 30 - 15 - 2 <= len(refused) < 30
    assert all(answer.header("Retry-After") for answer in refused)
    assert len({a.text.split()[0] for a in answers if a.status == 200}) == 1


def test_a_child_that_dies_is_replaced_and_what_waited_is_answered(server: Any) -> None:
    _, address = server(1)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, address, "a", "/slow")
        dying = pool.submit(ask, address, "a", "/die")
        waiting = [pool.submit(ask, address, "b", "/") for _ in range(1)]
        assert first.result().status == 200
        assert dying.result().status == 502
        assert [job.result().status for job in waiting] == [200]
    assert ask(address, "a").status == 200


def test_hup_replaces_the_children(server: Any) -> None:
    process, address = server(2)
    before = ask(address, "a").text
    process.signal(signal.SIGHUP)
    while ask(address, "a").text == before:
        pass
    assert process.stop() == 0
