"""Servers whose control sockets are in a folder of the test's own, and the command that looks for them there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from scgi.client.control import ask
from scgi.net.address import parse_address
from scgi.net.rendezvous import control_name
from support import Process, Response, scgi_request, wait_until

PAGES = Path(__file__).with_name("control_pages.py")
ONLY_HERE = """
from pathlib import Path
from scgi.cli.main import main
from scgi.net import rendezvous
rendezvous._RUN = Path("/nowhere")
main()
"""


class Site:
    """One folder with an application, its servers, and the environment of who runs them."""

    def __init__(self, folder: Path, scgi_serve: Callable[..., Process]) -> None:
        self.folder = folder
        self.app = folder / "pages.py"
        self.app.write_bytes(PAGES.read_bytes())
        self.gate = folder / "gate"
        (folder / "run").mkdir(0o700)
        self.environ = {"XDG_RUNTIME_DIR": str(folder / "run"), "RUNTIME_DIRECTORY": "", "GATE": str(self.gate)}
        self._serve = scgi_serve
        self._asking: list[Thread] = []

    def serve(self, *options: str, app: str | Path = "", listen: str = "", **environ: str) -> Process:
        server = self._serve(app or self.app, *options, listen=listen, env={**self.environ, **environ})
        wait_until(lambda: "generation 1 serves" in server.log(), 10)
        return server

    def scgi(self, *words: str | Path, only_here: bool = False, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the command; `only_here`: it does not see the servers that run on this machine besides."""
        return self.start(*words, only_here=only_here, **environ)()

    def start(
        self, *words: str | Path, only_here: bool = False, **environ: str
    ) -> Callable[[], subprocess.CompletedProcess[str]]:
        """Run the command beside the test; what it returns waits for its end."""
        command = [sys.executable, *(["-c", ONLY_HERE] if only_here else ["-m", "scgi"]), *map(str, words)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SCGI_")}
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**kept, **self.environ, **environ},
        )

        def wait() -> subprocess.CompletedProcess[str]:
            out, err = process.communicate(timeout=20)
            return subprocess.CompletedProcess(command, process.returncode, out, err)

        return wait

    def control(self, server: Process) -> Path:
        """Where the server's control socket is, unless it was told otherwise."""
        return self.folder / "run" / "scgi" / control_name(parse_address(server.address))

    def status(self, server: Process) -> dict[str, Any]:
        """What `scgi status --json` prints, in a fraction of its time."""
        (message,) = ask(self.control(server), "status", timeout=5)
        found: dict[str, Any] = message["status"]
        return found

    def ask(self, server: Process, path: str = "/wait", count: int = 1) -> list[Response]:
        """Requests from threads; the list has their answers when the gate has been opened, or the test ends."""
        answers: list[Response] = []
        for _ in range(count):
            asking = Thread(target=lambda: answers.append(scgi_request(server.address, path=path, within=60)))
            asking.start()
            self._asking.append(asking)
        return answers

    def open_gate(self) -> None:
        """Have all that wait be answered."""
        self.gate.touch()
        for asking in self._asking:
            asking.join(20)


@pytest.fixture
def site(short_tmp: Path, scgi_serve: Callable[..., Process]) -> Iterator[Site]:
    with ExitStack() as opened:
        found = Site(short_tmp, scgi_serve)
        opened.callback(found.open_gate)
        yield found
