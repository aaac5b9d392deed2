"""What the system tells of a process, against what is known of it, and against cgroups of every make."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scgi.status.process import cpu_seconds, oom_kills, resident_bytes
from support import resident_bytes as memory_of
from support import wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc here")


def test_cpu_time_is_what_the_process_itself_has_counted() -> None:
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    found = cpu_seconds(os.getpid())
    assert found is not None and found == pytest.approx(time.process_time(), abs=0.05)


def test_memory_is_what_is_in_use() -> None:
    before = resident_bytes(os.getpid())
    block = bytearray(64 << 20)
    after = resident_bytes(os.getpid())
    assert before is not None and after is not None
    assert after - before > 60 << 20 and len(block)
    assert after == pytest.approx(memory_of(os.getpid()), rel=0.1)


def test_a_name_with_spaces_and_brackets_misleads_nobody(tmp_path: Path) -> None:
    odd = tmp_path / "a) R 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([odd, "60"]) as process:
        assert cpu_seconds(process.pid) == pytest.approx(0, abs=0.1)
        wait_until(lambda: 0 < (resident_bytes(process.pid) or 0) < 50 << 20)  # it may only be about to begin
        process.kill()


def test_a_process_that_is_gone_has_no_figures() -> None:
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    assert cpu_seconds(int(process.stdout)) is resident_bytes(int(process.stdout)) is None


def machine(root: Path, groups: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"


@pytest.mark.parametrize(
    ("groups", "files", "count"),
    [
        ("0::/system.slice/shop.service\n", {"system.slice/shop.service/memory.events": EVENTS}, 2),
        ("0::/\n", {"memory.events": EVENTS}, 2),
        ("0::/docker/host/path\n", {"memory.events": EVENTS}, 2),  # a container that sees its own group alone
        ("7:cpu,cpuacct:/x\n4:memory:/shop\n", {"memory/shop/memory.oom_control": CONTROL}, 5),
        ("4:memory:/docker/host\n", {"memory/memory.oom_control": CONTROL}, 5),
        ("4:memory:/a\n0::/b\n", {"memory/a/memory.oom_control": CONTROL, "b/memory.events": EVENTS}, 5),
        ("0::/\n", {}, None),
        ("0::/\n", {"memory.events": "oom_kill many\n"}, None),
        ("0::/\n", {"memory.events": "\n\noom_kill\n"}, None),
    ],
)
def test_the_kernels_count_is_found_in_either_version_of_cgroups(
    tmp_path: Path, groups: str, files: dict[str, str], count: int | None
) -> None:
    assert oom_kills(machine(tmp_path, groups, **files)) == count


def test_without_cgroups_nothing_is_known(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) is None
