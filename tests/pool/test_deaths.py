"""Workers that die: what it costs, what the log says, and who comes after them."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Launch, Serve
from pool.crowd import Crowd, begun, dozing
from support import Process, free_port, is_alive, scgi_request, wait_until
from support.addresses import connect
from support.wire import build_request

StartPool = Callable[..., Process]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def cpu_of(server: Process) -> float:
    """Of the master and the pools, with the workers that have ended."""
    return sum(map(cpu_seconds, [server.pid, *server.pools()]))


def only_worker(server: Process) -> int:
    return wait_until(server.workers)[0]


def test_a_worker_killed_in_a_request_costs_that_request_and_is_named_with_all_that_is_known(
    serve: StartPool,
) -> None:
    server = serve("--max-workers", "2", "--min-workers", "2")
    wait_until(lambda: len(server.workers()) == 2)
    with connect(server.address) as peer:
        peer.sendall(build_request({"HTTP_X_REQUEST_ID": "order-77"}, path="/doze/20", query="a=b"))
        victim = dozing(server)
        os.kill(victim, signal.SIGKILL)
        answer = peer.recv(65536)  # by then it may be guarded
        assert not answer or answer.endswith(b"\r\n\r\n502 Bad Gateway\nRequest order-77\n")
    line = wait_until(lambda: re.search(r"ERROR .*killed by SIGKILL.*", server.log()))[0]
    assert f"worker {victim} killed by SIGKILL while answering GET /doze/20?a=b (request order-77, " in line
    assert re.search(r", \d\.\d s\); its age was \d\.\d s", line)
    wait_until(lambda: len(server.workers()) == 2 and victim not in server.workers())
    assert scgi_request(server.address).status == 200


def test_the_request_of_a_killed_worker_of_several_threads_has_the_id_that_its_own_lines_have(serve: StartPool) -> None:
    server = serve("--max-workers", "1", "--min-workers", "1", "--threads", "2")
    with begun(server.address, "/say_and_doze/20"), begun(server.address, "/say_and_doze/20"):
        pattern = r"\[request (\S+)\]: dozing"
        wait_until(lambda: len(re.findall(pattern, server.log())) == 2)
        said = re.findall(pattern, server.log())
        os.kill(only_worker(server), signal.SIGKILL)
        line = wait_until(lambda: re.search(r"ERROR .*killed by SIGKILL.*", server.log()))[0]
    assert sorted(re.findall(r"\(request (\S+),", line)) == sorted(said)
    assert said[0] != said[1]


def test_the_death_of_an_idle_worker_costs_nothing(serve: StartPool) -> None:
    server = serve("--max-workers", "2", "--min-workers", "2")
    wait_until(lambda: len(server.workers()) == 2)
    assert scgi_request(server.address).status == 200
    for victim in server.workers():
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda victim=victim: not is_alive(victim))
        assert scgi_request(server.address).status == 200
        wait_until(lambda victim=victim: len(server.workers()) == 2 and victim not in server.workers())
    ends = re.findall(r"killed by SIGKILL (between requests|before its first request);", server.log())
    assert len(ends) == 2


def test_workers_killed_again_and_again_under_load_cost_no_more_than_one_request_each(serve: StartPool) -> None:
    server = serve("--max-workers", "4", "--min-workers", "4")
    with Crowd(server.address, size=6) as crowd:
        for kills in range(1, 9):
            wait_until(lambda kills=kills: crowd.answered > 20 * kills and len(server.workers()) == 4)
            os.kill(server.workers()[0], signal.SIGKILL)
        answered = crowd.answered
        wait_until(lambda: crowd.answered > answered + 20)
    assert len(crowd.lost) <= kills
    assert not crowd.refused


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("/crash", "killed by SIGSEGV"),
        (f"/kill/{int(signal.SIGABRT)}", "killed by SIGABRT"),
        ("/leave/3", "exited with status 3"),
    ],
)
def test_an_application_that_ends_its_process_is_named_and_replaced(serve: StartPool, path: str, end: str) -> None:
    server = serve("--max-workers", "1")
    with begun(server.address, path) as peer:
        assert peer.recv(65536) == b""
    assert scgi_request(server.address).status == 200
    assert f"{end} while answering GET {path} (request " in server.log()


def test_an_application_that_raises_system_exit_gets_500_and_costs_no_worker(serve: StartPool) -> None:
    server = serve("--max-workers", "1")
    worker = only_worker(server)
    assert scgi_request(server.address, path="/raise_exit").status == 500
    assert scgi_request(server.address, path="/pid").text == str(worker)


AT_ONCE = """
import os
from pathlib import Path
import scgi.scgi_server as scgi_server

