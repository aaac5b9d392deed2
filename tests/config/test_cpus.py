"""CPUs: affinity and cgroup quotas, both versions, as containers show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scgi.config.cpus import usable_cpus

HOST_PATH = "/system.slice/docker-4711.scope"


@pytest.fixture(autouse=True)
def _eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def machine(root: Path, cgroup: str, **files: str) -> Path:
    """A tree with /proc/self/cgroup, and files below /sys/fs/cgroup whose names have __ for slashes."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_quota_it_is_the_affinity(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path) == 8
    assert usable_cpus(machine(tmp_path, "0::/\n", a__cpu_max="max 100000\n")) == 8


def test_version_2_gives_the_tightest_quota_above_us(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/a/b\n", a__b__cpu_max="max 100000\n", a__cpu_max="300000 100000\n")
    assert usable_cpus(root) == 3


def test_part_of_a_cpu_counts_as_one(tmp_path: Path) -> None:
    assert usable_cpus(machine(tmp_path, "0::/\n", cpu_max="150000 100000\n")) == 2


def test_a_quota_below_one_cpu_is_one(tmp_path: Path) -> None:
    assert usable_cpus(machine(tmp_path, "0::/\n", cpu_max="5000 100000\n")) == 1


def test_in_a_container_the_mounts_root_counts_when_the_path_is_the_hosts(tmp_path: Path) -> None:
    assert usable_cpus(machine(tmp_path, f"0::{HOST_PATH}\n", cpu_max="200000 100000\n")) == 2


def test_version_1_gives_quota_over_period(tmp_path: Path) -> None:
    cgroup = f"4:memory:/x\n2:cpu,cpuacct:{HOST_PATH}\n1:name=systemd:/\n"
    files = {"cpu,cpuacct__cfs_quota_us": "400000\n", "cpu,cpuacct__cfs_period_us": "100000\n"}
    assert usable_cpus(machine(tmp_path, cgroup, **files)) == 4


def test_version_1_says_minus_one_for_no_limit(tmp_path: Path) -> None:
    root = machine(tmp_path, "1:cpu:/\n", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    assert usable_cpus(root) == 8


def test_nonsense_in_the_files_is_no_quota(tmp_path: Path) -> None:
    assert usable_cpus(machine(tmp_path, "0::/\n", cpu_max="100000 0\n", unified__cpu_max="what\n")) == 8
