"""What every scenario is given: where things are, and how thorough to be."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Plan:
    folder: Path  # a temporary folder: sockets, configurations, spools
    client: Path  # bench/client.c, compiled
    floor: Path  # bench/floor.c, compiled
    short: bool = False  # figures in a hurry: fewer rounds
    strict: bool = False  # a peer that is missing ends the run
    serve_options: tuple[str, ...] = ()  # more options for `scgi serve`
    peers: Path = ROOT / ".venv-bench/bin"  # the programs of what bench/peers.txt names
    python: str = sys.executable  # ours: `scgi serve` runs by it

    def rounds(self, full: int) -> int:
        """How many rounds of slices, given those of the full form."""
        return max(5, full // 3) if self.short else full
