"""What the real server tells systemd, and when; `conftest.Manager` plays systemd's part."""

from __future__ import annotations

import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from support import Process, scgi_request, wait_until

APP = """
import json, os, time
ANSWER = "old"

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/wait":
        open("waits", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [json.dumps(dict(os.environ)).encode() if path == "/environ" else ANSWER.encode()]
"""
SLOW_IMPORT = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@pytest.fixture
def serve(manager, folder: Path):
    """Start `scgi serve` as systemd would, in the application's folder."""

    def serve(*options: str, **others: object) -> Process:
        return manager.start(sys.executable, "-m", "scgi", "serve", *options, "app.py", cwd=folder, **others)

    return serve


def test_ready_is_said_when_somebody_can_answer_and_not_before(manager, serve, folder: Path) -> None:
    (folder / "app.py").write_text(SLOW_IMPORT + APP)
    address = manager.listen()
    serve()
    for _ in range(2):  # while the import takes its time, systemd is asked for more
        assert int(manager.hear_of("EXTEND_TIMEOUT_USEC")["EXTEND_TIMEOUT_USEC"]) >= 2_000_000
    assert not any("READY" in message for message in manager.said)
    (folder / "go").touch()
    ready = manager.hear_of("READY")
    assert ready["READY"] == "1" and "serving" in ready["STATUS"].lower()
    assert scgi_request(address, within=1).text == "old"


def test_an_application_that_does_not_load_is_never_ready(manager, serve, folder: Path) -> None:
    (folder / "app.py").write_text("1 / 0")
    manager.listen()
    server = serve()
    assert server.wait() == 4
    assert not any("READY" in message for message in manager.rest())
    assert "ZeroDivisionError" in server.log()


def test_a_reload_is_told_from_its_beginning_to_its_end(manager, serve, folder: Path) -> None:
    address = manager.listen()
    server = serve()
    manager.hear_of("READY")
    (folder / "app.py").write_text(APP.replace('"old"', '"new one"'))
    before = time.monotonic_ns() // 1000
    server.signal(signal.SIGHUP)
    reloading = manager.hear_of("RELOADING")
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert "generation 2" in manager.hear_of("READY")["STATUS"]
    assert scgi_request(address).text == "new one"


def test_a_reload_that_fails_ends_too_and_the_status_says_so(manager, serve, folder: Path) -> None:
    address = manager.listen()
    server = serve()
    manager.hear_of("READY")
    (folder / "app.py").write_text("1 / 0")
    server.signal(signal.SIGHUP)
    manager.hear_of("RELOADING")
    assert "failed" in manager.hear_of("READY")["STATUS"]
    assert scgi_request(address).text == "old"


def test_a_reload_that_takes_long_asks_for_the_time(manager, serve, folder: Path) -> None:
    manager.listen()
    server = serve()
    manager.hear_of("READY")
    (folder / "app.py").write_text(SLOW_IMPORT + APP)
    server.signal(signal.SIGHUP)
    manager.hear_of("RELOADING")
    manager.hear_of("EXTEND_TIMEOUT_USEC")
    assert "READY" not in manager.said[-1]
    (folder / "go").touch()
    manager.hear_of("READY")


def test_stopping_is_said_at_once_and_time_asked_for_while_requests_are_finished(manager, serve, folder: Path) -> None:
    address = manager.listen()
    server = serve()
    manager.hear_of("READY")
    with ThreadPoolExecutor() as clients:
        waiting = clients.submit(scgi_request, address, path="/wait")
        wait_until(lambda: (folder / "waits").exists())
        server.signal(signal.SIGTERM)
        assert manager.hear_of("STOPPING")["STOPPING"] == "1"
        manager.hear_of("EXTEND_TIMEOUT_USEC")
        (folder / "go").touch()
        assert waiting.result().text == "old"
    assert server.wait() == 0
    assert not any("READY" in message for message in manager.rest())


def test_the_watchdog_is_fed_while_every_worker_is_stuck(manager, serve, folder: Path) -> None:
    address = manager.listen()
    serve("--max-workers", "2", watchdog=0.8)
    manager.hear_of("READY")
    with ThreadPoolExecutor() as clients:
        stuck = [clients.submit(scgi_request, address, path="/wait") for _ in range(3)]
        wait_until(lambda: (folder / "waits").exists())
        heard = []
        while len(heard) < 6:
            assert manager.hear_of("WATCHDOG", within=0.8)["WATCHDOG"] == "1"
            heard.append(time.monotonic())
        (folder / "go").touch()
        assert [one.result().text for one in stuck] == 3 * ["old"]
    assert max(after - before for before, after in pairwise(heard)) < 0.8


def test_the_watchdog_is_fed_while_the_application_is_imported(manager, serve, folder: Path) -> None:
    (folder / "app.py").write_text(SLOW_IMPORT + APP)
    manager.listen()
    serve(watchdog=0.8)
    for _ in range(4):
        manager.hear_of("WATCHDOG", within=2)
    (folder / "go").touch()
    manager.hear_of("READY")


def test_a_master_that_hangs_does_not_feed_the_watchdog(manager, serve) -> None:
    manager.listen()
    server = serve(watchdog=0.4)
    manager.hear_of("READY")
    manager.hear_of("WATCHDOG")
    server.signal(signal.SIGSTOP)
    try:
        # Whatever it said before it stopped is there already: from now on there is silence.
        wait_until(lambda: Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        manager.rest()
        time.sleep(1)  # a silence takes its time
        assert manager.rest() == []
    finally:
        server.signal(signal.SIGCONT)
    manager.hear_of("WATCHDOG")


def test_without_a_watchdog_none_is_fed(manager, serve) -> None:
    manager.listen()
    server = serve()
    manager.hear_of("READY")
    server.signal(signal.SIGHUP)
    manager.hear_of("READY")
    server.stop()
    manager.rest()
    assert not any("WATCHDOG" in message for message in manager.said)


def test_the_application_sees_nothing_of_systemds_variables(manager, serve) -> None:
    address = manager.listen()
    serve(watchdog=30)
    manager.hear_of("READY")
    seen = scgi_request(address, path="/environ").text
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        assert f'"{name}"' not in seen
    assert '"RUNTIME_DIRECTORY"' in seen


def test_only_the_main_process_speaks(manager, serve) -> None:
    """systemd drops what others say (NotifyAccess=main): everything has to come from the process that it started."""
    manager.listen()
    server = serve(watchdog=0.4)
    manager.hear_of("READY")
    server.signal(signal.SIGHUP)
    manager.hear_of("READY")
    manager.hear_of("WATCHDOG")
    server.signal(signal.SIGTERM)
    manager.hear_of("STOPPING")
    assert manager.speakers == {server.pid}
