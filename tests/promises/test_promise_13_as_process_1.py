"""The end is the same for process 1 of a container, which besides reaps what the application leaves behind."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from pool.crowd import begun, rest_of
from support import Process, children_of, require_program, scgi_request, wait_until
from support.processes import descendants_of
from support.room import Room


@pytest.fixture
def contained(either_room: Room) -> tuple[Process, int]:
    """What made the namespace, and our number for the server, which is process 1 in it."""
    unshare = [require_program("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc"]
    if not either_room.as_root:
        unshare[1:1] = ["--user", "--map-current-user"]
    server = either_room.start("pages.py", "--min-workers", "2", "--max-workers", "2", wrapper=unshare)
    [master] = children_of(server.pid)
    assert Path(f"/proc/{master}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
    wait_until(lambda: len(descendants_of(master)) == 3)  # the pool and two workers
    return server, master


def test_process_1_answers_who_has_arrived_at_term_and_exits_with_0(contained: tuple[Process, int]) -> None:
    server, master = contained
    with ExitStack() as stack:
        peers = [stack.enter_context(begun(server.address, "/sleep/0.3")) for _ in range(5)]
        os.kill(master, signal.SIGTERM)
        assert [rest_of(peer).status for peer in peers] == [200] * 5
    assert server.wait() == 0
    server.assert_nothing_left()


def test_process_1_reloads_replaces_the_dead_and_reaps_orphans(contained: tuple[Process, int]) -> None:
    server, master = contained
    for _ in range(4):
        assert scgi_request(server.address, path="/orphan").status == 200
    before = descendants_of(master)
    os.kill(master, signal.SIGHUP)
    wait_until(lambda: len(descendants_of(master)) == 3 and not set(before) & set(descendants_of(master)))
    [pool] = children_of(master)
    os.kill(pool, signal.SIGKILL)
    wait_until(lambda: len(descendants_of(master)) == 3 and pool not in children_of(master))
    everybody = Path(f"/proc/{master}/task/{master}/children")  # zombies too, which children_of leaves out
    # The killed pool's workers end as orphans: between the end of one and its burial they are zombies.
    wait_until(lambda: [int(child) for child in everybody.read_text().split()] == children_of(master))
    os.kill(master, signal.SIGINT)
    assert server.wait() == 0
