"""A worker's death costs at most the request it ran, and is logged with signal or status, request, and age."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest

from pool.crowd import begun, dozing, rest_of
from soak.scenarios import guarding, killing
from support import build_request, is_alive, scgi_request, wait_until
from support.addresses import connect
from support.generations import workers_of
from support.room import Room


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_is_killed_is_one_line_with_signal_request_and_age(
    tcp_room: Room, number: signal.Signals
) -> None:
    server = tcp_room.serve("pages.py", workers=2)
    with connect(server.address) as peer:
        peer.sendall(build_request({"HTTP_X_REQUEST_ID": "order-77"}, path="/doze/20", query="a=b"))
        victim = dozing(server)
        began = time.monotonic()
        wait_until(lambda: time.monotonic() > began + 0.6, what="the guard's moment")
        os.kill(victim, number)
        assert rest_of(peer).text == "502 Bad Gateway\nRequest order-77\n"
    line = wait_until(lambda: re.search(rf".*worker {victim} killed by {number.name}.*\n", server.log()))[0]
    assert "GET /doze/20?a=b (request order-77, " in line and re.search(r"age was \d+\.\d s", line)
    wait_until(lambda: len(workers_of(server)) == 2)


@pytest.mark.parametrize(("page", "end"), [("/leave/3", "exited with status 3"), ("/crash", "killed by SIGSEGV")])
def test_an_application_that_ends_its_process_is_one_line_and_costs_one_request(
    tcp_room: Room, page: str, end: str
) -> None:
    server = tcp_room.serve("pages.py", workers=2)
    with begun(server.address, page) as peer:
        assert peer.recv(65536) == b""  # that soon nobody has an eye on it
    lines = wait_until(lambda: re.findall(rf".*worker \d+ {end}.*\n", server.log()))
    assert len(lines) == 1 and f"GET {page}" in lines[0]
    assert all(scgi_request(server.address).status == 200 for _ in range(5))


def test_the_death_of_idle_workers_costs_nothing(tcp_room: Room) -> None:
    server = tcp_room.serve("pages.py", workers=2)
    for victim in workers_of(server):
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda victim=victim: not is_alive(victim))
        assert scgi_request(server.address).status == 200
    wait_until(lambda: len(workers_of(server)) == 2)
    first = re.findall(r"killed by SIGKILL.*", server.log())[0]
    assert "between requests" in first or "before its first request" in first


@pytest.mark.alone
def test_kills_at_random_instants_under_load_cost_the_killed_workers_requests_alone(either_room: Room) -> None:
    server = either_room.serve(either_room.app, workers=4)
    killing(server, seconds=4, seed=17, clients=32)


@pytest.mark.alone
def test_a_client_gets_its_own_answer_or_a_502_of_its_own_while_a_worker_is_killed_every_50_ms(
    either_room: Room,
) -> None:
    server = either_room.serve(either_room.app, workers=16)
    guarding(server, total=2000, seconds=5, seed=17)
