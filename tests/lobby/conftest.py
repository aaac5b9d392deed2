"""A lobby's process with its pool played by a small program; the tests are its workers and its peers."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scgi.net.handover import Errand, Parcel, hand_over, pair, take
from support import wait_until

PROGRAM = Path(__file__).with_name("lobby_program.py")


class Ways:
    """Entrance, exit and bell, which several lobbies may share."""

    def __init__(self) -> None:
        self.taking, self.giving = pair()
        self.exit, self.exit_into = pair()
        self.bell, self.bell_into = os.pipe()
        os.set_blocking(self.bell_into, False)

    def hand(self, connection: socket.socket, errand: Errand = Errand.REQUEST, data: bytes = b"", **more: Any) -> None:
        """As a worker hands a connection over; its own copy is closed."""
        assert hand_over(self.giving, Parcel(connection.fileno(), errand, data, **more))
        connection.close()

    def whole(self, within: float = 10) -> Parcel:
        """As a worker takes the next request that is whole."""
        wait_until(lambda: select.select([self.exit], [], [], 0)[0], within, "a request to be whole")
        parcel = take(self.exit)
        assert parcel is not None and parcel.errand is Errand.WHOLE
        return parcel

    def close(self) -> None:
        for end in (self.taking, self.giving, self.exit, self.exit_into):
            end.close()
        os.close(self.bell)
        os.close(self.bell_into)


class LobbyProcess:
    def __init__(self, ways: Ways, log_file: Path, patience: dict[str, float], limit: str = "") -> None:
        self.ways = ways
        self._log_file = log_file
        ends = [ways.taking, ways.giving, ways.exit, ways.exit_into]
        descriptors = [*(end.fileno() for end in ends), ways.bell_into]
        command = [sys.executable, str(PROGRAM), *map(str, descriptors), json.dumps(patience)]
        if limit:
            command = ["bash", "-c", f'ulimit {limit}; exec "$@"', "bash", *command]
        with open(log_file, "ab") as log:
            self.process = subprocess.Popen(
                command, pass_fds=descriptors, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )

    def ask(self, order: str) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(order.encode())
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def log(self) -> str:
        return self._log_file.read_text()

    def pid(self) -> int:
        """Of the lobby's own process, once there is one."""
        return int(wait_until(lambda: self.ask("pid")))

    def figures(self) -> list[int]:
        """Reading, answering, too late, gone."""
        return list(self.ask("figures"))

    def close(self) -> None:
        pid = 0
        if self.process.poll() is None:
            pid = self.ask("pid")
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def ways() -> Iterator[Ways]:
    ways = Ways()
    yield ways
    ways.close()


@pytest.fixture
def start(ways: Ways, tmp_path: Path) -> Iterator[Callable[..., LobbyProcess]]:
    """Another lobby at the same ways: `start("-n 100", body=0.2)` with this `ulimit` and patience."""
    running: list[LobbyProcess] = []

    def start(limit: str = "", **patience: float) -> LobbyProcess:
        running.append(LobbyProcess(ways, tmp_path / f"lobby-{len(running)}.log", patience, limit))
        return running[-1]

    yield start
    for lobby in running:
        lobby.close()
        print(lobby.log())


@pytest.fixture(params=["unix", "tcp"])
def connect(request: pytest.FixtureRequest) -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """A new connection: our end, and the peer's."""
    with contextlib.ExitStack() as opened:

        def connect() -> tuple[socket.socket, socket.socket]:
            if request.param == "unix":
                ours, peer = socket.socketpair()
            else:
                with socket.create_server(("127.0.0.1", 0)) as listening:
                    peer = socket.create_connection(listening.getsockname())
                    ours, _ = listening.accept()
            peer.settimeout(20)
            opened.enter_context(ours)
            opened.enter_context(peer)
            return ours, peer

        yield connect
