"""The commands for root in docs/how-to/isolate.md, as they stand there but for the user and the folders."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support import Process, scgi_request
from support.identity import NOBODY, needs_root, status_of

PAGE = (Path(__file__).parents[2] / "docs/how-to/isolate.md").read_text()
FOR_ROOT = [block for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "scgi" in block]
ELSEWHERE = {"hello": "nobody", "hello:www-data": "nobody:daemon"}


@needs_root
@pytest.mark.parametrize("block", FOR_ROOT, ids=["own user", "chroot"])
def test_what_the_page_tells_root_to_do_works(block: str, serve: Callable[..., Process], short_tmp: Path) -> None:
    for folder in ("srv/hello", "run"):
        (short_tmp / folder).mkdir(parents=True)
    program = re.search(r"^# hello.py\n.*?(?=^```)", PAGE, re.MULTILINE | re.DOTALL)
    assert program
    for place in (short_tmp, short_tmp / "srv/hello"):
        (place / "hello.py").write_text(program[0])
    for line in block.replace("\\\n", "").splitlines():
        command = [
            re.sub(r"(?<![\w.])/(srv|run)/", rf"{short_tmp}/\1/", ELSEWHERE.get(word, word))
            for word in shlex.split(line)
        ]
        assert command.pop(0) == "sudo"
        if command[:2] == ["scgi", "serve"]:
            address = command[command.index("--listen") + 1].removeprefix("unix:")
            server = serve(*command[2:], address=address)
        elif command[0] != "useradd":
            subprocess.run(command, cwd=short_tmp, check=True)
    assert scgi_request(address).body == b"Hello.\n"
    assert {status_of(pid)["Uid"].split()[0] for pid in server.descendants()} == {str(NOBODY.pw_uid)}
