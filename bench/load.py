"""The load: bench/client.c, told what to ask and what the answer has to be."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE
from typing import Any

from bench.rounds import Slice
from bench.servers import Server


class WrongAnswer(Exception):
    """A server gave no answer, or not the one expected: its figures mean nothing, so the run ends."""


class CannotCompile(Exception):
    """There is no C compiler, or it does not like what it is given."""


def compiled(source: Path, folder: Path) -> Path:
    """A program of bench/, compiled into the folder."""
    program = folder / source.stem
    try:
        done = subprocess.run(
            [os.environ.get("CC", "cc"), "-O2", "-o", program, source], capture_output=True, text=True
        )  # fmt: skip
    except FileNotFoundError:
        raise CannotCompile("a C compiler is needed, and there is no cc here") from None
    if done.returncode:
        raise CannotCompile(f"{source.name} cannot be compiled:\n{done.stderr}")
    return program


@dataclass
class Client:
    """Loads a server as often as it is called: a Load in the sense of rounds.py."""

    program: Path
    clients: int = 4  # processes, each with one request at a time
    connections: int = 1  # more than 1: so many requests at a time in each process, by epoll (SCGI only)
    http: bool = False  # HTTP/1.1 on connections that are kept, instead of SCGI
    apache: bool = False  # 40 variables as Apache sends them, instead of a browser's 24 behind nginx
    path: str = "/shop/item"
    body: int = 0  # bytes to send
    length: int = 13  # of the answer's body
    tail: str = "Hello, world\n"  # how the answer's body ends
    slow_every: int = 0  # every so many requests goes to slow_path, and into the other histogram
    slow_path: str = "/slow"
    address: str = ""  # where to ask, if not where the server is (it is behind another)

    running: subprocess.Popen[str] | None = field(default=None, init=False, repr=False)

    def ask(self, server: Server, seconds: float, seed: int) -> dict[str, Any]:
        """What client.c printed."""
        if self.running is None:
            self.running = subprocess.Popen(self.command(), stdin=PIPE, stdout=PIPE, text=True)
        assert self.running.stdin and self.running.stdout
        self.running.stdin.write(f"{self.address or server.address} {seconds} {seed}\n")
        self.running.stdin.flush()
        said: dict[str, Any] = json.loads(self.running.stdout.readline() or '{"wrong": "the client has ended"}')
        if "wrong" in said:
            raise WrongAnswer(f"{server.name}: {said['wrong']}")
        return said

    def command(self) -> list[str]:
        command = [str(self.program)]
        for name in ("clients", "connections", "path", "body", "length", "tail", "slow_every", "slow_path"):
            command += [f"--{name.replace('_', '-')}", str(getattr(self, name))]
        return command + ["--http"] * self.http + ["--apache"] * self.apache

    def __del__(self) -> None:
        if self.running is not None:
            self.running.communicate()  # closes its input, and waits for its end

    def __call__(self, server: Server, seconds: float, seed: int) -> Slice:
        said = self.ask(server, seconds, seed)
        return Slice(said["requests"], said["seconds"], Counter(dict(said["latency_ns"])))
