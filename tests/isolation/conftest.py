"""A server that is started as root, by a Python that its application's user can read too."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import Process, start
from support.identity import IS_ROOT
from support.users import ordinary_user

# What the HTTP front needs besides the server's own.
FRONT = ("uvicorn", "h11")


@pytest.fixture
def serve(short_tmp: Path, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """``serve(*arguments, as_nobody=True, address=…)``: `scgi serve`; without `as_nobody` as ourselves.

    The environment says nothing about root. Whatever still runs at the test's end is stopped then, with status 0.
    """
    user = ordinary_user()
    lib = short_tmp / "lib"
    lib.mkdir()
    environment = dict(user.install(lib))
    if environment:
        for package in FRONT:
            for path in sys.path:
                if path.endswith("-packages") and Path(path, package).is_dir():
                    shutil.copytree(Path(path, package), lib / package)
    running: list[Process] = []

    def serve(*arguments: str | Path, as_nobody: bool = False, prefix: tuple[str, ...] = (), **options: Any) -> Process:
        drop = as_nobody and IS_ROOT
        process = start(
            [*prefix, user.python, "-m", "scgi", "serve", *arguments],
            log_file=tmp_path / f"server-{len(running)}.log",
            env={**environment, "SCGI_ALLOW_ROOT": "no", "PYTHONDONTWRITEBYTECODE": "1"},
            user=user.uid if drop else None,
            group=user.gid if drop else None,
            cwd="/",
            **options,
        )
        running.append(process)
        return process

    try:
        yield serve
        for process in running:
            if process.running():
                assert process.stop() == 0, process.log()
            process.assert_nothing_left()
    finally:
        for process in running:
            process.kill()
            print(f"--- log of {process.name} ---\n{process.log()}")
