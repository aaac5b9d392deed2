"""`make demo` as root does not run its application as root, if there is a user who can."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.identity import NOBODY, needs_root
from support.users import ordinary_user

SCRIPT = Path(__file__).parents[2] / "scripts/demo-user"


@pytest.fixture
def checkout(short_tmp: Path) -> Path:
    """What the script looks at: the folder's owner, and whether all that is needed can be read."""
    for file in ("scgi/config/build.py", "scgi/gateway/front.py", "examples/demo.py"):
        (short_tmp / file).parent.mkdir(parents=True, exist_ok=True)
        (short_tmp / file).touch()
    return short_tmp


def options(checkout: Path, user: int | None = None) -> tuple[str, str]:
    """What is said on standard output and error."""
    shutil.copy(SCRIPT, checkout)
    done = subprocess.run(
        [ordinary_user().python, "demo-user"],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        user=user,
        check=True,
    )
    return done.stdout.strip(), done.stderr.strip()


@needs_root
def test_root_names_nobody_or_the_owner_of_the_checkout(checkout: Path) -> None:
    assert options(checkout) == (f"--user {NOBODY.pw_uid} --group {NOBODY.pw_gid}", "")
    os.chown(checkout, 1000, 1001)
    assert options(checkout) == ("--user 1000 --group 1001", "")


@needs_root
def test_root_says_so_where_that_user_cannot_read_the_checkout(checkout: Path) -> None:
    checkout.chmod(0o700)
    said, why = options(checkout)
    assert said == "--allow-root"
    assert why.startswith(f"The demonstration runs as root: user {NOBODY.pw_uid} may not read")
    assert len(why.splitlines()) == 1


def test_an_ordinary_user_needs_nothing(checkout: Path) -> None:
    assert options(checkout, user=ordinary_user().uid if os.geteuid() == 0 else None) == ("", "")
