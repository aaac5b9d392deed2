"""The application under its own user identity: the real server, started as root or by an ordinary user."""

from __future__ import annotations

import json
import os
import pwd
import resource
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from scgi.errors import ExitCode
from support import Process, free_port, scgi_request, start, wait_until
from support.identity import IS_ROOT, NOBODY, needs_root, status_of

Serve = Callable[..., Process]

APP = '''
import json, os, resource

AT_IMPORT = os.getresuid()

def climb():
    """What this process can do that only root may."""
    ways = {
        "setuid": lambda: os.setuid(0), "setgid": lambda: os.setgid(0), "setgroups": lambda: os.setgroups([0]),
        "chroot": lambda: os.chroot("/"), "chown": lambda: os.chown(__file__, 0, 0),
        "kill": lambda: os.kill(os.getppid(), 0) or os.kill(1, 0), "shadow": lambda: open("/etc/shadow").close(),
    }
    found = []
    for name, way in ways.items():
        try:
            way()
            found.append(name)
        except OSError:
            pass
    return found

def application(environ, start_response):
    with open("/proc/self/status") as file:
        status = {line.split(":")[0]: line.split()[1:] for line in file}
    answer = {
        "at_import": AT_IMPORT, "uid": status["Uid"], "gid": status["Gid"], "groups": status["Groups"],
        "caps": status["CapEff"] + status["CapPrm"], "no_new_privileges": status["NoNewPrivs"],
        "climbed": climb(), "environ": dict(os.environ), "umask": status["Umask"],
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE), "version": VERSION,
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]

VERSION = 1
'''


@pytest.fixture
def app(short_tmp: Path) -> Path:
    file = short_tmp / "app.py"
    file.write_text(APP)
    file.chmod(0o644)
    return file


@pytest.fixture
def socket(short_tmp: Path) -> str:
    return f"{short_tmp}/socket"


def ask(address: str) -> dict[str, Any]:
    return dict(json.loads(scgi_request(address).body))


@needs_root
def test_only_the_users_own_identity_remains_and_the_way_back_is_closed(serve: Serve, app: Path, socket: str) -> None:
    serve("--user", "nobody", "--listen", socket, app, address=socket)
    found = ask(socket)
    uid, gid = NOBODY.pw_uid, NOBODY.pw_gid
    assert found["at_import"] == [uid] * 3
    assert (found["uid"], found["gid"], found["groups"]) == ([str(uid)] * 4, [str(gid)] * 4, [])
    assert found["caps"] == ["0" * 16] * 2
    assert found["no_new_privileges"] == ["1"]
    assert found["climbed"] == []


@needs_root
def test_the_master_alone_stays_root(serve: Serve, app: Path, socket: str) -> None:
    server = serve("--user", "nobody", "--min-workers", "3", "--listen", socket, app, address=socket)
    wait_until(lambda: len(server.descendants()) == 4)
    assert status_of(server.pid)["Uid"].split() == ["0"] * 4
    assert {status_of(pid)["Uid"] for pid in server.descendants()} == {" ".join([str(NOBODY.pw_uid)] * 4)}


@needs_root
def test_the_http_front_is_not_root_either(serve: Serve, app: Path, socket: str) -> None:
    http = f"127.0.0.1:{free_port()}"
    server = serve("--user", "nobody", "--http", http, "--listen", socket, app, address=http)
    with urlopen(f"http://{http}/", timeout=10) as answer:
        assert json.load(answer)["uid"] == [str(NOBODY.pw_uid)] * 4
    assert {status_of(pid)["Uid"].split()[0] for pid in server.descendants()} == {str(NOBODY.pw_uid)}


@needs_root
def test_group_and_groups_are_those_that_were_asked_for(serve: Serve, app: Path, socket: str) -> None:
    identity = ("--user", "nobody", "--group", "daemon", "--groups", "bin", "--groups", "4")
    serve(*identity, "--listen", socket, app, address=socket)
    found = ask(socket)
    assert (found["gid"], found["groups"], found["climbed"]) == (["1"] * 4, ["2", "4"], [])


@needs_root
def test_new_code_gets_no_more_than_the_old(serve: Serve, app: Path, socket: str) -> None:
    server = serve("--user", "nobody", "--listen", socket, app, address=socket)
    assert ask(socket)["version"] == 1
    app.write_text(APP.replace("VERSION = 1", "VERSION = 2"))
    server.signal()
    found = wait_until(lambda: (found := ask(socket))["version"] == 2 and found)
    assert (found["uid"], found["climbed"]) == ([str(NOBODY.pw_uid)] * 4, [])


@needs_root
def test_root_does_not_run_the_application_unless_told_so(serve: Serve, short_tmp: Path, socket: str) -> None:
    app = short_tmp / "marker.py"
    app.write_text("open(__file__ + '.was_run', 'w')\n" + APP)
    server = serve("--listen", socket, app)
    assert server.wait() == ExitCode.CONFIG
    assert "--user NAME" in server.log() and "--allow-root" in server.log()
    assert len(server.log().splitlines()) == 1
    assert not list(short_tmp.glob("*.was_run")) and not os.path.exists(socket)
    serve("--allow-root", "--listen", socket, app, address=socket)
    assert ask(socket)["uid"] == ["0"] * 4


