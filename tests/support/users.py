"""An ordinary user, and a Python that such a user can run: root's own may be in a folder that is root's alone."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

NOBODY = 65534
PACKAGES = ("scgi", "click", "setproctitle")  # the server and what it needs; the last may be missing


@dataclass(frozen=True, slots=True)
class Ordinary:
    """Whom to start a program as, if not as ourselves, with which Python, and what that has to find."""

    uid: int
    gid: int
    python: str
    packages: tuple[str, ...]  # modules that have to be on its path

    def install(self, folder: Path) -> Mapping[str, str]:
        """Put what it needs where it can read it; returns the environment that says so."""
        if not self.packages:
            return {}
        for package in self.packages:
            shutil.copytree(package, folder / Path(package).name, ignore=shutil.ignore_patterns("__pycache__"))
        # It could not write what coverage collects, and would say so in logs under test.
        return {"PYTHONPATH": str(folder), "COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}


@cache
def ordinary_user() -> Ordinary:
    """Ourselves; `nobody`, if we are root. Without a Python for that the test is skipped; with ``CI=true`` it fails."""
    if os.geteuid() != 0:
        return Ordinary(os.geteuid(), os.getegid(), sys.executable, ())
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    packages = [os.path.dirname(spec.origin) for spec in specs if spec is not None and spec.origin]
    minor = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for python in (sys.executable, f"/usr/local/bin/python{minor}", f"/usr/bin/python{minor}", "/usr/bin/python3"):
        if _runs(python):
            return Ordinary(NOBODY, NOBODY, python, tuple(packages))
    reason = f"user {NOBODY} can run neither {sys.executable} nor the system's own Python"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; with CI=true nothing is left out")
    pytest.skip(reason)


def _runs(python: str) -> bool:
    """Whether that user can run this Python, with all that belongs to it, and it can load what ours has compiled."""
    check = f"import sys, ssl, ctypes, sqlite3; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    try:
        done = subprocess.run([python, "-c", check], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0
