"""A virtual environment for each application, made once: `.venv-apps/NAME`.

It holds what `requirements/NAME.txt` pins, and this project as it lies here. Processes that run tests side by side
share it, and so does the next run, until the file or pyproject.toml changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"
ENVIRONMENTS = ROOT / ".venv-apps"


def environment(name: str) -> Path:
    """The folder of the environment, ready."""
    file = REQUIREMENTS / f"{name}.txt"
    made_of = [sys.version, str(ROOT), file.read_text(), (ROOT / "pyproject.toml").read_text(), "http"]
    wanted = hashlib.sha256("\0".join(made_of).encode()).hexdigest()
    folder = ENVIRONMENTS / name
    ENVIRONMENTS.mkdir(exist_ok=True)
    with (ENVIRONMENTS / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = folder / "ready"
        if not ready.exists() or ready.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            _run(sys.executable, "-m", "venv", folder)
            install: list[str | Path] = [folder / "bin/python", "-m", "pip", "install", "--quiet"]
            _run(*install, "--requirement", file, "--editable", f"{ROOT}[http]")
            ready.write_text(wanted)
    return folder


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"$ {' '.join(map(str, command))}\n{done.stdout}{done.stderr}", pytrace=False)
