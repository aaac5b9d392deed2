"""Programs that tests need and a machine may lack."""

from __future__ import annotations

import os
import shutil

import pytest

# What Debian, Ubuntu and Google call it; the first that is there is taken.
ALSO_KNOWN_AS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"),
    "apache2": ("apache2", "httpd"),
}


def find_program(name: str) -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    for alias in ALSO_KNOWN_AS.get(name, (name,)):
        if found := shutil.which(alias, path=path):
            return found
    return None


def require_program(name: str) -> str:
    """The path of a program; without it the test is skipped, or fails where ``CI=true`` promises it."""
    if found := find_program(name):
        return found
    reason = f"{name} is not installed (make test-packages installs it)"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; with CI=true nothing is left out")
    pytest.skip(reason)
