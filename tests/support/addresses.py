"""Ports and paths that no other test has, and whether somebody listens there."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Below the range that the kernel gives to outgoing connections, so that none of those takes a port first. Processes
# that run tests side by side have a part of it each: a port that one was given is free to the other until somebody
# listens there.
_PORTS, _PARTS = range(20000, 32000), 12
_part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PARTS
_ports = itertools.cycle(_PORTS[_part::_PARTS])
for _ in range(random.randrange(len(_PORTS) // _PARTS)):
    next(_ports)


def free_port() -> int:
    """A TCP port that is free on 127.0.0.1 now, and that was not handed out for a long time."""
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no end")


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a short name, for unix sockets (107 bytes at most); web servers may enter it."""
    folder = Path(tempfile.mkdtemp(prefix="scgi-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def split_address(address: str) -> str | tuple[str, int]:
    """``unix:/path`` and ``/path`` give the path, ``host:port`` and ``[host]:port`` the pair."""
    if address.startswith("unix:"):
        return address.removeprefix("unix:")
    if "/" in address:
        return address
    host, _, port = address.rpartition(":")
    return (host.strip("[]") or "127.0.0.1", int(port))


def connect(address: str, within: float = 10) -> socket.socket:
    where = split_address(address)
    if isinstance(where, tuple):
        return socket.create_connection(where, timeout=within)
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(within)
    try:
        peer.connect(where)
    except BaseException:
        peer.close()
        raise
    return peer


def is_listening(address: str) -> bool:
    """Whether a socket listens there, asked of the kernel: a trial connection would count as a request."""
    where = split_address(address)
    if isinstance(where, tuple):
        wanted = f":{where[1]:04X}"
        tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
        return any(row[1].endswith(wanted) for table in tables if table.exists() for row in _listeners(table))
    return any(row[-1] == where and row[3] == "00010000" for row in _rows(Path("/proc/net/unix")))


def _listeners(table: Path) -> Iterator[list[str]]:
    """Those of TCP come first; behind them may be ten thousands of connections that have ended."""
    return itertools.takewhile(lambda row: row[3] == "0A", _rows(table))


def _rows(table: Path) -> Iterator[list[str]]:
    with table.open() as lines:
        next(lines)
        yield from map(str.split, lines)
