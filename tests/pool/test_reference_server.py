"""`SCGIServer` is a pool in the program's own process: the same drain, time limits and healing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import Launch
from pool.conftest import catches_term
from pool.crowd import Crowd, begun, dozing, rest_of
from support import Process, free_port, is_alive, is_listening, scgi_request, wait_until

PROGRAM = """
import os, sys, time
from scgi.scgi_server import SCGIHandler, SCGIServer

class Handler(SCGIHandler):
    def produce(self, env, bodysize, input, output):
        page, _, argument = env["PATH_INFO"].strip("/").partition("/")
        if page == "doze":
            print("dozing:", os.getpid(), file=sys.stderr)
        if page == "stubborn":
            end = time.monotonic() + float(argument)
            while time.monotonic() < end:
                time.sleep(0.01)
        elif argument:
            time.sleep(float(argument))
        output.write(f"Content-Type: text/plain\\n\\n{os.getpid()}")

if __name__ == "__main__":
    SCGIServer(Handler, port=int(sys.argv[1]), max_children=3).serve()
    print("after serve()", file=sys.stderr)
"""


@pytest.fixture
def server(launch: Launch, tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "server.py").write_text(PROGRAM)
    port = free_port()
    process = launch(tmp_path / "server.py", str(port), address=f"127.0.0.1:{port}")
    wait_until(lambda: catches_term(process.pid), 10, "the server to hear signals")
    yield process


def test_term_answers_what_is_in_flight_and_what_is_queued_and_the_program_goes_on(server: Process) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(begun(server.address, "/sleep/0.1")) for _ in range(12)]
        server.signal(signal.SIGTERM)
        assert [rest_of(peer).status for peer in peers] == [200] * 12
    assert server.wait() == 0
    assert server.log().endswith("after serve()\n")
    assert not is_listening(server.address)


def test_term_under_load_loses_nothing_that_was_accepted_or_queued(server: Process) -> None:
    with Crowd(server.address, size=24) as crowd:
        wait_until(lambda: crowd.answered > 100)
        told = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert [loss for loss in crowd.lost if loss[0] < told] == []


def test_a_second_term_stops_at_once(server: Process) -> None:
    with begun(server.address, "/stubborn/30"):
        wait_until(server.workers)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        wait_until(lambda: "stopping: " in server.log())
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - began < 2


def test_hup_replaces_all_children_under_load_and_loses_nothing(server: Process) -> None:
    with Crowd(server.address, size=6) as crowd:
        for number in range(1, 11):
            before = set(wait_until(server.workers))
            server.signal(signal.SIGHUP)
            wait_until(lambda before=before: server.workers() and not before & set(server.workers()))
            assert len(server.workers()) <= 6, number
            wait_until(lambda number=number: crowd.answered > 20 * number)
    assert crowd.lost == [] and crowd.refused == 0
    assert "ERROR" not in server.log()


def test_a_killed_child_costs_its_request_alone_and_is_replaced(server: Process) -> None:
    with begun(server.address, "/doze/20") as peer:
        victim = dozing(server)
        os.kill(victim, signal.SIGKILL)
        assert peer.recv(1000) == b""
    assert scgi_request(server.address).text != str(victim)
    said = f"worker {victim} killed by SIGKILL while answering GET /doze/20 (request "
    wait_until(lambda: said in server.log(), what=said)


def test_when_the_program_is_killed_idle_children_go_busy_ones_finish_and_the_address_is_free(server: Process) -> None:
    with begun(server.address, "/doze/1.5") as busy:
        dozing(server)
        assert scgi_request(server.address).status == 200  # by a second child
        children = server.workers()
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        wait_until(lambda: sum(map(is_alive, children)) == 1, 1, "the idle children to be gone")
        assert not is_listening(server.address)
        assert rest_of(busy).status == 200
    wait_until(lambda: not any(map(is_alive, children)), 1, "the last child to be gone")
