"""The reference, PyPI's `scgi` 2.2, in an environment of its own, and programs run on it and on ours."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contract.packages import Package
from support import Process, free_port, start

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"
REFERENCE = "scgi==2.2"


@pytest.fixture(scope="session")
def reference_python() -> str:
    """The Python of an environment that has the reference; made once and kept (`make clean` removes it)."""
    folder = ROOT / f".venv-{sys.version_info[0]}.{sys.version_info[1]}-reference"
    python, finished = folder / "bin/python", folder / "finished"
    with open(ROOT / "pyproject.toml") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            venv.create(folder, clear=True, with_pip=True)
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", REFERENCE]
            done = subprocess.run(pip, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = f"{REFERENCE} cannot be built here (it needs a C compiler and Python's headers)"
                if os.environ.get("CI") == "true":
                    pytest.fail(f"{reason}; with CI=true nothing is left out:\n{done.stderr[-3000:]}")
                pytest.skip(reason)
            finished.touch()
    return str(python)


@pytest.fixture(params=["ours", "reference"])
def package(request: pytest.FixtureRequest) -> Package:
    """Every test that asks for it runs on both."""
    if request.param == "ours":
        return Package("ours", sys.executable)
    return Package("reference", request.getfixturevalue("reference_python"))


RunProgram = Callable[..., Process]


@pytest.fixture
def run(package: Package, tmp_path: Path) -> Iterator[RunProgram]:
    """``run("pizza.py")``: the program, serving at the ``address`` of what this returns, its folder a fresh one."""
    running: list[Process] = []

    def run(program: str, **options: str) -> Process:
        port = free_port()
        address = f"127.0.0.1:{port}"
        folder = tmp_path / "folder"
        folder.mkdir()
        process = start(
            [package.python, PROGRAMS / program, str(port)],
            log_file=tmp_path / "log",
            address=address,
            cwd=folder,
            env=options,
        )
        running.append(process)
        return process

    yield run
    try:
        for process in running:
            process.stop()
            process.assert_nothing_left()
    finally:
        for process in running:
            process.kill()
            print(f"--- log of {process.name} on {package} ---\n{process.log()}")
