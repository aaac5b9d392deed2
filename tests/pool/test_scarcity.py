"""When something runs out: processes, descriptors, patience with a peer. Service goes on, and recovers."""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Launch
from pool.conftest import PAGES
from pool.crowd import at_once, begun, rest_of
from support import Process, build_request, free_port, resident_bytes, scgi_request, wait_until
from support.addresses import connect

StartPool = Callable[..., Process]


def ticks(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ticks_of(server: Process) -> float:
    """Of all its processes together."""
    return sum(map(ticks, [server.pid, *server.descendants()]))


def limit(pid: int, what: int, value: int) -> tuple[int, int]:
    hard = resource.prlimit(pid, what)[1]
    return resource.prlimit(pid, what, (value, hard))


# A fork that fails when and where the test says so.
NO_FORK = """
import errno, os, sys
from pathlib import Path

really_fork, forbidden = os.fork, Path(sys.argv.pop(1))

def fork():
    if forbidden.exists():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return really_fork()

os.fork = fork
from scgi.cli.main import main
main()
"""


@pytest.fixture
def forbidden(tmp_path: Path) -> Path:
    return tmp_path / "no-fork"


@pytest.fixture
def serve_with_few_forks(launch: Launch, forbidden: Path) -> StartPool:
    def serve(*options: str) -> Process:
        address = f"127.0.0.1:{free_port()}"
        command = ["-c", NO_FORK, forbidden, "serve", "--listen", address, *options, f"{PAGES}:app"]
        return launch(*command, address=address)

    return serve


def test_when_fork_fails_service_goes_on_with_what_is_there_and_grows_again_later(
    serve_with_few_forks: StartPool, forbidden: Path
) -> None:
    server = serve_with_few_forks("--max-workers", "3")
    wait_until(server.workers)
    forbidden.touch()
    assert {answer.status for answer in at_once(server.address, 4, "/sleep/0.2")} == {200}
    assert "cannot fork a worker: Resource temporarily unavailable" in server.log()
    assert len(server.workers()) == 1
    forbidden.unlink()
    wait_until(lambda: {answer.status for answer in at_once(server.address, 3, "/sleep/0.4")} == {200})
    wait_until(lambda: len({answer.body for answer in at_once(server.address, 3, "/sleep/0.4")}) == 3)


def test_when_fork_fails_and_no_worker_is_left_clients_wait_and_are_served_within_a_second_of_recovery(
    serve_with_few_forks: StartPool, forbidden: Path
) -> None:
    server = serve_with_few_forks("--max-workers", "2")
    worker = wait_until(server.workers)[0]
    forbidden.touch()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: "cannot fork" in server.log())
    with begun(server.address, "/pid") as peer:
        used = ticks_of(server)
        wait_until(lambda: server.log().count("cannot fork") >= 3)
        assert ticks_of(server) - used < 0.2
        forbidden.unlink()
        recovered = time.monotonic()
        assert b"200 OK" in peer.recv(1000)
        assert time.monotonic() - recovered < 2


def test_when_no_pool_can_be_forked_a_reload_waits_and_the_old_code_serves_on(
    serve_with_few_forks: StartPool, forbidden: Path
) -> None:
    server = serve_with_few_forks("--max-workers", "1")
    worker = wait_until(server.workers)[0]
    forbidden.touch()
    server.signal(signal.SIGHUP)
    wait_until(lambda: server.log().count("a pool: Resource temporarily unavailable") >= 2)
    assert scgi_request(server.address).text == str(worker)
    forbidden.unlink()
    wait_until(lambda: "generation 2 serves" in server.log(), 2)
    wait_until(lambda: scgi_request(server.address).text != str(worker))


def test_when_the_pool_dies_and_none_can_be_forked_clients_wait_and_are_served_within_a_second_of_recovery(
    serve_with_few_forks: StartPool, forbidden: Path
) -> None:
    server = serve_with_few_forks("--max-workers", "1")
    wait_until(server.workers)
    forbidden.touch()
    os.kill(server.pools()[0], signal.SIGKILL)
    wait_until(lambda: not server.workers(), 2, "the orphaned worker to end")
    with begun(server.address, "/pid") as peer:
        used = ticks(server.pid)
        wait_until(lambda: server.log().count("a pool: Resource temporarily unavailable") >= 3)
        assert ticks(server.pid) - used < 0.2
        forbidden.unlink()
        recovered = time.monotonic()
        assert b"200 OK" in peer.recv(1000)
        assert time.monotonic() - recovered < 2


