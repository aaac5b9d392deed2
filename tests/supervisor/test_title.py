"""What `ps` shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TITLED = "from scgi.supervisor.title import set_title; set_title('pool, generation 3'); print(); input()"
WITHOUT = "import sys; sys.modules['setproctitle'] = None\n" + TITLED


def shown(code: str) -> str:
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        title = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.communicate(b"\n")
    return title.decode().rstrip("\0")


def test_a_title_says_what_a_process_does() -> None:
    assert shown(TITLED) == "scgi: pool, generation 3"


def test_without_setproctitle_a_process_keeps_its_name() -> None:
    assert shown(WITHOUT).endswith(WITHOUT)
