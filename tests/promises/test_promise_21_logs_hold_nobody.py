"""Log disk full, log pipe closed, log pipe stuck: no request is slower by 50 ms; dropped lines are counted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import Process, scgi_request, wait_until
from support.room import ROOT, Room

NOISY = """
import logging
import sys

log = logging.getLogger("shop")

def app(environ, start_response):
    for number in range(3):
        log.error("line %d of a request: %s", number, "x" * 300)
    print("one more", file=environ["wsgi.errors"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"well"]
"""
REQUESTS = 300
MOMENT = 0.25  # seconds that a machine may take for itself; who waits for a log waits for ever
PATH = "/" + "p" * 400  # so that the access log has something to say
pytestmark = pytest.mark.alone


@pytest.fixture
def noisy(either_room: Room) -> Room:
    (either_room.folder / "noisy.py").write_text(NOISY)
    return either_room


def fifo(room: Room, name: str) -> tuple[Path, int]:
    """A pipe with a name, and its reading end."""
    path = room.folder / name
    os.mkfifo(path)
    path.chmod(0o622)
    return path, os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def slowest(server: Process, count: int = REQUESTS) -> float:
    """How long the slowest of so many requests takes; all are answered."""
    found = 0.0
    for _ in range(count):
        began = time.monotonic()
        assert scgi_request(server.address, path=PATH).text == "well"
        found = max(found, time.monotonic() - began)
    return found


def lost_lines(room: Room, server: Process) -> int:
    return int(room.status(server)["counters"]["lost_lines"])


def everything(reader: int) -> str:
    """What is in a pipe now."""
    found = b""
    while True:
        try:
            piece = os.read(reader, 1 << 20)
        except BlockingIOError:
            piece = b""
        if not piece:
            return found.decode()
        found += piece


def told(text: str) -> list[str]:
    """Where the log says that lines are missing."""
    found = []
    for line in text.splitlines():
        with_it = json.loads(line)["message"] if line.startswith('{"time"') and line.endswith("}") else line
        found += re.findall(r"log lines lost: \d+ that this process could not write to (.*)", with_it)
    return found


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_pipe_that_nobody_empties(noisy: Room, format: str) -> None:
    (log, log_end), (access, access_end) = fifo(noisy, "log"), fifo(noisy, "access")
    server = noisy.serve(
        "noisy.py", "--log-format", format, "--log-file", str(log), "--access-log", str(access), workers=2
    )
    try:
        usual = slowest(server, 10)
        assert slowest(server) < usual + MOMENT
        assert (lost := lost_lines(noisy, server)) > 3 * REQUESTS
        everything(log_end), everything(access_end)

        def recovered() -> bool:
            slowest(server, 5)
            places.update(told(everything(log_end)))
            everything(access_end)
            return len(places) == 2

        places: set[str] = set()
        wait_until(recovered, 15, "what is missing in both logs to be said")
        assert places == {str(log), str(access)}
        wait_until(lambda: slowest(server, 5) < usual + MOMENT)
        assert lost_lines(noisy, server) >= lost
    finally:
        os.close(log_end)
        os.close(access_end)


def test_a_standard_error_that_nobody_empties(noisy: Room) -> None:
    (out, out_end), (log, log_end) = fifo(noisy, "out"), fifo(noisy, "log")
    wrapper = ("sh", "-c", f'exec "$@" >{out} 2>{log}', "sh")
    count = ("--min-workers", "2", "--max-workers", "2")
    server = noisy.start("noisy.py", "--access-log", "-", *count, wrapper=wrapper)
    try:
        usual = slowest(server, 10)
        assert slowest(server) < usual + MOMENT
        assert lost_lines(noisy, server) > 3 * REQUESTS
        assert scgi_request(server.address).status == 200
    finally:
        os.close(log_end)
        os.close(out_end)


def test_a_pipe_whose_reader_has_gone(noisy: Room) -> None:
    (log, log_end), (access, access_end) = fifo(noisy, "log"), fifo(noisy, "access")
    server = noisy.serve("noisy.py", "--log-file", str(log), "--access-log", str(access), workers=2)
    usual = slowest(server, 10)
    os.close(log_end)
    os.close(access_end)
    assert slowest(server) < usual + MOMENT
    assert lost_lines(noisy, server) >= 5 * REQUESTS


def test_a_disk_that_is_full(noisy: Room) -> None:
    server = noisy.serve("noisy.py", "--log-file", "/dev/full", "--access-log", "/dev/full", workers=2)
    assert slowest(server) < MOMENT + slowest(server, 10)
    assert lost_lines(noisy, server) >= 5 * REQUESTS


@pytest.fixture
def disk(noisy: Room) -> Iterator[Path]:
    """A small one of its own."""
    folder = noisy.folder / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=1777", "none", folder], check=False)
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(not ROOT, reason="only root can mount a disk; run the tests as root too")
def test_a_disk_that_is_full_and_then_has_room_again(noisy: Room, disk: Path) -> None:
    log, access, ballast = disk / "log", disk / "access", disk / "ballast"
    server = noisy.serve("noisy.py", "--log-file", str(log), "--access-log", str(access), workers=2)
    usual = slowest(server, 10)
    ballast.write_bytes(b"x" * 20_000)
    assert slowest(server) < usual + MOMENT
    assert lost_lines(noisy, server) > 3 * REQUESTS
    ballast.unlink()

    def recovered() -> bool:
        assert scgi_request(server.address).status == 200
        return set(told(log.read_text())) == {str(log), str(access)}

    wait_until(recovered, 15, "what is missing in both logs to be said")
