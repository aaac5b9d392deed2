"""Root and ordinary users: what a test needs to be the one, and to do something as the other."""

from __future__ import annotations

import json
import os
import pwd
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

IS_ROOT = os.geteuid() == 0
NOBODY = pwd.getpwnam("nobody")

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can do what this is about; run the tests as root too")


def status_of(pid: int | str) -> dict[str, str]:
    """What the kernel says of a process: `Uid`, `Gid`, `Groups`, `NoNewPrivs`, `CapEff`, …"""
    with open(f"/proc/{pid}/status") as file:
        return {name: " ".join(rest.split()) for name, _, rest in (line.partition(":") for line in file)}


def in_child(act: Callable[[], Any], *, as_nobody: bool = False) -> Any:
    """What `act` returns (as JSON can say it) in a child process; as nobody, if that is asked for and we are root.

    The test fails with the child's traceback if it raises.
    """
    mine, theirs = os.pipe()
    if not (pid := os.fork()):
        try:
            if as_nobody and IS_ROOT:
                os.setgroups([])
                os.setgid(NOBODY.pw_gid)
                os.setuid(NOBODY.pw_uid)
            answer = {"returned": act()}
        except BaseException:
            answer = {"raised": traceback.format_exc()}
        try:
            os.write(theirs, json.dumps(answer).encode())
            sys.stdout.flush()
        finally:
            os._exit(0)
    os.close(theirs)
    with open(mine, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    if not said:
        pytest.fail("the child has died")
    answer = json.loads(said)
    if "raised" in answer:
        pytest.fail(answer["raised"], pytrace=False)
    return answer["returned"]
