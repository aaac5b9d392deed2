"""Where workers are, told on demand and for slow requests, without interrupting anybody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from conftest import Launch
from support import Process, free_port, scgi_request, wait_until
from support.processes import children_of, title_of
from timeouts.conftest import records

HERE = Path(__file__).parent


@contextmanager
def running(server: Process, *targets: str) -> Iterator[None]:
    """These requests run meanwhile; each is answered 200 in the end."""

    def ask(target: str) -> int:
        path, _, query = target.partition("?")
        name = {"HTTP_X_REQUEST_ID": f"order-{path[1:]}"}
        return scgi_request(server.address, name, path=path, query=query, within=20).status

    with ThreadPoolExecutor(len(targets)) as pool:
        found = [pool.submit(ask, target) for target in targets]
        yield
        assert [one.result() for one in found] == [200] * len(targets)


@pytest.fixture
def stacks(short_tmp: Path) -> Callable[..., str]:
    """`scgi stacks` for the server of the fixture `serve`."""

    def stacks(*options: str) -> str:
        command = [sys.executable, "-m", "scgi", "stacks", "--control", str(short_tmp / "control"), *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout

    return stacks


def test_the_command_shows_each_worker_its_request_and_where_it_is(
    serve: Callable[..., Process], stacks: Callable[..., str]
) -> None:
    server = serve(timeout=0, workers=3)
    with running(server, "/sleep?8", "/drip?25"):
        text = wait_until(lambda: found if "order-sleep" in (found := stacks()) and "order-drip" in found else "")
        workers = {row["pid"]: row for row in json.loads(stacks("--json"))["workers"]}
        assert sorted(workers) == server.workers()
    for pid in workers:
        assert f"worker {pid}, generation 1: " in text
    (sleeping,) = (part for part in text.split("worker ") if "order-sleep" in part)
    assert "GET /sleep?8 for " in sleeping and " in sleep\n" in sleeping and "hung_pages.py" in sleeping
    assert "blocking.py" not in sleeping, "frames of ours at the outer end are left out"
    rows = [row for row in workers.values() if row["current"]]
    assert {one["id"] for row in rows for one in row["current"]} == {"order-sleep", "order-drip"}
    assert all(row["stacks"] and row["generation"] == 1 for row in workers.values())


def test_of_a_worker_with_threads_all_are_shown(serve: Callable[..., Process], stacks: Callable[..., str]) -> None:
    server = serve("--threads", "3", timeout=0)
    with running(server, "/sleep?8", "/drip?25"):
        text = wait_until(lambda: found if "order-sleep" in (found := stacks()) and "order-drip" in found else "")
    assert " in sleep\n" in text and " in drip\n" in text and text.count("hread 0x") >= 3


def test_both_generations_are_shown_while_one_leaves(serve: Callable[..., Process], stacks: Callable[..., str]) -> None:
    server = serve(timeout=10)
    with running(server, "/sleep?5"):
        wait_until(lambda: "order-sleep" in stacks())
        server.signal(signal.SIGHUP)
        text = wait_until(lambda: found if "generation 2: " in (found := stacks()) else "")
        assert "generation 1: retiring" in text and "order-sleep" in text


def test_where_c_code_holds_the_interpreter_the_stack_can_be_had(
    serve: Callable[..., Process], stacks: Callable[..., str]
) -> None:
    server = serve(timeout=0)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(scgi_request, server.address, path="/hold", within=30)
        text = wait_until(lambda: found if "GET /hold" in (found := stacks()) else "")
        assert " in hold\n" in text
        for worker in server.workers():
            os.kill(worker, signal.SIGKILL)
        assert asked.exception(10) or asked.result().status == 502


def test_a_worker_that_is_stopped_is_shown_without_a_stack_and_does_not_hold_up_the_others(
    serve: Callable[..., Process], stacks: Callable[..., str]
) -> None:
    server = serve(workers=2)
    stopped, other = server.workers()
    os.kill(stopped, signal.SIGSTOP)
    try:
        found = {row["pid"]: row["stacks"] for row in json.loads(stacks("--json"))["workers"]}
        assert found[stopped] == "" and found[other]
        assert "no stack could be had" in stacks()
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert scgi_request(server.address).status == 200


def test_sigusr2_puts_all_stacks_into_the_log(serve: Callable[..., Process]) -> None:
    server = serve(timeout=0, workers=2)
    with running(server, "/sleep?3"):
        told = r"worker \d+, GET /sleep\?3 for .* \(order-sleep\)(.*\n)*.* in sleep\n"
        wait_until(lambda: server.signal(signal.SIGUSR2) or records(server, told))
    wait_until(lambda: len(records(server, r"worker \d+, idle")) >= 1)


def test_sigusr2_ends_no_process_of_the_server_at_any_moment(serve: Callable[..., Process]) -> None:
    server = serve("--http", f"127.0.0.1:{free_port()}", workers=2)
    front = wait_until(lambda: [pid for pid in server.children() if title_of(pid) == "scgi: HTTP front"])
    before = server.descendants()
    for _ in range(20):
        for pid in server.descendants():
            os.kill(pid, signal.SIGUSR2)
        server.signal(signal.SIGUSR2)
    assert scgi_request(server.address).status == 200
    for _ in range(30):  # also those that are just being born
        server.signal(signal.SIGHUP)
        for pid in server.descendants():
            try:
                os.kill(pid, signal.SIGUSR2)
            except ProcessLookupError:
                pass
        scgi_request(server.address)
    wait_until(lambda: len(server.pools()) == 1)
    assert set(front) <= set(server.children()) and before
    assert "SIGUSR2" not in server.log()


def test_a_server_of_a_program_has_them_in_its_log_too(launch: Launch) -> None:
    port = free_port()
    program = (
        "from hung_handlers import *\nfrom scgi.scgi_server import SCGIServer\nSCGIServer(Produce, port={}).serve()"
    )
    server = launch("-c", program.format(port), address=f"127.0.0.1:{port}", cwd=HERE)
    assert scgi_request(server.address).status == 200
    wait_until(lambda: server.signal(signal.SIGUSR2) or records(server, r"worker \d+, idle"))
    assert children_of(server.pid)


def test_a_slow_request_is_told_once_with_its_stack_and_goes_on(serve: Callable[..., Process]) -> None:
    server = serve("--slow-log", "0.5", timeout=0)
    with running(server, "/sleep?2"):
        record = wait_until(lambda: records(server, "slow: "))[0]
        assert " WARNING " in record and "GET /sleep?2 (request order-sleep)" in record and " in sleep\n" in record
    with running(server, "/drip?4"):
        pass
    assert len(records(server, "slow: ")) == 1
