"""Generations of a real server: new code comes in beside the old, broken code does not, dead pools are replaced."""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import Serve
from pool.crowd import Crowd, ask, at_once, begun, dozing, rest_of
from scgi.client.control import ask as ask_control
from support import Process, is_alive, is_listening, scgi_request, wait_until
from support.processes import children_of, title_of

APP = """
import os, signal, sys, time
VERSION = {version!r}
def application(environ, start_response):
    page, _, argument = environ["PATH_INFO"].strip("/").partition("/")
    if page in ("doze", "deaf"):
        print("dozing:", os.getpid(), file=sys.stderr)
    if page == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if argument:
        time.sleep(float(argument))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid() if page == "pid" else VERSION).encode()]
"""

HANDLER = """
from scgi.scgi_server import SCGIHandler
class Handler(SCGIHandler):
    def __init__(self, parent_fd):
        super().__init__(parent_fd)
        {start}
    def produce(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\\n\\n{version}")
"""

# New code, and what the log says of it: the reason in the line, and the code's own words.
BROKEN = {
    "has a syntax error": ("def application(:\n", "cannot be imported: SyntaxError", "def application(:"),
    "imports what is not there": ("import no_such_module\n", "No module named 'no_such_module'", "line 1, in <module>"),
    "raises": ("raise RuntimeError('no database')\n", "RuntimeError: no database", "line 1, in <module>"),
    "exits": ("import sys\nsys.exit('not today')\n", "not today", ""),
    "hangs": ("import time\ntime.sleep(60)\n", "not ready within 1 s", "line 2 in <module>"),
    "leaves without a word": ("import os\nos._exit(0)\n", "exited with status 0", ""),
    "crashes": ("import ctypes\nctypes.string_at(0)\n", "killed by SIGSEGV", "line 2 in <module>"),
    "has no application": ("x = 1\n", "application", ""),
    "fails its probe": ("application = lambda environ, start_response: 1 / 0\n", "with 500", "ZeroDivisionError"),
    "dies of its probe": ("import os\napplication = lambda *_: os._exit(5)\n", "status 5", ""),
    "does not answer its probe": ("import time\napplication = lambda *_: time.sleep(60)\n", "", ""),
}


class Site:
    """A server whose application is a file that changes."""

    def __init__(self, scgi_serve: Serve, folder: Path, *options: str) -> None:
        self.app = folder / "app.py"
        self.write(APP.format(version="one"))
        self.control = folder / "control"
        self.server: Process = scgi_serve(self.app, *options, "--control", str(self.control))
        self.address = self.server.address
        wait_until(lambda: "generation 1 serves" in self.server.log())

    def write(self, code: str) -> None:
        self.app.write_text(code)

    def version(self) -> str:
        return scgi_request(self.address).text

    def reload(self, generation: int, outcome: str = "serves") -> None:
        """HUP, and wait for what becomes of it."""
        self.server.signal(signal.SIGHUP)
        self.said(f"generation {generation} serves" if outcome == "serves" else outcome)

    def comes_to(self, version: str) -> None:
        """Soon this version answers; a worker of the old code may have been the quickest once more."""
        wait_until(lambda: self.version() == version, 2, f"version {version}")

    def said(self, pattern: str, within: float = 10) -> str:
        """The line of the log that has this, once there is one."""
        line = re.compile(f".*{pattern}.*")
        return str(wait_until(lambda: line.search(self.server.log()), within, f"{pattern} in the log")[0])

    def generations(self) -> list[str]:
        """The numbers of the pools that there are."""
        titles = map(title_of, self.server.pools())
        return [found[1] for title in titles if (found := re.search(r"generation (\d+)", title))]


Open = Callable[..., Site]


@pytest.fixture
def site(scgi_serve: Serve, tmp_path: Path) -> Open:
    return lambda *options: Site(scgi_serve, tmp_path, *options)


def test_a_reload_serves_new_code_and_the_old_generation_ends(site: Open) -> None:
    here = site("--max-workers", "2")
    for number, version in enumerate(["two", "three"], 2):
        here.write(APP.format(version=version))
        here.reload(number)
        here.comes_to(version)
        here.said(f"generation {number - 1} has ended")
    assert here.generations() == ["3"]
    assert "ERROR" not in here.server.log()


