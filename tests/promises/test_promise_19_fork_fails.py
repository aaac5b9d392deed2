"""`fork` failing never ends the server: service goes on with what is there, and it recovers within a second."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pool.crowd import at_once, begun, rest_of
from support import Process, is_alive, wait_until
from support.generations import workers_of
from support.load import Load, write_application
from support.room import Room


@contextmanager
def no_more_processes(room: Room, server: Process) -> Iterator[None]:
    """The kernel refuses every fork of the application's user: there are too many processes of that name."""
    theirs = server.children() if room.as_root else [server.pid, *server.children()]
    room.limit(theirs, "RLIMIT_NPROC", 0)
    yield
    room.limit(filter(is_alive, theirs), "RLIMIT_NPROC", None)


def test_when_fork_fails_service_goes_on_with_what_is_there_and_grows_again(tcp_room: Room) -> None:
    server = tcp_room.start("pages.py", "--min-workers", "1", "--max-workers", "3")
    wait_until(lambda: len(workers_of(server)) == 1)
    with no_more_processes(tcp_room, server):
        assert {answer.status for answer in at_once(server.address, 4, "/sleep/0.1")} == {200}
        assert "cannot fork" in server.log()
        assert len(workers_of(server)) == 1

    def grown() -> bool:
        assert {answer.status for answer in at_once(server.address, 6, "/sleep/0.1")} == {200}
        return len(workers_of(server)) > 1

    wait_until(grown)


def test_when_fork_fails_and_no_worker_is_left_clients_wait_and_are_answered_within_a_second_of_recovery(
    tcp_room: Room,
) -> None:
    server = tcp_room.serve("pages.py", workers=1)
    with ExitStack() as stack:
        with no_more_processes(tcp_room, server):
            os.kill(workers_of(server)[0], signal.SIGKILL)
            wait_until(lambda: "cannot fork" in server.log())
            peers = [stack.enter_context(begun(server.address, "/pid")) for _ in range(3)]
            wait_until(lambda: server.log().count("cannot fork") > 2)
            assert server.log().count("cannot fork") < 20
        recovered = time.monotonic()
        assert [rest_of(peer).status for peer in peers] == [200] * 3
        assert time.monotonic() - recovered < 1.5  # a second, on a machine that has other things to do


def test_a_reload_that_finds_no_room_leaves_the_old_code_serving_and_comes_once_there_is(tcp_room: Room) -> None:
    server = tcp_room.serve("app.py", workers=2)
    with Load(server.address, clients=8, pause=0.002) as load:
        load.wait_for_more(100)
        tcp_room.limit([server.pid], "RLIMIT_NOFILE", len(os.listdir(f"/proc/{server.pid}/fd")))
        write_application(tcp_room.app, "2")
        server.signal(signal.SIGHUP)
        wait_until(lambda: server.log().count("cannot fork") > 1)
        load.wait_for_more(100)
        tcp_room.limit([server.pid], "RLIMIT_NOFILE", None)
        began = time.monotonic()
        wait_until(lambda: "generation 2 serves" in server.log())
        assert time.monotonic() - began < 1.5
        load.wait_for_more(100)
    assert load.report.lost == [] and load.report.refused == 0
    assert list(load.report.versions) == ["1", "2"]
