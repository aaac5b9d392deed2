"""The servers that speak SCGI, ours and its peers: one process each unless a scenario says more, no log of requests."""

from __future__ import annotations

import platform
import shutil
import subprocess
from functools import cache
from importlib.metadata import PathDistribution
from pathlib import Path

from bench.plan import HERE, Plan
from bench.servers import Server, free_port


def address(plan: Plan, name: str, tcp: bool = False) -> str:
    """Where a server is to listen: a socket in the plan's folder, or a free port."""
    return free_port() if tcp else str(plan.folder / f"{name.replace(' ', '-')}.sock")


def ours(plan: Plan, name: str = "scgi", *options: str, tcp: bool = False, app: str = "hello.py") -> Server:
    """`scgi serve` with its default settings, but for the options."""
    where = address(plan, name, tcp)
    command = [plan.python, "-m", "scgi", "serve", "--listen", where, *plan.serve_options, *options, app]
    return Server(name, command, where, version=f"Python {platform.python_version()}", ours=True)


def uwsgi(
    plan: Plan, *options: str, tcp: bool = False, app: str = "hello.py", processes: int = 1, name: str = "uWSGI",
    socket: str = "--scgi-socket",
) -> Server:  # fmt: skip
    where = address(plan, name, tcp)
    command, release, python = uwsgi_program(plan.python)
    arguments = [socket, where, "--wsgi-file", app, "--master", "--processes", str(processes), "--disable-logging"]
    protocol = {"--scgi-socket": "scgi", "--http-socket": "http"}.get(socket, "none")
    version = f"{release}, Python {python}" if python else ""
    return Server(name, [*command, *arguments, *options], where, version=version, protocol=protocol)


@cache
def uwsgi_program(python: str) -> tuple[tuple[str, ...], str, str]:
    """uWSGI's command, its version, and that of the Python inside it: this very Python if there is one, else any."""
    found: dict[str, tuple[str, ...]] = {}
    for program in (Path(python).parent / "uwsgi", shutil.which("uwsgi"), shutil.which("uwsgi-core")):
        if program is None or not Path(program).exists():
            continue
        for plugin in ((), ("--plugin", "python3")):
            said = _said(str(program), *plugin, "--python-version")
            if said[:1].isdigit():
                found.setdefault(said, (str(program), *plugin))
    if not found:
        return ("uwsgi",), "", ""  # which does not start, and is named as missing
    inside = platform.python_version() if platform.python_version() in found else next(iter(found))
    return found[inside], _said(found[inside][0], "--version"), inside


def comparable(plan: Plan) -> list[str]:
    """Nothing, or why a comparison with uWSGI is not fair."""
    inside = uwsgi_program(plan.python)[2]
    if inside in ("", platform.python_version()):
        return []
    return [f"NOT COMPARABLE: uWSGI runs Python {inside}, scgi {platform.python_version()}"]


def floor(plan: Plan, tcp: bool = False, size: int | None = None) -> Server:
    """The least that a server can do."""
    where = address(plan, "floor" if size is None else f"floor {size}", tcp)
    command = [str(plan.floor), where, *([] if size is None else [str(size)])]
    return Server("floor", command, where, version="floor.c")


def reference(plan: Plan) -> Server:
    where = address(plan, "reference", tcp=True)  # it knows no other
    return _python_peer(plan, "reference", "scgi", where, "peer_reference.py", *where.split(":"))


def flup(plan: Plan) -> Server:
    where = address(plan, "flup", tcp=True)
    return _python_peer(plan, "flup", "flup", where, "peer_flup.py", *where.split(":"))


def aioscgi(plan: Plan, tcp: bool = False) -> Server:
    where = address(plan, "aioscgi", tcp)
    place = ["--tcp" if tcp else "--unix-socket", where]
    server = _python_peer(plan, "aioscgi", "aioscgi", where, str(plan.peers / "aioscgi"), *place, "hello:asgi")
    server.env["PYTHONPATH"] = str(HERE)  # a program looks for modules beside itself, not where it is started
    return server


def _python_peer(plan: Plan, name: str, package: str, where: str, *arguments: str) -> Server:
    """A server that runs by the Python of the peers' environment."""
    version = installed(plan, package)
    missing = "" if version else f"{package} is not installed in {plan.peers.parent.name}"
    return Server(name, [str(plan.peers / "python"), *arguments], where, version=version, missing=missing, every=5)


def installed(plan: Plan, package: str) -> str:
    """The version of a package among the peers; "" if it is not there."""
    for folder in plan.peers.parent.glob(f"lib/python*/site-packages/{package.replace('-', '_')}-*.dist-info"):
        return f"{package} {PathDistribution(folder).version}"
    return ""


def _said(*command: str) -> str:
    """The last word that a command prints; "" if it cannot be run."""
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.split()
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said[-1] if said else ""