def test_without_descriptors_to_accept_with_a_worker_waits_says_so_once_a_second_and_recovers(
    serve: StartPool,
) -> None:
    server = serve("--max-workers", "2", "--min-workers", "2")
    wait_until(lambda: len(server.workers()) == 2)
    workers = server.workers()
    assert scgi_request(server.address).status == 200
    before = [limit(worker, resource.RLIMIT_NOFILE, 3) for worker in workers]
    began, used = time.monotonic(), ticks_of(server)
    complaint = "cannot accept a connection: Too many open files"
    with begun(server.address, "/pid") as peer, begun(server.address, "/pid") as other:
        wait_until(lambda: server.log().count(complaint) >= 3)
        passed = time.monotonic() - began
        assert server.log().count(complaint) <= passed + 1.5
        assert ticks_of(server) - used < 0.05 + 0.1 * passed
        for worker, (soft, _) in zip(workers, before, strict=True):
            limit(worker, resource.RLIMIT_NOFILE, soft)
        assert b"200 OK" in peer.recv(1000)
        assert b"200 OK" in other.recv(1000)
    assert server.workers() == workers


@pytest.mark.parametrize("threads", ["1", "3"])
def test_silent_and_half_sent_requests_get_408_and_their_worker_comes_back(serve: StartPool, threads: str) -> None:
    server = serve("--max-workers", "1", "--header-timeout", "0.5", "--threads", threads)
    wait_until(server.workers)
    with connect(server.address) as silent, connect(server.address) as half:
        half.sendall(build_request(path="/pid")[:40])
        for peer in (silent, half):
            assert peer.recv(100).startswith(b"Status: 408")
            peer.close()
        assert scgi_request(server.address).status == 200
    assert len(server.workers()) == 1


def test_an_answer_that_is_read_late_comes_whole_and_one_that_is_not_read_frees_its_worker(serve: StartPool) -> None:
    server = serve("--max-workers", "1")
    with begun(server.address, "/big/30000000") as late:
        assert late.recv(1000).startswith(b"Status: 200")
        until = time.monotonic() + 2.5  # by then the pool has noticed and nudged
        wait_until(lambda: time.monotonic() > until)
        assert len(b"".join(iter(lambda: late.recv(1 << 20), b""))) > 29_990_000
    with begun(server.address, "/big/30000000") as gone:
        assert gone.recv(1000).startswith(b"Status: 200")
    assert scgi_request(server.address).status == 200
    assert len(server.workers()) == 1
    assert "ERROR" not in server.log()


def test_a_slow_application_with_threads_is_left_in_peace_by_nudges_for_others(serve: StartPool) -> None:
    server = serve("--max-workers", "1", "--threads", "4", "--header-timeout", "0.3")
    worker = wait_until(server.workers)[0]
    with connect(server.address) as silent, begun(server.address, "/sleep/3") as slow:
        assert silent.recv(100).startswith(b"Status: 408")
        assert rest_of(slow).status == 200
    before = ticks(worker)
    until = time.monotonic() + 0.5
    wait_until(lambda: time.monotonic() > until)
    assert ticks(worker) - before < 0.1  # threads that wake each other would never rest


@pytest.mark.alone
def test_ten_thousand_requests_good_malformed_and_cut_leave_no_descriptor_no_zombie_and_no_memory(
    serve: StartPool, short_tmp: Path
) -> None:
    server = serve("--max-workers", "1", listen=f"unix:{short_tmp}/s")
    worker = wait_until(server.workers)[0]
    good = build_request(path="/pid")
    with_body = build_request(path="/read", body=b"x" * 5000, method="POST")
    kinds = [good] * 6 + [with_body, b"12:CONTENT_LENG", good[:-30], b"GET / HTTP/1.1\r\n\r\n", with_body[:-100]]

    def round_of(count: int) -> None:
        for number in range(count):
            with connect(server.address) as peer:
                peer.sendall(kinds[number % len(kinds)])
                peer.shutdown(socket.SHUT_WR)
                while peer.recv(65536):
                    pass

    def descriptors(pid: int) -> int:
        return len(os.listdir(f"/proc/{pid}/fd"))

    round_of(2000)
    assert scgi_request(server.address).text == str(worker)
    processes = [server.pid, *server.pools(), worker]
    before = [(descriptors(pid), resident_bytes(pid)) for pid in processes]
    round_of(8000)
    assert scgi_request(server.address).text == str(worker)
    for pid, (opened, size) in zip(processes, before, strict=True):
        assert descriptors(pid) == opened
        assert resident_bytes(pid) - size < 1_000_000
    assert sorted(server.descendants()) == sorted(processes[1:]), "no zombie, no process more"
