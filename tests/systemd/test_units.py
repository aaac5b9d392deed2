"""The units of examples/systemd: what systemd thinks of them, and their commands, run as they stand there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scgi.errors import ExitCode
from support import require_program, scgi_request

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "examples/systemd").iterdir())
SERVICE = ROOT / "examples/systemd/hello.service"
SOCKET = ROOT / "examples/systemd/hello.socket"
PAGE = ROOT / "docs/how-to/systemd.md"
HELLO = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello.\\n"]
"""


def settings(unit: Path) -> dict[str, list[str]]:
    """Every setting of a unit file; some may stand there several times."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_unit(unit: Path) -> None:
    analyze = require_program("systemd-analyze")
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "hello" in line]
    assert not ours
    assert done.returncode == 0, done.stderr


def test_the_service_can_do_little_harm() -> None:
    """`systemd-analyze security` rates it from 0 (safe) to 10; 9.6 is what a unit without a word about it gets."""
    analyze = require_program("systemd-analyze")
    if "--offline" not in subprocess.run([analyze, "--help"], capture_output=True, text=True).stdout:
        pytest.skip("this systemd-analyze rates only what is running (it is older than 250)")
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--threshold=20", SERVICE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reload_names_the_socket_that_the_service_listens_on() -> None:
    (address,) = settings(SOCKET)["ListenStream"]
    (command,) = settings(SERVICE)["ExecReload"]
    assert command.endswith(f"scgi reload unix:{address}")


def test_what_another_start_cannot_put_right_is_not_started_again() -> None:
    (statuses,) = settings(SERVICE)["RestartPreventExitStatus"]
    assert set(map(int, statuses.split())) == {ExitCode.USAGE, ExitCode.CONFIG}


def test_the_commands_do_what_the_service_says(manager, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(HELLO)
    address = manager.listen()
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"

    def command(name: str) -> list[str]:
        (line,) = settings(SERVICE)[name]
        return line.replace("unix:/run/hello.sock", address).split()

    def reload() -> subprocess.CompletedProcess[str]:
        environ = {"PATH": path, "RUNTIME_DIRECTORY": str(manager.runtime)}
        return subprocess.run(command("ExecReload"), env=environ, capture_output=True, text=True, timeout=30)

    server = manager.start(*command("ExecStart"), cwd=tmp_path, env={"PATH": path}, watchdog=30)
    manager.hear_of("READY")
    assert scgi_request(address).text == "Hello.\n"

    (tmp_path / "hello.py").write_text(HELLO.replace("Hello", "Hello again"))
    done = reload()
    assert done.returncode == 0, done.stderr
    assert scgi_request(address).text == "Hello again.\n"

    (tmp_path / "hello.py").write_text("1 / 0")
    done = reload()
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert scgi_request(address).text == "Hello again.\n"

    assert server.stop(number=signal.SIGTERM) == 0


@pytest.mark.parametrize("unit", [SERVICE, SOCKET], ids=lambda unit: unit.name)
def test_what_the_page_shows_is_what_the_units_say(unit: Path) -> None:
    blocks = re.findall(rf"^```ini\n# {re.escape(unit.name)}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    shown = {line for block in blocks for line in block.splitlines() if line and line[0] not in "#["}
    assert shown
    assert shown <= set(unit.read_text().splitlines())
