"""The application in a chroot jail that holds nothing but itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scgi.errors import ExitCode
from support import Process, free_port, scgi_request, wait_until
from support.identity import needs_root
from support.users import ordinary_user

Serve = Callable[..., Process]
pytestmark = needs_root

APP = '''
import json, os

SEEN = os.listdir("/")

def escape():
    """The ways out that there have been."""
    found = []
    for descriptor in range(1000):
        try:
            os.fchdir(descriptor)
            found.append(os.getcwd())
        except OSError:
            pass
    for _ in range(20):
        os.chdir("..")
    found += [name for name in os.listdir(".") if name not in SEEN]
    try:
        os.mkdir("/data/inner")
        os.chroot("/data/inner")
        found.append("chroot")
    except OSError:
        pass
    return found

def application(environ, start_response):
    if environ["PATH_INFO"] == "/fail":
        return {"a": 1}["a"] + {}["in jail"]["deeper"]  # a traceback whose carets take more modules
    answer = {"seen": SEEN, "escaped": escape(), "uid": os.getuid(), "cwd": os.getcwd(), "version": VERSION}
    answer["body"] = len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]

VERSION = 1
'''


@pytest.fixture
def jail(short_tmp: Path) -> Path:
    jail = short_tmp / "jail"
    (jail / "app").mkdir(parents=True)
    (jail / "data").mkdir()
    (jail / "data").chmod(0o777)
    (jail / "app/app.py").write_text(APP)
    return jail


@pytest.fixture
def options(jail: Path) -> tuple[str, ...]:
    return "--user", "nobody", "--chroot", str(jail), "--chdir", "/app", "app"


def ask(address: str, **request: Any) -> dict[str, Any]:
    return dict(json.loads(scgi_request(address, **request).body))


def test_the_jail_is_all_that_the_application_can_reach(
    serve: Serve, jail: Path, options: Any, short_tmp: Path
) -> None:
    address = f"127.0.0.1:{free_port()}"
    server = serve("--listen", address, *options, address=address)
    found = ask(address)
    assert sorted(found["seen"]) == ["app", "data"]
    assert (found["escaped"], found["uid"], found["cwd"]) == ([], 65534, "/")
    assert len(server.descendants()) >= 2


def test_all_the_servers_own_duties_are_done_from_within(
    serve: Serve, jail: Path, options: Any, short_tmp: Path
) -> None:
    """Large bodies, tracebacks, the access log, reloads good and bad, the end: none needs a file outside."""
    address, access = f"127.0.0.1:{free_port()}", short_tmp / "access.log"
    server = serve("--listen", address, "--access-log", access, *options, address=address)
    assert ask(address, body=b"x" * 300_000)["body"] == 300_000
    assert scgi_request(address, path="/fail").status == 500
    wait_until(lambda: "| KeyError: 'in jail'" in server.log() and '/app/app.py", line' in server.log())
    (jail / "app/app.py").write_text(APP.replace("VERSION = 1", "VERSION = 2"))
    server.signal()
    wait_until(lambda: ask(address)["version"] == 2)
    (jail / "app/app.py").write_text("import nothing_of_that_name\n")
    server.signal()
    wait_until(lambda: "No module named 'nothing_of_that_name'" in server.log())
    assert ask(address)["version"] == 2
    assert re.search(r'"GET /fail \S+" 500 ', access.read_text())
    assert server.stop() == 0
    assert server.log().count("Traceback") == 2


def test_a_unix_socket_outside_leads_inside(serve: Serve, options: Any, short_tmp: Path) -> None:
    socket = f"{short_tmp}/socket"
    server = serve("--listen", socket, *options, address=socket)
    assert ask(socket)["uid"] == 65534
    assert server.stop() == 0
    assert not os.path.exists(socket)


# colorsys is a module that nothing of ours imports, all in one file.


def test_a_module_that_is_only_outside_is_not_there(serve: Serve, jail: Path, options: Any) -> None:
    (jail / "app/app.py").write_text("import colorsys\n" + APP)
    server = serve("--listen", f"127.0.0.1:{free_port()}", *options)
    assert server.wait() == ExitCode.APP_UNLOADABLE
    assert "No module named 'colorsys'" in server.log()


def test_a_library_at_the_same_path_inside_is_found(serve: Serve, jail: Path, options: Any) -> None:
    (jail / "app/app.py").write_text("import colorsys\n" + APP)
    where = [ordinary_user().python, "-c", "import colorsys; print(colorsys.__file__)"]
    library = subprocess.check_output(where, text=True).strip()
    inside = Path(f"{jail}{library}")
    inside.parent.mkdir(parents=True)
    shutil.copy(library, inside)
    address = f"127.0.0.1:{free_port()}"
    serve("--listen", address, *options, address=address)
    assert ask(address)["version"] == 1


def test_a_jail_that_is_not_there_is_said_in_one_line(serve: Serve, short_tmp: Path) -> None:
    server = serve("--user", "nobody", "--chroot", short_tmp / "no", "--chdir", "/app", "app")
    assert server.wait() == ExitCode.CONFIG
    assert server.log().splitlines() == [f"scgi: chroot: there is no folder {short_tmp}/no"]


def test_large_bodies_of_slow_peers_need_no_folder_for_temporary_files(serve: Serve, options: Any, jail: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    serve("--listen", address, "--max-workers", "1", *options, address=address)
    for size in (300_000, 3_000_000):
        assert ask(address, body=b"x" * size)["body"] == size
        assert ask(address, body=b"x" * size, split=[1000, size // 2], pause=1.5)["body"] == size
