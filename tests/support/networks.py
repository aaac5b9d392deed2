"""Machines of the test's own making: Linux network namespaces, each with a cable to the first."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from support.programs import require_program


@dataclass(frozen=True, slots=True)
class Machine:
    """`prefix` before a command runs it there; `address` is how the first machine knows it."""

    name: str
    prefix: tuple[str, ...]
    address: str

    def run(self, *command: str, within: float = 30) -> str:
        """What the command prints there; the test fails if it fails."""
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True, timeout=within)
        if done.returncode:
            pytest.fail(f"on {self.name}: {' '.join(command)}\n{done.stdout}{done.stderr}", pytrace=False)
        return done.stdout


@contextmanager
def machines(*names: str) -> Iterator[list[Machine]]:
    """The first machine is 10.77.N.1 to the others, the Nth of which is 10.77.N.2, and knows nobody else.

    Skipped where the kernel refuses, which containers without privileges do.
    """
    ip = require_program("ip")

    def configure(*words: str) -> None:
        subprocess.run([ip, *words], check=True, capture_output=True, text=True)

    made = [f"scgi-{os.getpid()}-{name}" for name in names]
    with ExitStack() as stack:
        for number, space in enumerate(made):
            try:
                configure("netns", "add", space)
            except subprocess.CalledProcessError as error:
                pytest.skip(f"the kernel refuses network namespaces here: {error.stderr.strip()}")
            stack.callback(subprocess.run, [ip, "netns", "delete", space], check=True)
            configure("-n", space, "link", "set", "lo", "up")
            if number:
                first, here = (made[0], f"cable{number}"), (space, "cable")
                configure("-n", first[0], "link", "add", first[1], "type", "veth", "peer", here[1], "netns", space)
                for (where, cable), last in ((first, 1), (here, 2)):
                    configure("-n", where, "address", "add", f"10.77.{number}.{last}/24", "dev", cable)
                    configure("-n", where, "link", "set", cable, "up")
        yield [
            Machine(name, (ip, "netns", "exec", space), f"10.77.{number}.2" if number else "")
            for number, (name, space) in enumerate(zip(names, made, strict=True))
        ]
