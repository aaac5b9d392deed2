"""cgi2scgi, built as the tests need it, and run as a web server would run it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import require_program

SOURCE = Path(__file__).parents[2] / "cgi2scgi"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]


def build(target: Path, *flags: str) -> Path:
    """Compile it with the Makefile's own warnings, so that whatever compiles it elsewhere would compile it here."""
    require_program("cc")
    require_program("make")
    command = ["make", "-B", "-f", str(SOURCE / "Makefile"), f"CFLAGS=-O1 -g {' '.join(flags)}", "cgi2scgi"]
    target.mkdir(parents=True, exist_ok=True)
    (target / "cgi2scgi.c").write_bytes((SOURCE / "cgi2scgi.c").read_bytes())
    done = subprocess.run(command, cwd=target, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr, done.stderr
    program = target / "cgi2scgi"
    for path in (target, program):
        path.chmod(0o755)
    return program


@dataclass(frozen=True, slots=True)
class Run:
    """One request that was answered."""

    exit_status: int
    output: bytes
    log: str
    seconds: float
    peak_memory: int  # bytes

    @property
    def head(self) -> dict[str, str]:
        """The headers by lower-case name."""
        lines = self.output.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def status(self) -> int:
        """0: there is no head."""
        head, end, _ = self.output.partition(b"\r\n\r\n")
        return int(self.head.get("status", "200")[:3]) if end and head else 0

    @property
    def body(self) -> bytes:
        return self.output.partition(b"\r\n\r\n")[2]

    @property
    def whole(self) -> bool:
        """As far as a web server can tell."""
        announced = self.head.get("content-length")
        return self.exit_status == 0 and announced in (None, str(len(self.body)))


def peak_memory(pid: int) -> int:
    """The most bytes that a process ever had in memory; 0 if it has ended, or not begun."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return 0
    if program == os.path.realpath(sys.executable):
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def environment(method: str = "GET", path: str = "/", query: str = "", length: int | None = None) -> dict[str, str]:
    """What a web server gives a CGI program, and nothing else: Python's own environment would hide what leaks."""
    variables = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "PATH": "/usr/bin:/bin",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REMOTE_ADDR": "192.0.2.1",
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "/app",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "test",
    }
    if length is not None:
        variables["CONTENT_LENGTH"] = str(length)
    return variables


def run(
    program: Path | Sequence[str | Path],
    variables: Mapping[str, str],
    body: bytes = b"",
    *,
    cwd: Path | None = None,
    within: float = 30,
    keep_open: bool = False,
) -> Run:
    """Run it; `body` is on its standard input, which ends there, unless it is to be kept open until it has ended."""
    command = [program] if isinstance(program, Path) else program
    began = time.monotonic()
    popen = subprocess.Popen(
        [os.fspath(word) for word in command],
        env=variables,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert popen.stdin and popen.stdout and popen.stderr
    ended = threading.Event()

    def feed() -> None:
        assert popen.stdin
        try:
            popen.stdin.write(body)
            popen.stdin.flush()
        except OSError:
            pass
        if keep_open:
            ended.wait(within)
        try:
            popen.stdin.close()
        except OSError:
            pass

    said: list[bytes] = []
    log = popen.stderr
    peaks = [0]

    def watch() -> None:
        """The kernel's figure for an ended process counts what it was before `exec`: the size of this one."""
        while not ended.wait(0.002):
            peaks.append(peak_memory(popen.pid))

    threads = [threading.Thread(target=feed), threading.Thread(target=lambda: said.append(log.read()))]
    threads.append(threading.Thread(target=watch))
    watchdog = threading.Timer(within, popen.kill)
    for thread in (*threads, watchdog):
        thread.start()
    output = popen.stdout.read()
    popen.wait()
    ended.set()
    watchdog.cancel()
    for thread in threads:
        thread.join()
    popen.stdout.close()
    popen.stderr.close()
    seconds = time.monotonic() - began
    if seconds > within:
        pytest.fail(f"no end after {within:g} s; its log:\n{said[0].decode()}")
    return Run(popen.returncode, output, said[0].decode(), seconds, max(peaks))
