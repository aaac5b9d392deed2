"""Fixtures of all tests; the machinery behind them is in ``tests/support``."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from support import Chromium, Front, Process, apache, free_port, lighttpd, nginx, short_folder, start

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job, whose children would not hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
if os.geteuid() == 0:  # in containers; tests/isolation is about what happens without it
    os.environ["SCGI_ALLOW_ROOT"] = "yes"


if "PYTEST_XDIST_WORKER" not in os.environ:  # workers have it from here
    # Control sockets of servers under test stay apart from those of this machine's own.
    os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="scgi-run-")
    atexit.register(shutil.rmtree, os.environ["XDG_RUNTIME_DIR"], ignore_errors=True)


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A folder with a short name directly in /tmp, for unix sockets."""
    with short_folder() as folder:
        yield folder


class Launch(Protocol):
    def __call__(self, *command: str | Path, address: str = "", **options: Any) -> Process: ...


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Run Python with these arguments until the test ends; nothing may be left behind then.

    ``launch("server.py", "63000", address="127.0.0.1:63000")`` waits until something listens there.
    Options: cwd, env, within.
    """
    running: list[Process] = []

    def launch(*command: str | Path, address: str = "", **options: Any) -> Process:
        log_file = tmp_path / f"process-{len(running)}.log"
        process = start([sys.executable, *command], log_file=log_file, address=address, **options)
        running.append(process)
        return process

    yield launch
    try:
        for process in running:
            if process.running():
                process.stop()
            process.assert_nothing_left()
    finally:
        for process in running:
            process.kill()
            print(f"--- log of {process.name} ---\n{process.log()}")


class Serve(Protocol):
    def __call__(self, app: str | Path, *options: str, listen: str = "", **others: Any) -> Process: ...


@pytest.fixture
def scgi_serve(launch: Launch) -> Serve:
    """``scgi serve`` for an application, once it listens: ``scgi_serve(app_file, "--max-workers", "2")``.

    It listens at ``listen``, else on a free TCP port; the result's ``address`` says where.
    """

    def serve(app: str | Path, *options: str, listen: str = "", **others: Any) -> Process:
        address = listen or f"127.0.0.1:{free_port()}"
        return launch("-m", "scgi", "serve", "--listen", address, *options, str(app), address=address, **others)

    return serve


StartFront = Callable[..., Front]


def _front_fixture(front: Callable[..., AbstractContextManager[Front]]) -> Iterator[StartFront]:
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(front(*args, **options))


@pytest.fixture(name="nginx")
def nginx_fixture() -> Iterator[StartFront]:
    """``nginx(to=server.address).url``: see support/fronts.py."""
    yield from _front_fixture(nginx)


@pytest.fixture(name="apache")
def apache_fixture() -> Iterator[StartFront]:
    yield from _front_fixture(apache)


@pytest.fixture(name="lighttpd")
def lighttpd_fixture() -> Iterator[StartFront]:
    yield from _front_fixture(lighttpd)


@pytest.fixture
def chromium() -> Iterator[Chromium]:
    """A headless browser with one empty page: see support/browser.py."""
    with Chromium.launch() as browser:
        yield browser