@needs_root
def test_the_articles_own_programs_warn_and_run(tmp_path: Path, short_tmp: Path) -> None:
    port = free_port()
    program = tmp_path / "program.py"
    program.write_text(f"from scgi.scgi_server import SCGIServer\nSCGIServer(port={port}).serve()\n")
    address = f"127.0.0.1:{port}"
    server = start([sys.executable, program], log_file=tmp_path / "log", address=address)
    try:
        assert scgi_request(address).status == 200
        wait_until(lambda: "root" in server.log(), 5, "a warning of root")
        assert server.stop() == 0
    finally:
        server.kill()


@needs_root
def test_a_check_is_made_as_the_user_and_leaves_no_socket_behind(serve: Serve, app: Path, socket: str) -> None:
    app.write_text("import os\nassert os.getuid() != 0\n" + APP)
    server = serve("--check", "--user", "nobody", "--listen", socket, app)
    assert server.wait() == ExitCode.OK, server.log()
    assert not os.path.exists(socket)


@needs_root
def test_a_unix_socket_is_the_users_unless_somebody_else_is_named(serve: Serve, app: Path, short_tmp: Path) -> None:
    for owner, expected in (((), (65534, 65534)), (("--socket-owner", "daemon:www-data"), (1, 33))):
        path = short_tmp / f"socket-{len(owner)}"
        serve("--user", "nobody", *owner, "--listen", path, app, address=str(path))
        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (*expected, 0o660)


@needs_root
def test_logs_are_opened_anew_by_those_who_are_no_longer_root(serve: Serve, app: Path, short_tmp: Path) -> None:
    log, access, socket = (short_tmp / name for name in ("server.log", "access.log", "socket"))
    files = ("--log-file", log, "--access-log", access)
    server = serve("--user", "nobody", *files, "--listen", socket, app, address=str(socket))
    ask(str(socket))
    wait_until(lambda: access.read_text().count("\n") == 1)
    for file in (log, access):
        file.rename(f"{file}.1")
    server.signal(signal.SIGUSR1)
    wait_until(lambda: log.exists() and access.exists())
    wait_until(lambda: [ask(str(socket)), access.read_text()][1], what="a worker's line in the new file")
    assert access.stat().st_uid == log.stat().st_uid == NOBODY.pw_uid
    assert log.stat().st_mode & 0o777 == 0o640


LIMITS = ("--rlimit", "nofile=100:200", "--umask", "027", "--clear-env", "--env", "COLOUR=blue", "--no-new-privileges")


@pytest.mark.parametrize("user", [("--user", "nobody") if IS_ROOT else ()])
@pytest.mark.parametrize(
    "as_nobody", [True, *([False] if IS_ROOT else [])], ids=lambda it: "ordinary" if it else "root"
)
def test_limits_umask_and_environment_are_what_was_asked_for(
    serve: Serve, app: Path, short_tmp: Path, as_nobody: bool, user: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "of whoever starts the server")
    short_tmp.chmod(0o777)
    socket = f"{short_tmp}/socket"
    serve(*user, *LIMITS, "--listen", socket, app, as_nobody=as_nobody, address=socket)
    found = ask(socket)
    me = pwd.getpwuid(NOBODY.pw_uid if IS_ROOT else os.getuid())
    assert found["nofile"] == [100, 200]
    assert found["umask"] == ["0027"]
    assert found["no_new_privileges"] == ["1"]
    environ = found["environ"]
    assert environ["COLOUR"] == "blue" and environ["PATH"] == os.environ["PATH"]
    assert not {name for name in environ if name.startswith(("SCGI_", "SECRET", "PYTHON", "COVERAGE"))}
    if user:
        assert (environ["USER"], environ["HOME"]) == (me.pw_name, me.pw_dir)


def test_an_ordinary_user_is_told_what_only_root_can_do(serve: Serve, app: Path, short_tmp: Path) -> None:
    short_tmp.chmod(0o777)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for options, said in (
        (("--user", "root"), "user: only root can run the application as another user"),
        (("--groups", "daemon"), "group: only root can"),
        (("--chroot", "/tmp"), "chroot: only root can"),
        (("--rlimit", f"nofile={most + 1}"), "rlimit: only root can raise nofile"),
        (("--socket-owner", "root"), "not permitted; only root can"),
    ):
        server = serve(*options, "--listen", f"{short_tmp}/refused", app, as_nobody=True)
        assert server.wait() in (ExitCode.CONFIG, ExitCode.BOOT_FAILED)
        assert said in server.log()
        assert len(server.log().splitlines()) == 1, server.log()
        assert not os.path.exists(f"{short_tmp}/refused")


@needs_root
def test_a_drop_that_the_kernel_refuses_ends_the_start(serve: Serve, app: Path, socket: str) -> None:
    server = serve("--user", "nobody", "--rlimit", "nofile=unlimited", "--listen", socket, app)
    assert server.wait() == ExitCode.CONFIG
    assert "cannot set the limits: nofile cannot be unlimited" in server.log()
