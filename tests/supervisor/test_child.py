"""The words for how a process ended, and the fork's ceremony."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from scgi.supervisor.child import Child, describe_end


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda: os._exit(0), "exited with status 0"),
        (lambda: os._exit(3), "exited with status 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), "killed by SIGTERM"),
        (lambda: os.kill(os.getpid(), signal.SIGRTMIN + 5), f"killed by signal {signal.SIGRTMIN + 5}"),
    ],
)
def test_an_end_in_words(end, words) -> None:
    if not (pid := os.fork()):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end()
    assert describe_end(os.waitpid(pid, 0)[1]) == words


def test_a_child_that_somebody_else_has_reaped_counts_as_ended() -> None:
    if not (pid := os.fork()):
        os._exit(5)
    os.waitpid(pid, 0)
    child = Child(pid, 0.0)
    assert child.wait_status() == 0
    child.send(signal.SIGTERM)  # nothing happens


CEREMONY = """
import os, signal, sys, threading, time
from scgi.supervisor.child import fork

signal.signal(signal.SIGTERM, lambda *_: print("the parent's handler", flush=True))
read, write = os.pipe()
mine, _ = os.pipe()

def run():
    print("handlers", signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGCHLD), flush=True)
    print("blocked", signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)
    try:
        os.fstat(mine)
    except OSError:
        print("let go", flush=True)
    {end}

import atexit
atexit.register(print, "at exit", flush=True)
pid = fork(run, [mine], read)
print("status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("return 7", 7),
        ("raise SystemExit", 0),
        ("raise SystemExit(4)", 4),
        ("raise SystemExit('a word')", 1),
        ("raise OSError", 1),
        ("threading.Thread(target=time.sleep, args=(60,)).start(); return 0", 0),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    ],
)
def test_a_child_lets_go_of_what_is_its_parents_and_ends_with_its_own_status(end: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CEREMONY.format(end=end)], capture_output=True, text=True, timeout=30, check=True
    )
    said = done.stdout.splitlines()
    assert said[:3] == ["handlers 0 0", "blocked set()", "let go"]
    assert said[-1] == f"status {int(status)}"
    assert ("at exit" in said) == (status >= 0)
    assert "the parent's handler" not in said
