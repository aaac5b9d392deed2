"""How many workers there are, in real processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Launch, Serve
from pool.crowd import at_once, begun
from support import Process, free_port, scgi_request, wait_until

StartPool = Callable[..., Process]

SLOW_START = """
import os, time
import scgi.scgi_server as scgi_server

class Handler(scgi_server.SCGIHandler):
    def __init__(self, parent_fd):
        super().__init__(parent_fd)
        time.sleep(0.4)

    def produce(self, env, bodysize, input, output):
        time.sleep(float(env["QUERY_STRING"] or 0))
        output.write(f"Content-Type: text/plain\\r\\n\\r\\n{os.getpid()}")
"""
REFERENCE_SERVER = (
    SLOW_START.replace("time.sleep(0.4)", "pass")
    + """
import sys
scgi_server.SCGIServer(Handler, port=int(sys.argv[1]), max_children=3).serve()
"""
)


def test_a_worker_is_added_at_once_when_none_is_idle_and_a_request_waits(serve: StartPool) -> None:
    server = serve("--max-workers", "2")
    wait_until(lambda: len(server.workers()) == 1)
    with begun(server.address, "/sleep/1.5"):
        began = time.monotonic()
        other = scgi_request(server.address, path="/pid")
        took = time.monotonic() - began
    assert other.status == 200
    assert took < 1.0  # measured: about 15 ms; the first request takes 1.5 s
    assert len(server.workers()) == 2


def test_five_slow_requests_at_once_are_answered_by_five_processes_and_the_sixth_by_the_first_that_is_free(
    serve: StartPool,
) -> None:
    server = serve("--max-workers", "5")
    answers = at_once(server.address, 6, "/sleep/0.8")
    assert [answer.status for answer in answers] == [200] * 6
    assert len({answer.body for answer in answers}) == 5
    assert len(server.workers()) == 5


@pytest.mark.alone
def test_a_client_that_asks_one_after_another_keeps_one_worker(serve: StartPool) -> None:
    server = serve("--max-workers", "5")
    pids = {scgi_request(server.address, path="/pid").body for _ in range(200)}
    assert len(pids) == 1
    assert server.log().count(" started (") == 1


def test_workers_that_start_slowly_are_waited_for_and_all_requests_are_answered(
    scgi_serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(SLOW_START)
    server = scgi_serve(f"{tmp_path / 'app.py'}:Handler", "--max-workers", "3")
    answers = at_once(server.address, 6, "/?0.4")
    assert [answer.status for answer in answers] == [200] * 6
    assert server.log().count(" started (") <= 3


def test_surplus_idle_workers_retire_after_the_idle_timeout_and_the_minimum_stays(serve: StartPool) -> None:
    server = serve("--max-workers", "5", "--min-workers", "2", "--idle-timeout", "1")
    at_once(server.address, 5, "/sleep/0.4")
    assert len(server.workers()) == 5
    wait_until(lambda: len(server.workers()) == 2, 10, "the surplus workers to retire")
    assert scgi_request(server.address).status == 200
    assert "ERROR" not in server.log()


def test_a_pool_with_no_minimum_shows_that_a_worker_can_start_shrinks_to_none_and_grows_again(serve: StartPool) -> None:
    server = serve("--max-workers", "3", "--min-workers", "0", "--idle-timeout", "1")
    wait_until(lambda: server.workers() == [], 10, "the first worker to retire")
    for _ in range(2):
        assert scgi_request(server.address).status == 200
        assert len(server.workers()) == 1
        wait_until(lambda: server.workers() == [], 10, "the last worker to retire")
    assert scgi_request(server.address, within=5).status == 200


def test_the_reference_server_starts_children_only_for_requests(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(REFERENCE_SERVER)
    port = free_port()
    server = launch(tmp_path / "server.py", str(port), address=f"127.0.0.1:{port}")
    assert server.workers() == []
    assert {answer.status for answer in at_once(server.address, 3, "/?0.3")} == {200}
    assert 1 <= len(server.workers()) <= 3


def test_each_thread_serves_a_request_before_another_process_is_started(serve: StartPool) -> None:
    server = serve("--max-workers", "2", "--threads", "4")
    wait_until(lambda: len(server.workers()) == 1)
    answers = at_once(server.address, 4, "/sleep/0.4")
    assert len({answer.body for answer in answers}) == 1
    answers = at_once(server.address, 8, "/sleep/0.8")
    assert len({answer.body for answer in answers}) == 2
