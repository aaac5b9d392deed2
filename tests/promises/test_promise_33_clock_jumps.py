"""Clock jumps change nothing."""

from __future__ import annotations

import os
import re
import signal
import time

from support import build_request, wait_until
from support.addresses import connect
from support.generations import workers_of
from support.load import Load
from support.room import Room

# The clock of every process of the server jumps when, and by as many seconds as, the test says.
JUMPING = """
import datetime, os, time
from pathlib import Path

_time, _jump = time.time, Path(os.environ["CLOCK_JUMP"])

def jumped():
    return _time() + float(_jump.read_text() or 0)

time.time = jumped
time.time_ns = lambda: int(jumped() * 1e9)
"""
DAY = 86400.0


def test_a_clock_that_jumps_by_a_day_to_and_fro_changes_nothing(tcp_room: Room) -> None:
    jump = tcp_room.folder / "jump"
    jump.write_text("0")
    library = tcp_room.folder / "clock"
    library.mkdir()
    (library / "sitecustomize.py").write_text(JUMPING)
    before = tcp_room.environment.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    path = f"{library}:{before}" if before else str(library)
    options = ["--header-timeout", "0.8", "--graceful-timeout", "3", "--idle-timeout", "600", "--max-worker-age", "600"]
    server = tcp_room.serve("app.py", *options, workers=2, env={"PYTHONPATH": path, "CLOCK_JUMP": str(jump)})
    workers = workers_of(server)
    with Load(server.address, clients=8, pause=0.002) as load:
        for jumped in (DAY, -DAY):
            load.wait_for_more(100)
            began = time.monotonic()
            with connect(server.address) as silent:  # a worker may have it at once: its clock runs from here
                jump.write_text(str(jumped))
                silent.sendall(build_request()[:20])
                assert silent.recv(100).startswith(b"Status: 408")
                assert 0.7 < time.monotonic() - began < 4
            load.wait_for_more(100)
        assert workers_of(server) == workers  # nobody has been idle for, or is, a day old
        jump.write_text(str(-DAY))
        os.kill(workers[0], signal.SIGKILL)
        wait_until(lambda: len(workers_of(server)) == 2, 2)
        server.signal(signal.SIGHUP)
        wait_until(lambda: len(workers_of(server)) == 2 and not set(workers) & set(workers_of(server)), 5)
        jump.write_text(str(DAY))
        load.wait_for_more(100)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 2
    assert len(load.report.lost) <= 1 and load.report.refused == 0
    assert load.report.longest_gap < 1
    assert len(set(re.findall(r"^\d{4}-\d\d-\d\d", server.log(), re.MULTILINE))) >= 3  # the clock did jump
