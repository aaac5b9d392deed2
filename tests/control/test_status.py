"""`scgi status` with real servers: what it says is so, and it says it whatever the workers are doing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from scgi.client.control import ask
from support import build_request, free_port, is_alive, resident_bytes, scgi_request, wait_until
from support.load import ECHO, Load
from support.room import room
from support.users import ordinary_user


def workers_of(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The workers of all generations."""
    return [worker for generation in status["generations"] for worker in generation["workers"]]


@pytest.fixture(params=["tcp", "unix"])
def listen(request: pytest.FixtureRequest, short_tmp: Path) -> str:
    return f"unix:{short_tmp}/s" if request.param == "unix" else f"127.0.0.1:{free_port()}"


def test_an_idle_server_is_described_as_it_is(site, listen: str) -> None:
    server = site.serve("--min-workers", "2", "--max-workers", "5", "--backlog", "77", listen=listen)
    wait_until(lambda: [w["state"] for w in workers_of(site.status(server))] == ["idle", "idle"])
    found = json.loads(site.scgi("status", server.address, "--json").stdout)
    assert (found["pid"], found["phase"], found["http"]) == (server.pid, "serving", None)
    assert 0 < found["uptime"] < 60
    assert found["listeners"] == [{"address": listen, "queue": 0, "backlog": 77}]
    assert set(found["counters"]) == {
        "requests", "reloads", "reloads_failed", "deaths", "refused_peers", "lost_lines",
    }  # fmt: skip
    assert not any(found["counters"].values())
    (generation,) = found["generations"]
    assert (generation["number"], generation["state"]) == (1, "serving")
    assert generation["pid"] in server.children()
    for worker in generation["workers"]:
        assert is_alive(worker["pid"]) and worker["pid"] in server.descendants()
        assert (worker["requests"], worker["current"]) == (0, [])
        assert worker["memory"] == pytest.approx(resident_bytes(worker["pid"]), rel=0.2)
        assert 0 <= worker["cpu"] < 5 and 0 < worker["age"] <= found["uptime"]


def test_it_answers_while_every_worker_is_stuck_and_says_with_what_and_who_waits(site, listen: str) -> None:
    server = site.serve("--min-workers", "2", "--max-workers", "2", listen=listen)
    answers = site.ask(server, "/wait", count=5)
    wait_until(lambda: site.status(server)["listeners"][0]["queue"] == 3, 10, "three in the queue")
    began = time.monotonic()
    found = site.status(server)
    assert time.monotonic() - began < 1
    assert [worker["state"] for worker in workers_of(found)] == ["running", "running"]
    for worker in workers_of(found):
        (current,) = worker["current"]
        assert (current["request"], current["id"]) == ("GET /wait", f"{worker['pid']}-1")
        assert 0 < current["age"] <= worker["age"] and worker["requests"] == 0
    later = site.status(server)
    assert workers_of(later)[0]["current"][0]["age"] > workers_of(found)[0]["current"][0]["age"]
    table = site.scgi("status", server.address).stdout
    assert f"{listen}: 3 waiting, room for 2048" in table and table.count("running") == 2
    assert table.count("GET /wait for ") == 2
    site.open_gate()
    assert [answer.status for answer in answers] == [200] * 5
    wait_until(lambda: site.status(server)["counters"]["requests"] == 5)


def test_even_when_the_pool_is_stopped_it_answers(site) -> None:
    server = site.serve()
    (pool,) = server.children()
    os.kill(pool, signal.SIGSTOP)
    try:
        assert site.status(server)["generations"][0]["pid"] == pool
    finally:
        os.kill(pool, signal.SIGCONT)


