"""`scgi serve`: what a person is told who meets an obstacle, and the exit status."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scgi.errors import ExitCode
from support import free_port, scgi_request, wait_until

APP = """
import logging

def app(environ, start_response):
    logging.getLogger("shop").warning("sold\\nout")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    return tmp_path


def told(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("SCGI_") or name == "SCGI_ALLOW_ROOT"
    }
    done = subprocess.run(
        [sys.executable, "-m", "scgi", "serve", "--log-level", "error", "--chdir", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=kept,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def test_check_loads_everything_and_serves_nothing(folder: Path) -> None:
    assert told(folder, "app:app", "--check", "--listen", str(free_port())) == (ExitCode.OK, [])


def test_a_module_that_is_not_there_is_one_line(folder: Path) -> None:
    status, lines = told(folder, "nope:app", "--listen", str(free_port()))
    assert status == ExitCode.APP_UNLOADABLE
    assert len(lines) == 1 and lines[0].startswith("scgi: there is no module 'nope'")


def test_an_application_whose_import_fails_shows_its_own_traceback_and_none_of_ours(folder: Path) -> None:
    status, lines = told(folder, "broken:app", "--listen", str(free_port()))
    assert status == ExitCode.APP_UNLOADABLE
    text = "\n".join(lines)
    assert "ModuleNotFoundError: No module named 'nothing_of_that_name'" in text
    assert str(folder / "broken.py") in text and "/scgi/" not in text
    assert lines[-1].startswith("scgi: ")


def test_a_port_in_use_is_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, lines = told(folder, "app:app", "--listen", str(port))
    assert status == ExitCode.BOOT_FAILED
    assert len(lines) == 1 and lines[0].startswith(f"scgi: cannot listen on 127.0.0.1:{port}: ")


def test_lines_of_a_request_carry_its_id_and_sigusr1_opens_the_files_anew(folder: Path, launch: Any) -> None:
    port, log, access = free_port(), folder / "a.log", folder / "access.log"
    process = launch(
        "-m", "scgi", "serve", "app:app", "--chdir", folder, "--listen", str(port),
        "--log-file", log, "--access-log", access, "--log-format", "text", address=f"127.0.0.1:{port}",
    )  # fmt: skip
    ask = {"REQUEST_METHOD": "GET", "REQUEST_URI": "/x", "PATH_INFO": "/x", "HTTP_X_REQUEST_ID": "abc-1"}
    scgi_request(process.address, ask)
    wait_until(lambda: " shop [request abc-1]: sold\\nout" in log.read_text())
    wait_until(lambda: access.read_text().endswith(" abc-1\n"))
    for file in (log, access):
        file.rename(f"{file}.1")
    process.signal(signal.SIGUSR1)
    wait_until(lambda: log.exists() and access.exists())

    def both_written() -> bool:
        scgi_request(process.address, ask)
        return "sold" in log.read_text() and "abc-1" in access.read_text()

    wait_until(both_written)
    assert process.stop() == 0
