"""How many CPUs this process may use: those of its affinity, and no more than its cgroup's quota allows.

In a container `os.cpu_count()` is the whole machine's, and a pool sized by it starves itself. This file
imports nothing of ours.
"""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_cpus(root: Path = Path("/")) -> int:
    """At least 1; a quota of one CPU and a half counts as 2. `root` is where /proc and /sys are."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(affine, _quota(root))))


def _quota(root: Path) -> float:
    """CPUs' worth of time that the tightest cgroup above us grants; infinity where none does."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    mounts = root / "sys/fs/cgroup"
    tightest = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            for mount in (mounts, mounts / "unified"):
                for group in _upwards(mount, path):
                    tightest = min(tightest, _share(*_words(group / "cpu.max")))
        elif "cpu" in controllers.split(","):  # version 1
            for mount in (mounts / controllers, mounts / "cpu"):
                for group in _upwards(mount, path):
                    quota, period = _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us")
                    tightest = min(tightest, _share(*quota, *period))
    return tightest


def _upwards(mount: Path, path: str) -> list[Path]:
    """The group and all above it. In a container the path may be the host's; only the mount's root exists."""
    group = mount / path.lstrip("/")
    return [group, *(above for above in group.parents if above.is_relative_to(mount))]


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _share(quota: str = "max", period: str = "100000", *_: str) -> float:
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return math.inf
    return share if share > 0 else math.inf  # version 1 says -1 for no limit