def test_a_reload_serves_a_new_class_too(scgi_serve: Serve, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(HANDLER.format(start="pass", version="one"))
    server = scgi_serve(app)
    assert scgi_request(server.address).text == "one"
    app.write_text(HANDLER.format(start="pass", version="two"))
    server.signal(signal.SIGHUP)
    wait_until(lambda: scgi_request(server.address).text == "two")


@pytest.mark.parametrize("way", list(BROKEN))
def test_new_code_that_is_broken_leaves_the_old_code_serving_and_says_why(site: Open, way: str) -> None:
    code, reason, words = BROKEN[way]
    here = site("--start-timeout", "1", "--probe", "/probe", "--max-workers", "3", "--min-workers", "2")
    before = here.server.workers()
    with Crowd(here.address, size=4, path="/") as crowd:
        here.write(code)
        here.reload(2, "reload failed: generation 2: ")
        line = here.said("reload failed")
        assert reason in line and "generation 1 serves on" in line
        assert words in here.server.log()
        here.said("generation 2 has ended")
        answered = crowd.answered
        wait_until(lambda: crowd.answered > answered + 20)
    assert crowd.lost == [] and crowd.refused == 0
    assert set(before) <= set(here.server.workers()), "no worker of the old code has gone"
    assert here.version() == "one"
    here.write(APP.format(version="three"))
    here.reload(3)
    here.comes_to("three")


def test_a_handler_that_cannot_be_made_in_the_new_code_leaves_the_old_code_serving(
    scgi_serve: Serve, tmp_path: Path
) -> None:
    app = tmp_path / "app.py"
    app.write_text(HANDLER.format(start="pass", version="one"))
    server = scgi_serve(app)
    wait_until(lambda: "generation 1 serves" in server.log())
    app.write_text(HANDLER.format(start="raise OSError('no database')", version="two"))
    server.signal(signal.SIGHUP)
    wait_until(lambda: "reload failed: generation 2: the first worker could not start" in server.log())
    assert "OSError: no database" in server.log()
    assert scgi_request(server.address).text == "one"
    wait_until(lambda: len(server.pools()) == 1 and len(server.workers()) == 1)


def test_the_old_generation_s_long_request_is_finished_while_the_new_one_serves(site: Open) -> None:
    here = site("--max-workers", "2")
    with begun(here.address, "/doze/2") as peer:
        old = dozing(here.server)
        here.write(APP.format(version="two"))
        here.reload(2)
        here.comes_to("two")
        assert old in here.server.workers()
        assert rest_of(peer).text == "one"
    here.said("generation 1 has ended")


def test_at_most_two_generations_live_and_wishes_that_come_meanwhile_are_one(site: Open) -> None:
    here = site("--max-workers", "2")
    with begun(here.address, "/doze/2") as peer:
        dozing(here.server)
        here.reload(2)
        for number in range(5):
            here.server.signal(signal.SIGHUP)
            assert here.version() == "one", number
            assert here.generations() == ["1", "2"]
        assert "generation 1 still finishes what 1 worker" in here.said("the reload waits")
        assert rest_of(peer).status == 200
    here.said("generation 3 serves")
    here.said("generation 2 has ended")
    assert here.version() == "one"
    assert here.generations() == ["3"]
    assert here.server.log().count("the reload waits") == 1


def test_a_hundred_hups_in_a_second_under_load_lose_nothing_and_never_make_a_third_generation(site: Open) -> None:
    here = site("--max-workers", "3", "--min-workers", "2")
    with Crowd(here.address, size=6, path="/") as crowd:
        for number in range(1, 101):
            here.server.signal(signal.SIGHUP)
            assert len(here.server.pools()) <= 2
            wait_until(lambda number=number: crowd.answered > number)
        here.write(APP.format(version="two"))
        last = int(here.generations()[-1])
        here.server.signal(signal.SIGHUP)
        wait_until(lambda: int((here.generations() or ["0"])[-1]) > last and here.version() == "two")
        wait_until(lambda: len(here.server.pools()) == 1)
    assert crowd.lost == [] and crowd.refused == 0
    assert "ERROR" not in here.server.log()
    assert here.server.stop() == 0


def test_a_reload_begins_with_as_many_workers_as_there_were(site: Open) -> None:
    here = site("--max-workers", "4", "--min-workers", "1", "--idle-timeout", "30")
    at_once(here.address, 4, "/sleep/0.3")
    assert len(here.server.workers()) == 4
    [old] = here.server.pools()
    here.reload(2)
    counts: list[int] = []

    def handed_over() -> bool:
        counts.append(len(here.server.workers()))
        return here.server.pools() != [old] and len(here.server.pools()) == 1

    wait_until(handed_over)
    assert min(counts) >= 4, "fewer than before while one hands over to the other"
    assert len(here.server.workers()) == 4


def test_an_import_that_leaves_something_open_is_told_what_it_is(site: Open) -> None:
    here = site()
    kept = "import socket\nkept = socket.create_server(('127.0.0.1', 0))\n"
    here.write(kept + APP.format(version="two"))
    here.reload(2)
    assert "socket" in here.said("WARNING.*left open what workers cannot share")
    here.comes_to("two")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV])
