"""The pid file: whole, nobody else's, and gone with its server."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from scgi.config.pidfile import pid_file
from scgi.errors import ConfigError
from support import wait_until


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[int]:
    """Another process that runs with tmp_path/server.pid."""
    pid = os.fork()
    if pid == 0:
        with pid_file(str(tmp_path / "server.pid")):
            signal.pause()
    wait_until(lambda: (tmp_path / "server.pid").exists() and (tmp_path / "server.pid").read_text() == f"{pid}\n")
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_it_holds_our_number_and_goes_with_us(tmp_path: Path) -> None:
    file = tmp_path / "server.pid"
    with pid_file(str(file)):
        assert file.read_text() == f"{os.getpid()}\n"
    assert not file.exists()


@pytest.mark.parametrize("before", ["", "4194304999\n", "1\n"])
def test_the_file_of_a_server_that_is_gone_is_taken_over(tmp_path: Path, before: str) -> None:
    file = tmp_path / "server.pid"
    file.write_text(before)
    with pid_file(str(file)):
        assert file.read_text() == f"{os.getpid()}\n"
    assert not file.exists()


def test_the_file_of_a_server_that_runs_is_left_alone(tmp_path: Path, holder: int) -> None:
    file = tmp_path / "server.pid"
    with pytest.raises(ConfigError, match=f"a server that runs, process {holder}"), pid_file(str(file)):
        pass
    assert file.read_text() == f"{holder}\n"


def test_a_killed_servers_children_do_not_hold_its_file(tmp_path: Path) -> None:
    file = tmp_path / "server.pid"
    out, into = os.pipe()
    stays, lives = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(lives)
        with pid_file(str(file)):
            if os.fork() == 0:
                os.write(into, b"child")
                os.read(stays, 1)  # until the test is over
                os._exit(0)
            signal.pause()
    os.close(into)
    assert os.read(out, 5) == b"child"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with pid_file(str(file)):
        assert file.read_text() == f"{os.getpid()}\n"
    os.close(lives)


@pytest.mark.parametrize("kind", ["file", "fifo", "socket", "link"])
def test_what_is_no_pid_file_is_left_alone_and_waited_for_never(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "p"
    match kind:
        case "file":
            path.write_text("precious")
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(path))
        case "link":
            (tmp_path / "other").write_text("1")
            path.symlink_to(tmp_path / "other")
    before = os.lstat(path)
    with pytest.raises(ConfigError, match="pid-file"), pid_file(str(path)):
        pass
    after = os.lstat(path)
    assert (before.st_ino, before.st_mode, before.st_size) == (after.st_ino, after.st_mode, after.st_size)


def test_what_was_put_in_its_place_is_left_there(tmp_path: Path) -> None:
    file = tmp_path / "server.pid"
    with pid_file(str(file)):
        file.unlink()
        os.mkfifo(file)
    assert file.is_fifo()
