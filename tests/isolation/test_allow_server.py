"""The server with an allow-list: where it is needed, whom it turns away, and what it costs those who stay."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from scgi.errors import ExitCode
from support import Process, Reset, build_request, free_port, scgi_request, wait_until

Serve = Callable[..., Process]
APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"welcome"]
"""
# As systemd does it: the socket is descriptor 3, and the variables name this very process.
ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def app(short_tmp: Path) -> Path:
    file = short_tmp / "app.py"
    file.write_text(APP)
    short_tmp.chmod(0o777)
    return file


def ask(address: str, whence: str) -> bytes:
    """All that comes back to a request from one of this machine's own addresses; raises if it is reset."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 10, (whence, 0)) as peer:
        peer.sendall(build_request())
        return b"".join(iter(lambda: peer.recv(1000), b""))


def refuses(address: str, whence: str) -> bool:
    try:
        return not ask(address, whence)
    except ConnectionError:
        return True


def test_refused_peers_are_counted_over_reloads_and_others_are_served(serve: Serve, app: Path, short_tmp: Path) -> None:
    address, control = f"127.0.0.1:{free_port()}", short_tmp / "control"
    server = serve(
        *("--allow", "127.0.0.1", "--allow", "127.0.1.0/24", "--min-workers", "2", "--control", control),
        *("--listen", address, app), as_nobody=True, address=address,
    )  # fmt: skip
    for _ in range(5):
        assert refuses(address, "127.0.0.2") and refuses(address, "127.0.2.1")
        assert ask(address, "127.0.0.1").endswith(b"welcome") and ask(address, "127.0.1.9").endswith(b"welcome")
    assert counters(control)["refused_peers"] == 10
    server.signal()
    wait_until(lambda: "generation 1 has ended" in server.log())
    assert refuses(address, "127.0.0.2")
    found = counters(control)
    assert (found["refused_peers"], found["requests"]) == (11, 10)
    assert "refused 127.0.0.2, which is not in allow" in server.log()


def counters(control: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "scgi", "status", "--json", "--control", control]
    return dict(json.loads(subprocess.check_output(command, text=True))["counters"])


@pytest.fixture
def inherited() -> Iterator[socket.socket]:
    """A socket that other machines can reach, as systemd might hand over."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        yield listener


def activated(listener: socket.socket) -> dict[str, Any]:
    fd = listener.fileno()
    return {"prefix": (sys.executable, "-c", ACTIVATE, str(fd)), "pass_fds": (fd,), "as_nobody": os.geteuid() != 0}


@pytest.fixture
def anybody() -> tuple[str, ...]:
    """Options that make the server an ordinary user's."""
    return ("--user", "nobody") if os.geteuid() == 0 else ()


def test_a_socket_of_systemds_that_others_reach_needs_a_list_too(
    serve: Serve, app: Path, inherited: socket.socket, anybody: tuple[str, ...]
) -> None:
    server = serve(*anybody, app, **activated(inherited))
    assert server.wait() == ExitCode.CONFIG
    assert f"other machines can reach 0.0.0.0:{inherited.getsockname()[1]}" in server.log()
    server = serve(*anybody, "--allow", "127.0.0.5", app, **activated(inherited))
    wait_until(lambda: "serves after" in server.log())
    address = f"127.0.0.1:{inherited.getsockname()[1]}"
    assert refuses(address, "127.0.0.1")
    assert ask(address, "127.0.0.5").endswith(b"welcome")


def test_the_http_front_is_a_peer_like_others(serve: Serve, app: Path) -> None:
    scgi, http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    addresses = ("--listen", scgi, "--http", http)
    server = serve(*addresses, "--allow", "192.0.2.7", app, as_nobody=True)
    assert server.wait() == ExitCode.CONFIG
    assert "the HTTP front connects from 127.0.0.1, which is not named; add --allow 127.0.0.1" in server.log()
    serve(*addresses, "--allow", "192.0.2.7", "--allow", "127.0.0.1", app, as_nobody=True, address=http)
    with urlopen(f"http://{http}/", timeout=10) as answer:
        assert answer.read() == b"welcome"


def test_a_list_does_not_concern_unix_sockets(serve: Serve, app: Path, short_tmp: Path) -> None:
    path, tcp = f"{short_tmp}/socket", f"127.0.0.1:{free_port()}"
    serve("--listen", path, "--listen", tcp, "--allow", "192.0.2.7", app, as_nobody=True, address=path)
    assert scgi_request(path).body == b"welcome"
    with pytest.raises((Reset, ConnectionError)):
        scgi_request(tcp)
