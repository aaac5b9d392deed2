"""Real servers with one worker each, over a unix socket and over TCP; every test finds the worker that it leaves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import Process, Response, free_port, scgi_request, short_folder, start

APP = Path(__file__).with_name("app.py")


class Server:
    """`scgi serve` with exactly one worker."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.address = process.address
        self._worker = self.ask_worker()

    def ask_worker(self) -> int:
        return int(scgi_request(self.address, path="/pid", within=30).text)

    def assert_same_worker(self) -> None:
        """The worker of before answers the next request."""
        before, self._worker = self._worker, self.ask_worker()
        assert self._worker == before, f"worker {before} is gone; log:\n{self.process.log()}"

    def get(self, path: str, **options: object) -> Response:
        return scgi_request(self.address, path=path, **options)  # type: ignore[arg-type]


class LogFrom:
    """What a server logs from now on."""

    def __init__(self, server: Server) -> None:
        self._process = server.process
        self._start = len(server.process.log())

    def __call__(self) -> str:
        return self._process.log()[self._start :]


@contextmanager
def running(kind: str, *options: str) -> Iterator[Server]:
    with short_folder() as folder:
        address = f"127.0.0.1:{free_port()}" if kind == "tcp" else f"unix:{folder}/app.sock"
        command = [
            sys.executable,
            "-m",
            "scgi",
            "serve",
            "--listen",
            address,
            "--min-workers",
            "1",
            "--max-workers",
            "1",
        ]
        process = start([*command, *options, str(APP)], log_file=folder / "log", address=address)
        try:
            yield Server(process)
            assert process.stop(20) == 0
            process.assert_nothing_left()
        finally:
            process.kill()
            print(f"--- log of the server at {address} ---\n{process.log()[-20_000:]}")


@pytest.fixture(scope="module")
def tcp_server() -> Iterator[Server]:
    with running("tcp") as server:
        yield server


@pytest.fixture(scope="module")
def unix_server() -> Iterator[Server]:
    with running("unix") as server:
        yield server


@pytest.fixture(scope="module")
def hasty_tcp_server() -> Iterator[Server]:
    with running("tcp", "--header-timeout", "1", "--body-timeout", "1") as server:
        yield server


@pytest.fixture(scope="module")
def hasty_unix_server() -> Iterator[Server]:
    with running("unix", "--header-timeout", "1", "--body-timeout", "1") as server:
        yield server


def _checked(server: Server) -> Iterator[Server]:
    yield server
    server.assert_same_worker()


@pytest.fixture(params=["unix", "tcp"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Afterwards the same worker has to answer."""
    yield from _checked(request.getfixturevalue(f"{request.param}_server"))


@pytest.fixture(params=["unix", "tcp"])
def hasty(request: pytest.FixtureRequest) -> Iterator[Server]:
    """One that waits a second for heads and bodies."""
    yield from _checked(request.getfixturevalue(f"hasty_{request.param}_server"))


@pytest.fixture
def tcp(tcp_server: Server) -> Iterator[Server]:
    yield from _checked(tcp_server)


@pytest.fixture
def unix(unix_server: Server) -> Iterator[Server]:
    yield from _checked(unix_server)
