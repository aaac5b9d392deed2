"""Workers that have done enough are replaced, in the real server: one at a time, the replacement ready first."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import Process, scgi_request, wait_until
from support.load import Load, write_application

APP = """
import os, time
hoard = []

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    path = environ["PATH_INFO"]
    if path.startswith("/grow"):
        hoard.append(b"x" * (64 << 20))
    if path == "/grow-and-wait":
        open("waits", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    return [str(os.getpid()).encode()]
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path / "app.py"


def replaced(server: Process) -> list[tuple[int, str]]:
    """(worker, why) of every replacement so far."""
    return [(int(pid), why) for pid, why in re.findall(r"worker (\d+) is replaced: (.*)", server.log())]


def moments(server: Process) -> list[tuple[str, int, int]]:
    """What happened to workers, in order: ("started", new, old) and ("ended", worker, 0)."""
    lines = re.findall(r"worker (\d+) (started in place of (\d+)|ended)", server.log())
    return [("started", int(pid), int(old)) if old else ("ended", int(pid), 0) for pid, _, old in lines]


def test_workers_that_have_served_enough_are_replaced_and_nothing_is_lost(scgi_serve, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app.py", "1")
    server = scgi_serve(f"{app}:app", "--min-workers", "2", "--max-workers", "2", "--max-requests", "500")
    most = 0
    with Load(server.address, clients=8) as load:
        while len(replaced(server)) < 8:
            load.wait_for_more(100)
            most = max(most, len(server.workers()))
    report = load.report
    assert not report.lost and not report.refused, report
    assert len(report.processes) >= 8
    assert most <= 3, "its two workers, and one replacement"
    assert all(int(why.split()[3]) >= 450 for _, why in replaced(server))
    assert len({why for _, why in replaced(server)}) > 1, "they all had the same ration"


def test_a_worker_ends_after_its_replacement_has_come(scgi_serve, app: Path) -> None:
    server = scgi_serve(app, "--min-workers", "3", "--max-workers", "3", "--max-worker-age", "0.5")
    wait_until(lambda: len([one for one in moments(server) if one[0] == "ended"]) >= 4, 30)
    seen = moments(server)
    for place, (what, worker, _) in enumerate(seen):
        if what == "ended":
            assert any(earlier[0] == "started" and earlier[2] == worker for earlier in seen[:place])
    replacing = 0
    for what, *_ in seen:  # one at a time: a start, then an end
        replacing += 1 if what == "started" else -1
        assert replacing in (0, 1)


def test_an_old_worker_is_replaced_although_nobody_asks_it_anything(scgi_serve, app: Path) -> None:
    server = scgi_serve(app, "--max-workers", "1", "--max-worker-age", "1")
    first = scgi_request(server.address).text
    wait_until(lambda: scgi_request(server.address).text != first)
    (worker, why), *_ = replaced(server)
    assert str(worker) == first
    assert re.fullmatch(r"it is \S+ s old", why)


def test_a_worker_that_has_grown_is_replaced_once_it_has_finished(scgi_serve, app: Path) -> None:
    server = scgi_serve(app, "--max-workers", "2", "--max-memory", "60m", cwd=app.parent)
    with ThreadPoolExecutor() as clients:
        waiting = clients.submit(scgi_request, server.address, path="/grow-and-wait")
        wait_until(lambda: (app.parent / "waits").exists())
        wait_until(lambda: replaced(server))
        assert not waiting.done()
        (app.parent / "go").touch()
        grown = waiting.result().text
    (worker, why), *_ = replaced(server)
    assert str(worker) == grown
    assert re.fullmatch(r"it has \S+ MiB of memory, more than 60", why)
    wait_until(lambda: f"worker {grown} ended" in server.log())
    assert scgi_request(server.address).text != grown


def test_a_worker_within_its_ration_stays(scgi_serve, app: Path) -> None:
    server = scgi_serve(app, "--max-requests", "1000", "--max-worker-age", "60", "--max-memory", "1g")
    workers = {scgi_request(server.address, path="/grow").text for _ in range(2)}
    assert workers == {scgi_request(server.address).text for _ in range(50)}
    assert not replaced(server)