def test_a_pool_that_is_killed_is_replaced_within_a_second_and_its_workers_finish(site: Open, how: int) -> None:
    here = site("--max-workers", "2")
    with begun(here.address, "/doze/1.5") as peer:
        old = dozing(here.server)
        [pool] = here.server.pools()
        os.kill(pool, how)
        killed = time.monotonic()
        pid = ask(here.address, "/pid").text
        assert time.monotonic() - killed < 1
        wait_until(lambda: not is_alive(pool))
        assert int(pid) != old
        assert rest_of(peer).text == "one"
    wait_until(lambda: old not in here.server.workers())
    assert "ERROR" in here.said(f"pool {pool} of generation 1 ")
    assert here.generations() == ["2"]


def test_term_to_a_pool_from_outside_interrupts_nothing(site: Open) -> None:
    here = site("--max-workers", "2")
    with begun(here.address, "/doze/1.5") as peer:
        dozing(here.server)
        os.kill(here.server.pools()[0], signal.SIGTERM)
        told = time.monotonic()
        for _ in range(20):
            assert here.version() == "one"
        assert time.monotonic() - told < 1
        assert rest_of(peer).text == "one"
    assert here.server.stop() == 0


def test_a_pool_that_is_killed_again_and_again_costs_no_request(site: Open) -> None:
    here = site("--max-workers", "3", "--min-workers", "2")
    with Crowd(here.address, size=6, path="/") as crowd:
        for kills in range(1, 6):
            answered = crowd.answered
            wait_until(lambda answered=answered: crowd.answered > answered + 30 and len(here.server.workers()) >= 2)
            os.kill(here.server.pools()[-1], signal.SIGKILL)
            here.said(f"generation {kills + 1} serves")
    assert crowd.lost == [] and crowd.refused == 0


def test_new_code_that_is_broken_when_the_pool_dies_is_tried_again_until_it_is_mended(site: Open) -> None:
    here = site("--max-workers", "1")
    here.write("raise RuntimeError('no database')\n")
    os.kill(here.server.pools()[0], signal.SIGKILL)
    here.said(r"RuntimeError: no database; trying again in 0\.\d s")
    with begun(here.address, "/pid") as waiting:
        here.said(r"generation 3: .*; trying again in")
        here.write(APP.format(version="mended"))
        assert rest_of(waiting).status == 200
    assert here.version() == "mended"


def test_a_worker_that_outlives_its_pool_and_dies_is_mourned_and_counted(site: Open) -> None:
    here = site("--max-workers", "2")
    with begun(here.address, "/doze/20") as peer:
        worker = dozing(here.server)
        os.kill(here.server.pools()[0], signal.SIGKILL)
        here.said("generation 2 serves")
        os.kill(worker, signal.SIGKILL)
        assert peer.recv(1000) == b""
    line = here.said(f"worker {worker} killed by SIGKILL")
    assert "ERROR" in line and "while answering GET /doze/20 (request " in line
    status = next(iter(ask_control(here.control, "status", 10)))["status"]
    assert status["counters"]["deaths"] == 1


