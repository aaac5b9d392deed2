"""What `make deb` builds is what Debian's users install: built by the real target, installed by dpkg, walked, purged.

The installation is real and leaves nothing: an overlay over / in a mount namespace, with a network and processes of
its own, so that ports 80 and 4000 are free in it. That takes root.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from scgi.version import __version__
from support import require_program
from support.overlays import NAMESPACES, reason_against_machines

ROOT = Path(__file__).parents[2]
WALK = Path(__file__).with_name("walk.sh")
# $1: a folder for the new root, $2: the packages, $3: the walk.
ENTER = """
set -eu
mount -t tmpfs -o mode=755 layers "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" root "$1/root"
for own in tmp run; do mount -t tmpfs -o mode=1777 own "$1/root/$own"; done
mount --rbind /dev "$1/root/dev"
mount -t proc proc "$1/root/proc"
mkdir "$1/root/packages"
cp "$2"/*.deb "$1/root/packages/"
cp "$3" "$1/root/walk.sh"
exec chroot "$1/root" /bin/sh /walk.sh
"""


def build(folder: Path, **environ: str) -> dict[str, Path]:
    """The packages by name."""
    for program in ("dpkg-buildpackage", "dh", "dh_python3", "dh_apache2"):
        require_program(program)
    made = subprocess.run(
        ["make", "--no-print-directory", "deb", f"DIST={folder}"],
        cwd=ROOT, env=os.environ | environ, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    return {file.name.partition("_")[0]: file for file in folder.glob("*.deb")}


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, Path]:
    """Built once, whichever of pytest's processes comes first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "packages"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return {file.name.partition("_")[0]: file for file in folder.glob("*.deb")} or build(folder)


def field(package: Path, name: str) -> str:
    return subprocess.check_output(["dpkg-deb", "--field", package, name], text=True).strip()


def contents(package: Path) -> set[str]:
    listing = subprocess.check_output(["dpkg-deb", "--contents", package], text=True)
    return {line.split()[5].removeprefix(".") for line in listing.splitlines()}


def test_the_python_package_has_every_module_the_command_and_what_pyproject_asks_for(packages: dict[str, Path]) -> None:
    package = packages["python3-scgi-server"]
    inside = contents(package)
    modules = {f"/usr/lib/python3/dist-packages/{file.relative_to(ROOT / 'src')}" for file in modules_of_the_tree()}
    assert modules <= inside
    assert "/usr/bin/scgi" in inside
    assert "/usr/share/doc/python3-scgi-server/examples/systemd/hello.service" in inside
    assert not [name for name in inside if name.startswith(("/etc/", "/lib/systemd/", "/usr/lib/systemd/"))]
    assert field(package, "Version") == __version__
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    for name, least in (requirement.split(">=") for requirement in wanted):
        assert f"python3-{name} (>= {least})" in field(package, "Depends")


def modules_of_the_tree() -> list[Path]:
    return list((ROOT / "src/scgi").rglob("*.py"))


def test_the_cgi_program_is_a_package_of_its_own_and_in_no_web_servers_folder(packages: dict[str, Path]) -> None:
    assert "/usr/bin/cgi2scgi" in contents(packages["cgi2scgi"])
    everything = {name for package in packages.values() for name in contents(package)}
    assert not [name for name in everything if "cgi-bin" in name and not name.startswith("/usr/share/doc/")]


def test_the_module_is_for_debians_apache(packages: dict[str, Path]) -> None:
    package = packages["libapache2-mod-scgi"]
    assert {"/usr/lib/apache2/modules/mod_scgi.so", "/etc/apache2/mods-available/scgi.load"} <= contents(package)
    assert re.search(r"\bapache2-api-\d+\b", field(package, "Depends"))


def test_the_same_tree_gives_the_same_bytes(packages: dict[str, Path], tmp_path: Path) -> None:
    again = build(tmp_path)
    assert {name: file.read_bytes() for name, file in again.items()} == {
        name: file.read_bytes() for name, file in packages.items()
    }


def test_installed_they_show_the_articles_page_and_purged_they_leave_nothing(
    packages: dict[str, Path], tmp_path: Path
) -> None:
    if reason := reason_against_machines():
        pytest.skip(reason)
    for program in ("apache2ctl", "a2enconf", "setpriv"):
        require_program(program)
    shutil.copy(WALK, tmp_path / "walk.sh")
    root = tmp_path / "root"
    root.mkdir()
    walked = subprocess.run(
        [*NAMESPACES, "/bin/sh", "-c", ENTER, "enter", root, next(iter(packages.values())).parent, WALK],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=100,
    )  # fmt: skip
    assert walked.returncode == 0, walked.stdout
    said = dict(re.findall(r"^== (\w+)\n(.*?)(?=^== )", walked.stdout, re.MULTILINE | re.DOTALL))
    assert said["running"] == "nothing\n"
    assert said["version"].split()[:2] == ["scgi-server", __version__]
    assert said["import"] == "/usr/lib/python3/dist-packages/scgi/scgi_server.py\n"
    assert said["enabled"] == "../mods-available/scgi.load\n"
    page = dict(re.findall(r"^(\w+): '(.*)'$", said["page"], re.MULTILINE))
    expected = {"SCRIPT_NAME": "/scgitest", "QUERY_STRING": "pizza=hawaii", "SCGI": "1", "CONTENT_LENGTH": "0"}
    assert expected.items() <= page.items(), said["page"]
    assert said["purged"].endswith("clean\n"), said["purged"]
