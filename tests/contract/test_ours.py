"""What `scgi.passfd` and `scgi.systemd_socket` promise beyond the reference."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scgi import passfd, util

TAKE = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from scgi.systemd_socket import get_systemd_socket
try:
    sock = get_systemd_socket()
    print(sock and sock.getsockname()[1], os.environ.get("LISTEN_FDS"), get_systemd_socket())
except OSError as error:
    print(error)
"""


def test_descriptors_are_not_inherited_by_other_programs() -> None:
    ours, theirs = passfd.socketpair()
    with open(__file__) as file:
        passfd.sendfd(ours, file.fileno())
        received = passfd.recvfd(theirs)
    assert not any(map(os.get_inheritable, (ours, theirs, received)))
    for fd in (ours, theirs, received):
        os.close(fd)


def test_a_byte_without_a_descriptor_is_an_error() -> None:
    ours, theirs = passfd.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    os.write(ours, b"x")
    with pytest.raises(OSError, match="no descriptor came: the byte was alone"):
        passfd.recvfd(theirs)
    os.close(ours)
    with pytest.raises(OSError, match="no descriptor came: end of file"):
        passfd.recvfd(theirs)
    os.close(theirs)


def test_the_netstring_functions_read_text_files_too(tmp_path: Path) -> None:
    file = tmp_path / "request"
    file.write_bytes(b"24:CONTENT_LENGTH\x000\0SCGI\x001\0,")
    with file.open(encoding="latin-1", newline="\n") as text:
        assert util.read_env(text) == {"CONTENT_LENGTH": "0", "SCGI": "1"}


@pytest.mark.parametrize(
    ("count", "said"),
    [
        ("0", "None None None"),
        ("1", "PORT None None"),
        ("2", "only one inherited socket supported"),
        ("x", "LISTEN_FDS: expected a whole number, got 'x'"),
    ],
)
def test_one_socket_from_systemd_and_no_more(count: str, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ready = f"import os; os.dup2({first.fileno()}, 3); os.dup2({second.fileno()}, 4)"
        done = subprocess.run(
            [sys.executable, "-c", ready + TAKE],
            pass_fds=[first.fileno(), second.fileno()],
            env={**os.environ, "LISTEN_FDS": count},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert done.stdout.strip() == said.replace("PORT", str(first.getsockname()[1]))