@pytest.mark.parametrize("seconds", ["0", "30"], ids=["idle", "busy"])
def test_a_worker_that_outlives_its_pool_and_is_deaf_to_term_ends_at_the_graceful_timeout(
    site: Open, seconds: str
) -> None:
    here = site("--max-workers", "2", "--graceful-timeout", "1.5")
    with begun(here.address, f"/deaf/{seconds}") as peer:
        worker = dozing(here.server)
        if seconds == "0":
            assert rest_of(peer).text == "one"
        here.write(APP.format(version="two"))
        os.kill(here.server.pools()[0], signal.SIGKILL)
        here.said("generation 2 serves")
        wait_until(lambda: not is_alive(worker), 5, "the deaf worker to be gone")
    assert {here.version() for _ in range(10)} == {"two"}


def test_what_an_import_forks_keeps_no_address_and_holds_up_no_end(site: Open, tmp_path: Path) -> None:
    here = site()
    helper = (
        f"import os, time\nif not os.fork():\n    open({str(tmp_path / 'helper')!r}, 'w').write(str(os.getpid()))\n"
    )
    here.write(f"{helper}    time.sleep(60)\n    os._exit(0)\n{APP.format(version='two')}")
    here.reload(2)
    pid = int(wait_until((tmp_path / "helper").read_text))
    try:
        here.comes_to("two")
        here.said("generation 1 has ended")
        assert here.server.stop() == 0
        assert is_alive(pid) and not is_listening(here.address)
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def stopped() -> Iterator[Callable[[int], None]]:
    with ExitStack() as stack:

        def stop(pid: int) -> None:
            os.kill(pid, signal.SIGSTOP)
            stack.callback(lambda: is_alive(pid) and os.kill(pid, signal.SIGCONT))

        yield stop


def test_a_pool_that_shows_no_sign_of_life_is_replaced_and_costs_no_request(
    site: Open, stopped: Callable[[int], None]
) -> None:
    here = site("--max-workers", "3", "--min-workers", "2")
    [pool] = here.server.pools()
    with Crowd(here.address, size=4, path="/") as crowd:
        wait_until(lambda: crowd.answered > 30)
        stopped(pool)
        began = time.monotonic()
        here.said(f"pool {pool} of generation 1 has shown no sign of life for 5 s", within=15)
        here.said("generation 2 serves")
        wait_until(lambda: not is_alive(pool))
        assert 4 < time.monotonic() - began < 9
        answered = crowd.answered
        wait_until(lambda: crowd.answered > answered + 30)
    assert crowd.lost == [] and crowd.refused == 0
    wait_until(lambda: here.generations() == ["2"] and len(here.server.workers()) <= 3)


def test_a_generation_that_is_stopped_while_it_loads_fails_at_the_start_timeout(
    site: Open, stopped: Callable[[int], None]
) -> None:
    here = site("--start-timeout", "2")
    here.write("import time\ntime.sleep(1)\n" + APP.format(version="two"))
    here.server.signal(signal.SIGHUP)
    loading = wait_until(lambda: [pool for pool in here.server.pools() if title_of(pool).endswith("loading")])[0]
    stopped(loading)
    assert "not ready within 2 s" in here.said("reload failed")
    wait_until(lambda: not is_alive(loading))
    assert here.version() == "one"


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_stop_while_new_code_is_loaded_ends_both_generations(site: Open, name: str) -> None:
    here = site("--max-workers", "2")
    here.write("import time\ntime.sleep(60)\n")
    here.server.signal(signal.SIGHUP)
    wait_until(lambda: len(here.server.pools()) == 2)
    with begun(here.address, "/doze/0.2") as peer:
        dozing(here.server)
        here.server.signal(signal.Signals[f"SIG{name}"])
        if name == "TERM":
            assert rest_of(peer).text == "one"
        assert here.server.wait() == 0
    here.server.assert_nothing_left()


