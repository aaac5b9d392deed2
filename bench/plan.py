"""What every scenario is given: where things are, how thorough to be, and what it runs on."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent


@dataclass(frozen=True)
class Plan:
    folder: Path  # a temporary folder: sockets, configurations, spools
    client: Path  # bench/client.c, compiled
    floor: Path  # bench/floor.c, compiled
    short: bool = False  # figures in a hurry: fewer rounds
    strict: bool = False  # a peer that is missing ends the run
    serve_options: tuple[str, ...] = ()  # more options for `scgi serve`
    peers: Path = Path(f"{sys.prefix}-bench/bin")  # the programs of what bench/peers.txt names
    python: str = sys.executable  # ours: `scgi serve` runs by it

    def rounds(self, full: int) -> int:
        """How many rounds of slices, given those of the full form."""
        return max(5, full // 3) if self.short else full


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
