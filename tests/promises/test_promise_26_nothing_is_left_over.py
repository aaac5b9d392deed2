"""Requests of all kinds, malformed and cut ones too, and reloads leave no descriptor, zombie or memory behind."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from support import Process, build_request, resident_bytes, wait_until
from support.addresses import connect
from support.generations import pools_of, workers_of
from support.room import Room

GOOD = build_request(path="/pid")
WITH_BODY = build_request(path="/pid", body=b"x" * 5000, method="POST")
KINDS = [GOOD] * 6 + [WITH_BODY, b"12:CONTENT_LENG", GOOD[:-30], b"GET / HTTP/1.1\r\n\r\n", WITH_BODY[:-100]]


def ask_everything(address: str, count: int) -> None:
    for number in range(count):
        with connect(address) as peer:
            peer.sendall(KINDS[number % len(KINDS)])
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(65536):
                pass


def reload(server: Process) -> None:
    old = server.children()
    server.signal(signal.SIGHUP)

    def new_alone() -> bool:
        now = server.children()
        return len(now) == 1 and now != old and bool(workers_of(server))

    wait_until(new_alone)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def fewest_descriptors(pid: int) -> int:
    """Without a connection that is just being closed."""
    return min(descriptors(pid) for _ in range(200))


def zombies_of(pid: int) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in children if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"]


@pytest.mark.alone
def test_requests_of_all_kinds_leave_nothing_in_a_worker(unix_room: Room) -> None:
    server = unix_room.serve("pages.py")
    [worker] = workers_of(server)
    ask_everything(server.address, 1000)
    before = fewest_descriptors(worker), resident_bytes(worker)
    ask_everything(server.address, 6000)
    assert workers_of(server) == [worker]
    assert fewest_descriptors(worker) <= before[0]
    assert resident_bytes(worker) - before[1] < 1_000_000


@pytest.mark.alone
def test_reloads_leave_nothing_in_the_master_nor_in_the_pool(either_room: Room) -> None:
    server = either_room.serve("pages.py", workers=2)
    seen = []
    for number in range(24):
        reload(server)
        ask_everything(server.address, 20)
        if number in (7, 23):
            wait_until(lambda: not zombies_of(server.pid), 2, "the dead to be reaped")
            [pool] = pools_of(server)
            wait_until(lambda pool=pool: len(workers_of(server)) == 2)
            seen.append((fewest_descriptors(server.pid), fewest_descriptors(pool), resident_bytes(server.pid)))
    assert seen[1][0] <= seen[0][0] and seen[1][1] <= seen[0][1], seen
    assert seen[1][2] - seen[0][2] < 500_000
