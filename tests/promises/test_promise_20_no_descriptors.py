"""EMFILE in accept: under 10 % CPU, at most a log line a second, full recovery."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pool.crowd import begun, rest_of
from support import wait_until
from support.generations import workers_of
from support.room import Room

COMPLAINT = "cannot accept a connection: Too many open files"


def seconds_used(pids: list[int]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")


def test_without_descriptors_workers_wait_say_so_once_a_second_each_and_recover(either_room: Room) -> None:
    server = either_room.serve("pages.py", workers=2)
    workers = workers_of(server)
    everybody = [server.pid, *server.descendants()]
    either_room.limit(workers, "RLIMIT_NOFILE", 3)
    began, used = time.monotonic(), seconds_used(everybody)
    with begun(server.address, "/pid") as one, begun(server.address, "/pid") as other:
        wait_until(lambda: server.log().count(COMPLAINT) >= 3)
        passed = time.monotonic() - began
        assert server.log().count(COMPLAINT) <= 2 * (passed + 1)  # each of the two
        assert seconds_used(everybody) - used < 0.05 + 0.1 * passed
        either_room.limit(workers, "RLIMIT_NOFILE", None)
        recovered = time.monotonic()
        assert [rest_of(peer).status for peer in (one, other)] == [200, 200]
        assert time.monotonic() - recovered < 2
    assert workers_of(server) == workers