@pytest.mark.parametrize("threads", [1, 3])
def test_its_figures_are_those_of_the_load_generator(site, listen: str, threads: int) -> None:
    server = site.serve("--min-workers", "2", "--max-workers", "4", "--threads", str(threads), app=ECHO, listen=listen)
    with Load(server.address, clients=16) as load:
        load.wait_for_more(3000)
        before, found, after = load.answered, site.status(server), load.answered
        # What a worker has sent a moment ago, the load generator may not have read yet; each thread may be one off.
        in_rows = sum(worker["requests"] for worker in workers_of(found))
        for figure in (found["counters"]["requests"], in_rows):
            assert before - 4 * threads <= figure <= after + 16 + 4 * threads
    assert not load.report.lost
    wait_until(lambda: site.status(server)["counters"]["requests"] == load.report.answered)
    found = site.status(server)
    by_worker = {worker["pid"]: worker["requests"] for worker in workers_of(found) if worker["requests"]}
    assert by_worker == load.report.processes
    assert sum(worker["cpu"] for worker in workers_of(found)) > 0.03


def test_what_was_answered_is_not_forgotten_when_workers_die_and_generations_go(site) -> None:
    server = site.serve("--min-workers", "2", "--max-workers", "2", app=ECHO)
    for _ in range(2):
        with Load(server.address, clients=4, total=100) as load:
            load.wait()
        assert load.report.answered == 100
        assert site.scgi("reload", server.address).returncode == 0
    (victim, _) = workers_of(wait_until(lambda: one_generation(site.status(server))))
    os.kill(victim["pid"], signal.SIGKILL)
    wait_until(lambda: site.status(server)["counters"]["deaths"] == 1)
    counters = site.status(server)["counters"]
    assert {name: count for name, count in counters.items() if count} == {"requests": 200, "reloads": 2, "deaths": 1}


def one_generation(status: dict[str, Any]) -> dict[str, Any] | None:
    """The status, once the generations before are gone and there are two workers."""
    return status if len(status["generations"]) == 1 and len(workers_of(status)) == 2 else None


def test_clients_that_are_stuck_in_any_way_hold_up_nobody(site) -> None:
    server = site.serve()
    path = site.control(server)
    with ExitStack() as opened:
        for said in [b"", b'{"order": ', b'{"order": "status"}\n' * 3] * 20:
            sock = opened.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(5)
            sock.connect(str(path))
            sock.sendall(said)
        began = time.monotonic()
        assert site.status(server)["phase"] == "serving"
        assert scgi_request(server.address).status == 200
        assert time.monotonic() - began < 3


def test_a_request_that_means_to_harm_the_terminal_cannot(site) -> None:
    server = site.serve()
    site.ask(server, "/wait")
    site.ask(server, "/wait")
    evil = {"REQUEST_URI": "/\x1b[2J\x9b31m\n  1  idle", "PATH_INFO": "/wait"}
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", int(server.address.rpartition(":")[2])))
        sock.sendall(build_request(evil))
        table = wait_until(lambda: (t := site.scgi("status", server.address).stdout).count("GET /") == 3 and t)
        assert "GET /\\x1b[2J\\x9b31m\\n  1  idle for " in table and "\x1b" not in table
        site.open_gate()
        assert sock.recv(100).startswith(b"Status: 200")


# Which server.


def test_the_only_server_needs_no_address_and_several_are_named(site) -> None:
    first = site.serve()
    assert json.loads(site.scgi("status", "--json", only_here=True).stdout)["pid"] == first.pid
    second = site.serve()
    done = site.scgi("status", only_here=True)
    both = ", ".join(sorted([first.address, second.address]))
    assert done.stderr == f"scgi: there are 2 servers; name one by its first address: {both}\n"
    assert (done.returncode, done.stdout) == (1, "")
    assert site.status(second)["pid"] == second.pid
    port = second.address.rpartition(":")[2]
    assert json.loads(site.scgi("status", "--json", f"localhost:{port}").stdout)["pid"] == second.pid


