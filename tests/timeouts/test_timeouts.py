"""A request that takes longer than the timeout: 504 for its client, its stack in the log, and nobody else notices."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from conftest import Serve
from support import Process, Reset, build_request, is_alive, parse_response, raw_exchange, scgi_request, wait_until
from support.addresses import connect
from timeouts.conftest import records

INTERRUPTED = ["/spin", "/sleep", "/lock", "/event", "/queue", "/search", "/held", "/generator", "/steps", "/file"]
SLACK = 1.0  # seconds after the timeout, as the promise has it
KILLED = 6.0  # where the worker has to be killed


def asked(server: Process, path: str, name: str = "order-1", **others: object) -> tuple[int, str, float]:
    """Status, text and seconds of an answer."""
    began = time.monotonic()
    response = scgi_request(server.address, {"HTTP_X_REQUEST_ID": name}, path=path, within=30, **others)
    return response.status, response.text, time.monotonic() - began


@pytest.mark.parametrize("page", INTERRUPTED)
def test_what_hangs_in_the_main_thread_is_interrupted_in_time_and_its_worker_goes_on(
    serve: Callable[..., Process], page: str
) -> None:
    server = serve()
    worker = scgi_request(server.address).text
    status, text, seconds = asked(server, page)
    assert (status, "order-1" in text) == (504, True)
    assert 1.0 <= seconds <= 1.0 + SLACK
    assert scgi_request(server.address).text == worker
    (record,) = records(server, "RequestTimeout")
    assert "[request order-1]" in record and f"GET {page}" in record and "hung_pages.py" in record


@pytest.mark.parametrize("style", ["Produce", "Cgilike", "OfTheConnection"])
def test_a_handler_of_any_style_is_interrupted(serve: Callable[..., Process], style: str) -> None:
    server = serve(app=f"hung_handlers.py:{style}")
    worker = scgi_request(server.address).text
    status, _, seconds = asked(server, "/hang")
    assert status == 504 and seconds <= 1.0 + SLACK
    assert scgi_request(server.address).text == worker
    assert len(records(server, "RequestTimeout.*GET /hang")) == 1


def test_a_body_that_was_read_does_not_count_but_what_follows_does(serve: Callable[..., Process]) -> None:
    server = serve()
    assert asked(server, "/body", method="POST", body=b"x" * 300_000)[0] == 504


def test_an_answer_that_has_begun_breaks_off(serve: Callable[..., Process], scgi_serve: Serve) -> None:
    server = serve()
    worker = scgi_request(server.address).text
    assert scgi_request(server.address, path="/generator_later", within=10).text == "begun\n"
    assert scgi_request(server.address).text == worker
    assert records(server, "RequestTimeout.*GET /generator_later")
    tcp = scgi_serve(Path(__file__).with_name("hung_pages.py"), "--timeout", "1")
    with pytest.raises(Reset):
        scgi_request(tcp.address, path="/generator_later", within=10)


def test_a_close_that_hangs_costs_neither_the_answer_nor_the_worker(serve: Callable[..., Process]) -> None:
    server = serve()
    worker = scgi_request(server.address).text
    status, text, seconds = asked(server, "/close")
    assert (status, text) == (200, "whole\n") and seconds <= 1.0 + SLACK
    assert scgi_request(server.address).text == worker
    assert records(server, r"close\(\) of the application's iterable raised")


def test_finally_and_with_run_and_except_exception_does_not_catch_it(
    serve: Callable[..., Process], short_tmp: Path
) -> None:
    server = serve()
    assert asked(server, "/clean")[0] == 504
    assert (short_tmp / "cleaned").read_text().splitlines() == [
        "outer: begin", "inner: begin", "inner: rollback by RequestTimeout", "finally",
        "outer: rollback by RequestTimeout",
    ]  # fmt: skip


@pytest.mark.parametrize("page", ["/swallow", "/unwind", "/hold", "/block"])
def test_what_does_not_let_itself_be_interrupted_is_killed_with_its_stack(
    serve: Callable[..., Process], page: str
) -> None:
    server = serve(workers=2)
    with ThreadPoolExecutor(2) as pool:
        neighbour = pool.submit(asked, server, "/drip", query="25")
        wait_until(lambda: len(server.workers()) == 2)
        status, text, seconds = asked(server, page)
        assert (status, "order-1" in text) == (504, True)
        assert seconds <= 1.0 + KILLED
        assert neighbour.result()[:2] == (200, "x" * 25)
    (record,) = records(server, "is killed: ")
    assert f"GET {page} (request order-1)" in record and " ERROR " in record
    assert f"in {page.strip('/')}\n" in record, "the stack"
    wait_until(lambda: len(server.workers()) == 2)


def test_in_threads_that_run_python_the_worker_goes_on(serve: Callable[..., Process]) -> None:
    server = serve("--threads", "3")
    worker = scgi_request(server.address).text
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: asked(server, "/spin"), range(3)))
    assert [status for status, _, _ in found] == [504] * 3
    assert scgi_request(server.address).text == worker


@pytest.mark.parametrize("page", ["/sleep", "/swallow"])
def test_threads_that_sleep_for_good_are_answered_at_once_and_their_worker_is_killed_after_the_neighbour(
    serve: Callable[..., Process], page: str
) -> None:
    server = serve("--threads", "3", timeout=3)
    (worker,) = server.workers()
    with ThreadPoolExecutor(3) as pool:
        neighbour = pool.submit(asked, server, "/drip", query="28")
        hung = [pool.submit(asked, server, page, f"order-{number}") for number in range(2)]
        for number, one in enumerate(hung):
            status, text, seconds = one.result()
            assert (status, f"order-{number}" in text) == (504, True)
            assert seconds <= 3.0 + KILLED
        assert is_alive(worker), "the neighbour is being answered"
        assert neighbour.result()[:2] == (200, "x" * 28)
    wait_until(lambda: not is_alive(worker) or not records(server, "is killed"))
    assert asked(server, "/pid")[0] == 200


def test_what_sends_something_now_and_then_lives(serve: Callable[..., Process]) -> None:
    server = serve()
    status, text, seconds = asked(server, "/drip", query="8")
    assert (status, text) == (200, "x" * 8) and seconds > 2


def test_a_peer_that_is_slow_has_limits_of_its_own(serve: Callable[..., Process]) -> None:
    server = serve()
    request = build_request(path="/upload", method="POST", body=b"x" * 2000)
    raw = raw_exchange(server.address, request, split=len(request) // 12, pause=0.25, within=20)
    assert parse_response(raw).text == "2000\n"
    with connect(server.address) as reader:
        reader.sendall(build_request(path="/big", query="3000000"))
        received = b""
        pause = threading.Event()
        while data := reader.recv(300_000):
            received += data
            pause.wait(0.2)
    assert len(parse_response(received).body) == 3_000_000
    assert not records(server, "RequestTimeout|is killed")


def test_without_a_timeout_a_request_may_take_for_ever(serve: Callable[..., Process]) -> None:
    server = serve(timeout=0)
    assert asked(server, "/sleep", query="2.5")[:2] == (200, "slept\n")


def test_the_start_does_not_count(serve: Callable[..., Process], tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        f"import sys, time\ntime.sleep(2)\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from hung_pages import app\n"
    )
    server = serve(app=os.path.relpath(slow, Path(__file__).parent))
    assert asked(server, "/pid")[0] == 200


@pytest.mark.parametrize(("threads", "least"), [(1, 200), (8, 1000)])
def test_requests_that_take_about_as_long_as_they_may_get_200_or_504_and_cost_no_worker(
    serve: Callable[..., Process], threads: int, least: int
) -> None:
    """Nobody else is hit by what comes late: a request that is not too long is never interrupted."""
    limit, short, workers, clients = 0.3, 0.05, 4, 4 * threads
    server = serve("--threads", str(threads), timeout=limit, workers=workers)
    before = server.workers()
    end = time.monotonic() + 10

    def client(number: int) -> list[tuple[float, int]]:
        found = []
        turn = number
        while time.monotonic() < end:
            turn += 7
            took = limit + (turn % 50) / 100 - 0.05 if turn % 3 == 0 else short
            found.append((took, scgi_request(server.address, path="/sleep", query=f"{took:.3f}", within=20).status))
        return found

    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for found in pool.map(client, range(clients)) for answer in found]
    assert {status for _, status in answers} == {200, 504}
    assert (short, 504) not in answers
    assert len(answers) >= least
    assert server.workers() == before
    assert not re.search("killed|lost", server.log())


def test_a_worker_whose_main_thread_never_comes_back_takes_no_more_and_loses_no_other_request(
    serve: Callable[..., Process],
) -> None:
    """Under a steady load on its other threads."""
    server = serve("--threads", "3", timeout=2)
    (worker,) = server.workers()
    over = threading.Event()

    def client() -> list[int]:
        statuses = []
        while not over.is_set():
            statuses.append(asked(server, "/sleep", query="0.2")[0])
        return statuses

    def hang() -> int:
        while (status := asked(server, "/main_only")[0]) == 200:
            pass
        return status

    with ThreadPoolExecutor(4) as pool:
        hung = pool.submit(hang)
        clients = [pool.submit(client) for _ in range(3)]
        wait_until(lambda: not is_alive(worker), 20, "the worker to be killed")
        over.set()
        assert hung.result() == 504
        assert {status for one in clients for status in one.result()} == {200}


def test_workers_with_many_threads_hear_the_end_and_come_to_it_in_order(serve: Callable[..., Process]) -> None:
    server = serve("--threads", "32", workers=3)
    assert asked(server, "/pid")[0] == 200
    wait_until(lambda: "serves after" in server.log(), 10)  # what has not come to serve ends without a word
    assert server.stop() == 0
    assert len(re.findall(r"worker \d+ ended", server.log())) == 3 and "killed" not in server.log()