def test_a_stop_while_the_old_generation_finishes_waits_for_both(site: Open) -> None:
    here = site("--max-workers", "2")
    with begun(here.address, "/doze/1.5") as first:
        dozing(here.server)
        here.write(APP.format(version="two"))
        here.reload(2)
        here.comes_to("two")
        with begun(here.address, "/sleep/0.7") as second:
            here.server.signal(signal.SIGTERM)
            assert (rest_of(first).text, rest_of(second).text) == ("one", "two")
    assert here.server.wait() == 0


def test_at_a_stop_nobody_is_answered_by_code_that_was_replaced(site: Open) -> None:
    here = site("--max-workers", "2")
    with begun(here.address, "/doze/1.5"):
        dozing(here.server)
        old = here.server.workers()
        here.write(APP.format(version="two"))
        here.reload(2)
        here.comes_to("two")
        [new] = set(here.server.workers()) - set(old)
        os.kill(new, signal.SIGSTOP)
        with begun(here.address, "/version") as late:
            here.server.signal(signal.SIGTERM)
            wait_until(lambda: here.server.log().count("pool: stopping") == 2, 5)
            assert not select.select([late], [], [], 0.3)[0]  # the old pool does not fork for it
            os.kill(new, signal.SIGCONT)
            assert rest_of(late).text == "two"
    assert here.server.wait() == 0


def test_the_master_never_imports_the_application_and_children_have_names(site: Open) -> None:
    here = site("--max-workers", "1")
    assert str(here.app) not in Path(f"/proc/{here.server.pid}/maps").read_text()
    [pool] = here.server.pools()
    [worker] = here.server.workers()
    assert title_of(here.server.pid) == f"scgi: master, {here.address}"
    assert (title_of(pool), title_of(worker)) == ("scgi: pool, generation 1", "scgi: worker, generation 1")
    assert children_of(pool) == [worker]


# Code that knows the link and means ill.
HOSTILE = """
import json, os, signal, socket, time
def links():
    for number in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(number)))
        except OSError:
            continue
        if sock.family == socket.AF_UNIX and not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            yield sock
def others():
    stat = lambda pid: open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    return [pid for pid in pids if stat(pid)[1] == str(os.getppid())]
def say(text):
    for link in links():
        link.sendall(text.encode() + b"\\n")
"""


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    "deed",
    [
        "for link in list(links()): link.shutdown(socket.SHUT_RDWR)\ntime.sleep(60)",
        "say('nonsense')\ntime.sleep(60)",
        'say(\'{"workers": 3}\')\nsay(\'{"failed": 3, "status": "x"}\')\ntime.sleep(60)',
        "say('x' * 3_000_000)\ntime.sleep(60)",
    ],
    ids=["shuts the link", "talks nonsense", "says what is of the wrong kind", "says too much"],
)
def test_code_that_spoils_the_link_is_a_reload_that_fails_and_the_master_does_not_spin(site: Open, deed: str) -> None:
    here = site("--start-timeout", "1.5")
    here.write(HOSTILE + deed)
    used = cpu_seconds(here.server.pid)
    here.reload(2, "reload failed: generation 2: ")
    assert cpu_seconds(here.server.pid) - used < 0.5
    assert here.version() == "one"
    assert here.server.stop() == 0


def test_a_pool_that_names_others_processes_as_its_own_does_them_no_harm_and_does_not_hold_up_the_end(
    site: Open,
) -> None:
    here = site("--graceful-timeout", "1")
    rows = "[[pid, 0.0, 0, False] for pid in [*others(), os.getppid(), 1, -1, 0]]"
    message = f"json.dumps({{'serves': False, 'ready': 0, 'workers': {rows}}})"
    here.write(f"{HOSTILE}\nsay({message})\ntime.sleep(0.3)\nos.kill(os.getpid(), signal.SIGKILL)\n")
    [pool] = here.server.pools()
    here.reload(2, "reload failed: generation 2: ")
    assert here.version() == "one"
    assert here.server.pools() == [pool]
    assert here.server.stop(within=8) == 0
