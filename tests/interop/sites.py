"""The sites that these tests visit: a real web server, configured as docs/how-to says, in front of `scgi serve`."""

from __future__ import annotations

import http.client
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import Front, Process, apache, free_port, lighttpd, nginx, short_folder, start

HOW_TO = Path(__file__).parents[2] / "docs/how-to"
PAGES = Path(__file__).with_name("pages.py")
FRONTS = {"nginx": nginx, "apache": apache, "lighttpd": lighttpd}

# The first configuration of each page is for the root and a unix socket, the second for /shop and TCP.
MEGABYTE = 1 << 20
PLACES = [f"{front}-{place}" for front in FRONTS for place in ("unix-root", "tcp-shop")]


def documented(front: str, place: str, address: str) -> str:
    """The configuration that the documentation gives, for an SCGI server at `address`."""
    page = (HOW_TO / f"{front}.md").read_text()
    root, shop = re.findall(rf"```{front}\n(.*?)```", page, re.DOTALL)
    if place == "unix-root":
        assert root.count("/run/hello/hello.sock") == 1
        return str(root).replace("/run/hello/hello.sock", address.removeprefix("unix:"))
    assert shop.count("4000") == 1
    return str(shop).replace("4000", address.rpartition(":")[2])


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


def open_front(front: str, config: str, extra: str = "") -> AbstractContextManager[Front]:
    if front == "lighttpd":  # these are in the tests' own part, and may not be there twice
        config = re.sub(r"(?m)^server\..*\n", "", config)
    return FRONTS[front](config=config, extra=extra)


@contextmanager
def open_site(where: str, *options: str, extra: str = "", upload_limit: str = "100m") -> Iterator[Site]:
    front, _, place = where.partition("-")
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        (folder / "facts").mkdir()
        address = f"unix:{folder}/s" if place == "unix-root" else f"127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "scgi", "serve", f"--listen={address}", f"--env=FACTS={folder}/facts"]
        server = start([*command, *options, PAGES], log_file=folder / "log", address=address)
        stack.callback(lambda: print(f"--- log of the SCGI server ---\n{server.log()}"))
        stack.callback(server.kill)
        config = documented(front, place, address)
        web = stack.enter_context(open_front(front, config.replace("100m", upload_limit), extra))
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
