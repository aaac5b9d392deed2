"""The sites that these tests visit: a real web server, configured by `scgi config`, in front of `scgi serve`."""

from __future__ import annotations

import http.client
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from interop.webservers import web_server
from support import Front, Process, free_port, short_folder, start

HOW_TO = Path(__file__).parents[2] / "docs/how-to"
PAGES = Path(__file__).with_name("pages.py")
FRONTS = ("nginx", "mod_scgi", "apache", "lighttpd")
MEGABYTE = 1 << 20
PLACES = [f"{front}-{place}" for front in FRONTS for place in ("unix-root", "tcp-shop")]


def wishes(place: str, address: str) -> list[str]:
    """What `scgi config` is asked for."""
    return [f"--upstream={address}", f"--mount={'/' if place == 'unix-root' else '/shop'}", "--timeout=300"]


@dataclass
class Site:
    """One web server with our server behind it."""

    front: str
    place: str
    server: Process
    web: Front
    facts: Path

    @property
    def mount(self) -> str:
        return "/shop" if self.place == "tcp-shop" else ""

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: object = None,
        headers: dict[str, str] | None = None,
        within: float = 60,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One request, with the path as it is, below the mount; the answer and its body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=within)
        try:
            connection.request(method, self.mount + path, body, headers or {})  # type: ignore[arg-type]
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def workers(self) -> list[int]:
        return self.server.workers()


@contextmanager
def open_site(where: str, *options: str, wish: Sequence[str] = ()) -> Iterator[Site]:
    """`options` are for `scgi serve`, `wish` for `scgi config`."""
    front, _, place = where.partition("-")
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        (folder / "facts").mkdir()
        address = f"unix:{folder}/s" if place == "unix-root" else f"127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "scgi", "serve", f"--listen={address}", f"--env=FACTS={folder}/facts"]
        server = start([*command, *options, PAGES], log_file=folder / "log", address=address)
        stack.callback(lambda: print(f"--- log of the SCGI server ---\n{server.log()}"))
        stack.callback(server.kill)
        web = stack.enter_context(web_server(front, *wishes(place, address), *wish))
        yield Site(front, place, server, web, folder / "facts")
        assert server.stop() == 0
        server.assert_nothing_left()


class Memory:
    """How much memory of its own a process takes, at most, from now on."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._before = self._field("RssAnon")
        try:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
            self._resident = self._field("VmRSS")
        except OSError:
            pytest.skip("the peak of another process's memory cannot be reset here")

    def growth(self) -> int:
        """The larger of what the peak and what the present state are above the beginning, in bytes."""
        peak = self._field("VmHWM") - self._resident
        return max(peak, self._field("RssAnon") - self._before)

    def _field(self, name: str) -> int:
        match = re.search(rf"{name}:\s*(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert match, name
        return int(match[1]) * 1024
