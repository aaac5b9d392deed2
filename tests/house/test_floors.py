"""The floors of the house: imports go down only, wherever in a file they stand.

An edge that breaks this is named by file and line. ``ALLOWED`` is the map in ``src/scgi/__init__.py``
written as a table; the two change together.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src/scgi"
FILES = sorted(SRC.rglob("*.py"))

WIRE = {"protocol", "errors"}
SERVING = {"apps", "net", "status", "log", *WIRE}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "log": set(),
    "version": set(),
    "protocol": {"errors"},
    "net": WIRE,
    "status": {"log", *WIRE},
    "apps": {"net", "status", "log", *WIRE},
    "workers": SERVING,
    "supervisor": {"workers", "version", *SERVING},
    "client": {"net", *WIRE},
    "gateway": {"client", "net", "log", *WIRE},
    "bench": {"client", "net", *WIRE},
    "fronts": {"net", *WIRE},
    "config": {"supervisor", "workers", "gateway", *SERVING},
    "cli": {"config", "supervisor", "workers", "gateway", "fronts", "client", "bench", *SERVING},
    "__main__": {"cli"},
    "__init__": {"config", "version"},
}
FRONT_DOOR = {"scgi_server", "util", "passfd", "systemd_socket", "session_server", "flup"}
BELOW_THE_DOOR = {"config", "supervisor", "workers", *SERVING}

# Third-party modules, each with the only places that may import it. All but click and setproctitle are extras.
THIRD_PARTY = {
    "click": {"cli"},
    "setproctitle": {"supervisor"},
    "uvicorn": {"gateway"},
    "httpx": {"client"},
    "watchfiles": {"supervisor"},
}

# protocol/ is bytes and text: what would tie it to sockets, clocks or processes stays outside.
NOT_IN_PROTOCOL = {"asyncio", "multiprocessing", "os", "select", "selectors", "socket", "threading", "time"}


def floor_of(file: Path) -> str:
    return file.relative_to(SRC).parts[0].removesuffix(".py")


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of every import in the file, function-local ones included."""
    package = ("scgi", *file.relative_to(SRC).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            # "from scgi import net" reaches for scgi.net, "from scgi import __version__" for scgi itself.
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def broken_edges(file: Path) -> Iterator[str]:
    floor = floor_of(file)
    allowed = BELOW_THE_DOOR | FRONT_DOOR if floor in FRONT_DOOR else ALLOWED.get(floor, set())
    for line, name in imports_of(file):
        top, _, rest = name.partition(".")
        where = f"{file.relative_to(SRC.parent)}:{line}"
        if top == "scgi":
            target = rest.partition(".")[0]
            if target not in {"", floor, *allowed}:
                yield f"{where}: {floor} → {target} ({name})"
        elif top not in sys.stdlib_module_names:
            if floor not in THIRD_PARTY.get(top, set()):
                yield f"{where}: {floor} → {top} (third party)"
        elif floor == "protocol" and top in NOT_IN_PROTOCOL:
            yield f"{where}: protocol → {top}"


def test_imports_go_down_only() -> None:
    broken = [edge for file in FILES for edge in broken_edges(file)]
    assert not broken, "imports that go up or sideways:\n" + "\n".join(broken)


def test_every_file_has_its_floor() -> None:
    floors = {floor_of(file) for file in FILES}
    assert floors <= ALLOWED.keys() | FRONT_DOOR


@pytest.mark.parametrize(
    ("floor", "source", "edge"),
    [
        ("net", "from scgi.status import scoreboard", "net → status"),
        ("workers", "def late():\n    import scgi.supervisor.pool", "workers → supervisor"),
        ("apps", "from scgi import config", "apps → config"),
        ("protocol", "from ..net import address", "protocol → net"),
        ("protocol", "import socket", "protocol → socket"),
        ("supervisor", "from scgi.scgi_server import SCGIServer", "supervisor → scgi_server"),
        ("apps", "import click", "apps → click"),
    ],
)
def test_an_edge_that_goes_up_is_named(
    floor: str, source: str, edge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SRC", tmp_path / "scgi")
    file = tmp_path / "scgi" / floor / "part.py"
    file.parent.mkdir(parents=True)
    file.write_text(source)
    assert [edge in broken for broken in broken_edges(file)] == [True]


def test_nothing_beside_scgi_server_hides_the_standard_library() -> None:
    # scgi_server.py is run from inside its folder, which puts that folder first on sys.path.
    names = {entry.name.removesuffix(".py") for entry in SRC.iterdir()}
    assert not names & (sys.stdlib_module_names | THIRD_PARTY.keys())
