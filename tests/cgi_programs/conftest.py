"""A folder of CGI programs, written by the tests, and `scgi serve --cgi` for it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support import Process, Response, free_port, scgi_request, start


@dataclass
class Programs:
    """`write` one, then `ask` for it."""

    folder: Path
    work: Path  # for what programs leave behind, and what is not to be served
    server: Process | None = None
    running: list[Process] = field(default_factory=list)

    def write(self, name: str, text: str, mode: int = 0o755) -> Path:
        """Without a line of `#!` it is for the shell."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        first, _, rest = text.partition("\n") if text.startswith("#!") else ("#!/bin/sh", "", text)
        file.write_text(f"{first}\n{textwrap.dedent(rest)}")
        file.chmod(mode)
        return file

    def serve(self, *options: str, what: str | Path = "", listen: str = "") -> Process:
        address = listen or f"127.0.0.1:{free_port()}"
        command = ["scgi", "serve", "--cgi", what or self.folder, "--listen", address]
        log_file = self.work / f"log-{len(self.running)}"
        self.server = start([sys.executable, "-m", *command, *options], log_file=log_file, address=address)
        self.running.append(self.server)
        return self.server

    def ask(self, path: str, body: bytes = b"", variables: Mapping[str, str] | None = None, **how: Any) -> Response:
        server = self.server or self.serve()
        return scgi_request(server.address, variables or {}, body, path=path, within=30, **how)

    def log(self) -> str:
        assert self.server is not None
        return self.server.log()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    folder, work = tmp_path / "cgi-bin", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    found = Programs(folder, work)
    yield found
    try:
        for server in found.running:
            if server.running():
                assert server.stop() == 0
            server.assert_nothing_left()
    finally:
        for server in found.running:
            server.kill()
            print(f"--- log ---\n{server.log()}")
