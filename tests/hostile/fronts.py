"""What is held to the table of hostile servers. A front more is one class here, and one line in ``FRONTS``.

Each is told to wait a second for anything. ``ask`` makes the request of a row; ``peak_memory`` is the most that the
front ever held, where there is a process that can be asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from cgi2scgi.program import build, environment, run
from cgi2scgi.sites import cgi_apache, install
from gateway.toys import start_gateway
from support import Front
from support.apache_module import Apache, serving
from support.hostile import Row, Seen, ask_http

TIMEOUT = 1  # seconds, of every front
PEAK = "VmHWM:"


class FrontUnderTest(Protocol):
    # Whether an answer of unknown length that is cut looks cut. It does not where a web server frames what a CGI
    # program says, and learns nothing of how that ended.
    shows_open_cuts: bool

    def ask(self, row: Row) -> Seen: ...

    def peak_memory(self) -> int: ...

    def log(self) -> str: ...


def peak_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(PEAK)) * 1024


class Gateway:
    shows_open_cuts = True

    def __init__(self, address: str, pid: int, log: Callable[[], str]) -> None:
        self.host, _, self.port = address.rpartition(":")
        self.pid = pid
        self.log = log

    def ask(self, row: Row) -> Seen:
        return ask_http(self.host, int(self.port), row)

    def peak_memory(self) -> int:
        return peak_of(self.pid)


@contextmanager
def gateway(upstream: str, folder: Path) -> Iterator[FrontUnderTest]:
    with start_gateway(upstream, folder, connect_timeout=TIMEOUT, read_timeout=TIMEOUT) as process:
        yield Gateway(process.address, process.pid, process.log)


class Cgi:
    """cgi2scgi as a web server would run it; what the CGI program says is what the client gets."""

    shows_open_cuts = True  # by its exit status

    def __init__(self, program: Path | Sequence[str | Path], upstream: str) -> None:
        self.program = program
        self.settings = {"SCGI_SERVER": upstream, "SCGI_TIMEOUT": str(TIMEOUT), "SCGI_CONNECT_TIMEOUT": str(TIMEOUT)}
        self.peak = 0
        self.said = ""

    def ask(self, row: Row) -> Seen:
        method = "POST" if row.upload else "GET"
        variables = environment(method, f"/hostile/{row.name}", length=row.upload or None) | self.settings
        done = run(self.program, variables, bytes(row.upload))
        self.peak = max(self.peak, done.peak_memory)
        self.said += done.log
        return Seen(done.status, done.body, done.whole, done.seconds)

    def peak_memory(self) -> int:
        return self.peak

    def log(self) -> str:
        return self.said


@contextmanager
def cgi(upstream: str, folder: Path) -> Iterator[FrontUnderTest]:
    yield Cgi(build(folder), upstream)


class Cgid:
    """cgi2scgi, run by Apache's mod_cgid."""

    shows_open_cuts = False

    def __init__(self, front: Front) -> None:
        self.port = front.port
        self.log = front.log

    def ask(self, row: Row) -> Seen:
        return ask_http("127.0.0.1", self.port, row, prefix="/cgi-bin/app")

    def peak_memory(self) -> int:
        return 0  # each request has a process of its own, and `Cgi` measures those


@contextmanager
def cgid(upstream: str, folder: Path) -> Iterator[FrontUnderTest]:
    settings = f"server {upstream}\ntimeout {TIMEOUT}\nconnect-timeout {TIMEOUT}\n"
    place = install(build(folder / "build"), folder, settings=settings)
    # Apache believes no length that a program announces, unless it is told to; then a cut is one for the client too.
    with cgi_apache(place, config="SetEnv ap_trust_cgilike_cl 1") as front:
        yield Cgid(front)


class ModScgi:
    """Our Apache module."""

    shows_open_cuts = True

    def __init__(self, web: Apache) -> None:
        self.web = web
        self.log = web.log

    def ask(self, row: Row) -> Seen:
        return ask_http("127.0.0.1", self.web.port, row)

    def peak_memory(self) -> int:
        return max(peak_of(child) for child in self.web.children())


@contextmanager
def mod_scgi(upstream: str, folder: Path) -> Iterator[FrontUnderTest]:
    if upstream.startswith("unix:"):
        Path(upstream.removeprefix("unix:")).chmod(0o777)  # Apache is another user
    with serving(f"SCGIMount / {upstream}\nSCGIServerTimeout {TIMEOUT}\nSCGIConnectTimeout {TIMEOUT}") as web:
        yield ModScgi(web)


class Client:
    """Our client, as `scgi bench` uses it. It says what went wrong, and a 502 or 504 is what that would be."""

    shows_open_cuts = True

    def __init__(self, process: subprocess.Popen[str], upstream: str) -> None:
        self.process = process
        self.upstream = upstream

    def ask(self, row: Row) -> Seen:
        assert self.process.stdin and self.process.stdout
        print(self.upstream, f"/hostile/{row.name}", row.upload, TIMEOUT, file=self.process.stdin, flush=True)
        found = json.loads(self.process.stdout.readline())
        if found["statuses"]:
            return Seen(found["statuses"][0], None, True, found["seconds"])
        return Seen(504 if found["failures"] == ["timed-out"] else 502, None, True, found["seconds"])

    def peak_memory(self) -> int:
        return peak_of(self.process.pid)

    def log(self) -> str:
        return ""


@contextmanager
def client(upstream: str, folder: Path) -> Iterator[FrontUnderTest]:
    program = Path(__file__).with_name("client_program.py")
    command = [sys.executable, str(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Client(process, upstream)


# By name: how to start it for an upstream, and the kinds of upstream that it is tried with.
FRONTS: dict[str, tuple[Callable[[str, Path], AbstractContextManager[FrontUnderTest]], tuple[str, ...]]] = {
    "gateway": (gateway, ("tcp", "unix")),
    "cgi2scgi": (cgi, ("tcp", "unix")),
    "cgi2scgi-in-apache": (cgid, ("tcp",)),
    "mod_scgi": (mod_scgi, ("tcp", "unix")),
    "client": (client, ("tcp", "unix")),
}