def test_an_address_that_no_server_has_is_answered_with_those_there_are(site) -> None:
    server = site.serve()
    done = site.scgi("status", "127.0.0.1:1", only_here=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"scgi: no server was found whose first address is 127.0.0.1:1; there are: {server.address}\n"


def test_a_servers_own_variables_name_it_and_the_command_line_is_stronger(site) -> None:
    first, second = site.serve(), site.serve()
    path = str(site.control(first))

    def found(*words: str, **environ: str) -> int:
        pid: int = json.loads(site.scgi("status", "--json", *words, **environ).stdout)["pid"]
        return pid

    assert found(SCGI_LISTEN=f"{second.address} 127.0.0.1:1") == second.pid
    assert found(SCGI_CONTROL=path) == first.pid
    assert found(second.address, SCGI_CONTROL=path, SCGI_LISTEN="127.0.0.1:1") == second.pid
    assert found("--control", path, SCGI_LISTEN=second.address) == first.pid


# Where the control socket is.


def test_a_control_socket_at_a_path_is_there_for_as_long_as_the_server_and_for_its_user_alone(site) -> None:
    path = site.folder / "c"
    server = site.serve("--control", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert site.scgi("status", "--control", path).returncode == 0
    assert not (site.folder / "run" / "scgi").exists()
    server.stop()
    assert not path.exists()
    gone = site.scgi("status", "--control", path)
    assert (gone.returncode, gone.stderr) == (1, f"scgi: no server listens at {path}\n")


def test_a_second_server_with_the_same_control_socket_ends_and_harms_nothing(site, launch) -> None:
    path = site.folder / "c"
    site.serve("--control", str(path))
    second = launch("-m", "scgi", "serve", "--listen", "127.0.0.1:0", "--control", str(path), str(site.app))
    assert second.wait(5) == 3
    assert "a live server listens there already" in second.log().splitlines()[-1]
    assert site.scgi("status", "--control", path).returncode == 0


def test_without_a_control_socket_the_server_serves_and_is_not_found(site) -> None:
    server = site.serve("--control", "none")
    assert scgi_request(server.address).status == 200
    assert "no server was found" in site.scgi("status", server.address, only_here=True).stderr


def test_another_user_is_told_that_it_may_not_ask(site) -> None:
    person = ordinary_user()
    if person.uid == os.geteuid():
        pytest.skip("only root can become another user")
    path = site.folder / "c"
    site.serve("--control", str(path))
    site.folder.chmod(0o755)
    done = subprocess.run(
        [person.python, "-m", "scgi", "stop", "--control", path],
        env={"PATH": os.environ["PATH"], **person.install(site.folder / "packages")},
        user=person.uid,
        group=person.gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"scgi: {path}: only root and the user who runs the server may give it orders\n"


@pytest.mark.parametrize("as_root", [True, False] if os.geteuid() == 0 else [False])
def test_who_runs_the_server_may_ask_and_so_may_root(as_root: bool) -> None:
    with room(as_root=as_root, unix=True) as theirs:
        server = theirs.serve("app.py")
        asking = theirs.run("status", "--json", server.address)
        assert asking.wait() == 0 and json.loads(asking.log())["pid"] == server.pid
        (path,) = (theirs.folder / "run").iterdir()
        assert path.stat().st_uid == (0 if as_root else theirs.person.uid)
        assert next(iter(ask(path, "status")))["status"]["pid"] == server.pid  # it is we who ask now
        stopping = theirs.run("stop", server.address)
        assert stopping.wait() == 0 and server.wait(1) == 0
        assert not path.exists()


def test_without_a_place_for_a_control_socket_the_server_warns_and_serves() -> None:
    with room(as_root=False, unix=False) as theirs:
        server = theirs.start("app.py", env={"RUNTIME_DIRECTORY": "", "XDG_RUNTIME_DIR": ""})
        assert scgi_request(server.address, query="1-1").status == 200
        (warning,) = [line for line in server.log().splitlines() if "WARNING" in line]
        assert "XDG_RUNTIME_DIR is not set, and only root has /run/scgi" in warning and "--control PATH" in warning


def test_no_child_keeps_the_control_socket_or_a_connection_to_it(site) -> None:
    server = site.serve("--min-workers", "2")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(site.control(server)))
        assert site.scgi("reload", server.address).returncode == 0
        wait_until(lambda: one_generation(site.status(server)))
        table = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        inodes = {f"socket:[{row[6]}]" for row in table if row[-1] == str(site.control(server))}
        assert inodes & open_files(server.pid) and len(inodes) == 2
        assert len(server.descendants()) == 3
        assert not [pid for pid in server.descendants() if inodes & open_files(pid)]


def open_files(pid: int) -> set[str]:
    return {os.readlink(descriptor) for descriptor in Path(f"/proc/{pid}/fd").iterdir()}