class Handler(scgi_server.SCGIHandler):
    def __init__(self, parent_fd):
        super().__init__(parent_fd)
        if Path(__file__).with_name("broken").exists():
            {end}

    def produce(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\\r\\n\\r\\nwell")
"""


@pytest.mark.parametrize("end", ["os._exit(9)", "raise SystemExit(0)", "raise OSError('no database')"])
def test_workers_that_die_at_once_are_started_ever_more_rarely_and_all_is_well_when_they_do_not(
    scgi_serve: Serve, tmp_path: Path, end: str
) -> None:
    (tmp_path / "app.py").write_text(AT_ONCE.format(end=end))
    server = scgi_serve(f"{tmp_path / 'app.py'}:Handler", "--max-workers", "2")
    assert scgi_request(server.address).text == "well"
    (tmp_path / "broken").touch()
    os.kill(only_worker(server), signal.SIGKILL)
    rests = re.compile(r"workers die at once: the next one starts in (\d+\.\d) s")
    wait_until(lambda: len(rests.findall(server.log())) == 3)
    assert rests.findall(server.log())[:3] == ["0.1", "0.2", "0.4"]
    before = cpu_of(server), time.monotonic()
    (tmp_path / "broken").unlink()
    assert scgi_request(server.address, within=10).text == "well"
    used, passed = cpu_of(server) - before[0], time.monotonic() - before[1]
    assert used < 0.1 + 0.2 * passed


def test_a_first_worker_that_cannot_start_ends_the_server_with_its_traceback(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(AT_ONCE.format(end="raise OSError('no database')"))
    (tmp_path / "broken").touch()
    began = time.monotonic()
    server = launch("-m", "scgi", "serve", "--listen", str(free_port()), f"{tmp_path / 'app.py'}:Handler")
    assert server.wait() == 3
    assert time.monotonic() - began < 5
    assert "OSError: no database" in server.log()
    assert "the first worker could not start" in server.log()


def test_a_request_that_kills_the_very_first_worker_does_not_end_the_server(serve: StartPool) -> None:
    server = serve("--max-workers", "1")
    for _ in range(3):
        with begun(server.address, "/leave/9") as peer:
            assert peer.recv(65536) == b""
    assert scgi_request(server.address).status == 200
    assert "could not start" not in server.log()


@pytest.mark.parametrize(
    "page", ["zombies/20", "fork_and_serve_on", "chdir/tmp", "endless_thread", "catch_signals", "blocked/0"]
)
def test_what_an_application_does_to_its_process_hurts_that_worker_at_most(serve: StartPool, page: str) -> None:
    server = serve("--max-workers", "2", "--min-workers", "2", "--graceful-timeout", "2")
    assert scgi_request(server.address, path=f"/{page}").status == 200
    for _ in range(4):
        assert scgi_request(server.address).status == 200
    assert server.stop() == 0


def test_an_application_that_closes_all_descriptors_costs_its_worker_and_no_other(serve: StartPool) -> None:
    server = serve("--max-workers", "2", "--min-workers", "2")
    wait_until(lambda: len(server.workers()) == 2)
    before = server.workers()
    with begun(server.address, "/close_all") as peer:
        assert peer.recv(65536) == b""
    wait_until(lambda: len(server.workers()) == 2 and server.workers() != before)
    assert len(set(before) & set(server.workers())) == 1
    for _ in range(4):
        assert scgi_request(server.address).status == 200
