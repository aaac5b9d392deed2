"""No use of memory that is not ours, nothing undefined, nothing leaked, whatever a server says."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgi2scgi.program import SANITIZERS, SOURCE, build, environment, run
from cgi2scgi.sites import install
from hostile.fronts import Cgi
from support import free_port, require_program, short_folder
from support.hostile import TABLE, HostileServer, Row

FOUND = 99  # the exit status where something was found
VALGRIND = [
    "valgrind",
    "-q",
    f"--error-exitcode={FOUND}",
    "--leak-check=full",
    "--errors-for-leak-kinds=definite,indirect,possible",
]
# Of what a server may do, one of each kind: a program under valgrind takes a second to start.
SOME = """
    close-after-request reset-within-upload close-within-head stall-within-head endless-head ten-thousand-headers noise
    nul-in-name status-of-letters early-hints-first longer-than-announced shorter-than-announced
    much-shorter-than-announced lengths-that-differ chunks reset-within-open-body early-and-deaf early-and-reset
    """.split()


@pytest.fixture(scope="module")
def sanitized() -> Iterator[Path]:
    with short_folder() as folder:
        yield build(folder, *SANITIZERS)


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer(f"127.0.0.1:{free_port()}") as server:
        yield server


def held(front: Cgi, server: HostileServer, row: Row) -> None:
    server.row = row
    seen = front.ask(row)
    server.settle()
    row.truth.judge(seen)
    assert "==" not in front.log() and "runtime error" not in front.log(), front.log()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_sanitizers_find_nothing_whatever_the_server_does(sanitized: Path, server: HostileServer, row: Row) -> None:
    front = Cgi(sanitized, server.address)
    front.settings |= {"ASAN_OPTIONS": f"exitcode={FOUND}:detect_leaks=1", "UBSAN_OPTIONS": f"exitcode={FOUND}"}
    held(front, server, row)


@pytest.mark.parametrize("row", [row for row in TABLE if row.name in SOME], ids=lambda row: row.name)
def test_valgrind_finds_nothing_whatever_the_server_does(program: Path, server: HostileServer, row: Row) -> None:
    require_program("valgrind")
    front = Cgi([*VALGRIND, program], server.address)
    held(front, server, row)


SETTINGS = {
    "none": "",
    "usual": "# a comment\nserver {address}\ntimeout 1\nconnect-timeout 1\npass MY_SETTING GEO_*\n",
    "unknown": "nonsense\n",
    "long": "server " + "x" * 3000,
    "binary": "\x7fELF\0\0",
    "spaces": "  \t server\t \n\n\n server    {address}    ",
}


@pytest.mark.parametrize("how", ["sanitizers", "valgrind"])
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_any_kind_are_read_cleanly(
    sanitized: Path, program: Path, server: HostileServer, tmp_path: Path, name: str, how: str
) -> None:
    server.row = next(row for row in TABLE if row.name == "no-head")
    place = install(
        sanitized if how == "sanitizers" else program, tmp_path, settings=SETTINGS[name].format(address=server.address)
    )
    given = {"MY_SETTING": "1", "GEO_": "", "GEO_X": "", "REDIRECT_": "", "REDIRECT_REDIRECT_STATUS": "", "": "x"}
    variables = {**environment(), **given, "ASAN_OPTIONS": f"exitcode={FOUND}"}
    del variables[""]
    if how == "valgrind":
        require_program("valgrind")
    done = run([*(VALGRIND if how == "valgrind" else []), place / "app"], variables)
    assert done.exit_status == 0 and done.status in (500, 502)
    assert done.log.count("\n") == 1 and done.log.startswith("cgi2scgi: 50"), done.log


def test_it_compiles_without_a_warning_and_installs_where_it_is_told(tmp_path: Path) -> None:
    build(tmp_path / "strict", "-Wpedantic", "-Wshadow", "-Wconversion", "-Wformat=2", "-O3")
    done = subprocess.run(
        ["make", "install", f"DESTDIR={tmp_path}", "PREFIX=/usr", f"VPATH={SOURCE}"],
        cwd=build(tmp_path / "here").parent,
        env={**environment(), "MAKEFILES": str(SOURCE / "Makefile")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "usr/bin/cgi2scgi").stat().st_mode & 0o777 == 0o755
