"""What a machine in production goes through, in a few rounds for the suite and in a hundred for `make soak`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL

from apache_module.load import Clients
from support import Process, free_port, resident_bytes, start, wait_until
from support.apache_module import Apache, serving

SERVER = Path(__file__).with_name("echo_server.py")
MEGA = 1 << 20
MANY = """
StartServers 5
ServerLimit 10
ThreadsPerChild 64
MaxRequestWorkers 640
MaxSpareThreads 640
"""


def start_server(folder: Path, address: str) -> Process:
    return start([sys.executable, SERVER, address], log_file=folder / "log", address=address)


@contextmanager
def two_servers(
    folder: Path, tcp: bool, mpm: str = "event", limits: str = ""
) -> Iterator[tuple[Apache, list[Process]]]:
    """An Apache with /app on both."""
    addresses = [f"127.0.0.1:{free_port()}" if tcp else f"unix:{folder}/{number}" for number in range(2)]
    servers = [start_server(folder, address) for address in addresses]
    try:
        with serving(f"SCGIMount /app {servers[0].address} {servers[1].address}", mpm=mpm, limits=limits) as web:
            yield web, servers
    finally:
        for server in servers:
            server.kill()


def graceful(web: Apache, rounds: int, clients: int = 8) -> str:
    """`apachectl graceful` again and again under load: none is lost, and the parent grows by nothing."""
    with Clients(web, "/app", clients) as load:
        load.wait_for_more()
        first: tuple[int, int] = (0, 0)
        for number in range(rounds):
            web.reload()
            load.wait_for_more()
            if number == min(5, rounds // 2):
                first = held(web)
        last = held(web)
    assert not load.lost, (len(load.lost), load.lost[:5])
    assert set(load.posts) == {200}, load.posts
    assert last[0] <= first[0] + (4 * MEGA if rounds < 20 else 2 * MEGA), (first, last)
    assert last[1] == first[1], (first, last)
    return f"{load.answered} answered, 0 lost, {rounds} times graceful, parent {first[0] >> 10} → {last[0] >> 10} KiB"


def held(web: Apache) -> tuple[int, int]:
    """The memory and the descriptors of the parent."""
    return resident_bytes(web.process.pid), len(os.listdir(f"/proc/{web.process.pid}/fd"))


def killing(web: Apache, servers: list[Process], folder: Path, rounds: int, clients: int = 8) -> str:
    """One of the two servers is killed and started again, in turns, under load: what may be repeated is answered."""

    def restart(turn: int) -> None:
        servers[turn].popen.send_signal(SIGKILL)
        servers[turn].popen.wait(10)
        load.wait_for_more()
        servers[turn] = start_server(folder, servers[turn].address)

    with Clients(web, "/app", clients) as load:
        load.wait_for_more()
        for number in range(rounds):
            restart(number % 2)
            load.wait_for_more()
    assert not load.lost, (len(load.lost), load.lost[:5])
    wait_until(lambda: all(server.running() for server in servers))
    return f"{load.answered} answered, 0 lost, {rounds} kills; POSTs by status: {dict(load.posts)}"


def crowded(web: Apache, servers: list[Process], folder: Path, slow: int, fast: int) -> str:
    """So many slow requests at any moment, and so many fast ones in all, while each second one of the two servers is
    killed, in turns, and started again at once."""
    kills = 0
    with Clients(web, "/app", slow, "/slow") as patient, Clients(web, "/app") as load:
        patient.wait_for_more(1)
        load.wait_for_more()
        following = time.monotonic()
        while load.answered + len(load.lost) < fast:
            server = servers[kills % 2]
            server.popen.send_signal(SIGKILL)
            server.popen.wait(10)
            servers[kills % 2] = start_server(folder, server.address)
            kills += 1
            following += 1
            time.sleep(max(0.0, following - time.monotonic()))
    lost = load.lost + patient.lost
    assert not lost, (len(lost), lost[:5])
    counts = f"{load.answered} fast and {patient.answered} slow ones answered, 0 lost, {kills} kills"
    return f"{counts}; POSTs by status: {dict(load.posts)}, slow {dict(patient.posts)}"
