"""TERM, a second TERM, INT, the graceful timeout, and the sudden death of the server's first process."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from conftest import Launch, Serve
from pool.conftest import PAGES
from pool.crowd import Crowd, begun, rest_of
from support import Process, build_request, free_port, is_alive, is_listening, scgi_request, wait_until
from support.addresses import connect
from support.processes import title_of

StartPool = Callable[..., Process]

# What systemd does: sockets from descriptor 3 on, and two variables that say so.
ACTIVATE = """
import os, sys
given, command = sys.argv[1].split(","), sys.argv[2:]
for number, descriptor in enumerate(map(int, given), 3):
    os.dup2(descriptor, number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(given))}
os.execv(sys.executable, [sys.executable, *command])
"""


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[str]:
    yield f"127.0.0.1:{free_port()}" if request.param == "tcp" else f"unix:{short_tmp}/s"


@pytest.mark.parametrize("threads", ["1", "3"])
def test_term_answers_what_is_in_flight_and_what_is_queued_and_leaves_nothing(
    serve: StartPool, address: str, threads: str
) -> None:
    server = serve("--max-workers", "2", "--threads", threads, listen=address)
    with ExitStack() as stack:
        peers = [stack.enter_context(begun(address, "/sleep/0.1")) for _ in range(14)]
        server.signal(signal.SIGTERM)
        assert [rest_of(peer).status for peer in peers] == [200] * 14
    assert server.wait() == 0
    server.assert_nothing_left()
    assert not is_listening(address)
    assert not address.startswith("unix:") or not Path(address[5:]).exists()
    assert "ERROR" not in server.log() and "WARNING" not in server.log()


def test_a_pool_that_has_no_worker_yet_answers_its_queue_before_it_ends(serve: StartPool, address: str) -> None:
    server = serve("--max-workers", "1", "--min-workers", "0", listen=address)
    with ExitStack() as stack:
        peers = [stack.enter_context(begun(address, "/pid")) for _ in range(5)]
        server.signal(signal.SIGTERM)
        assert [rest_of(peer).status for peer in peers] == [200] * 5
    assert server.wait() == 0


def test_a_worker_that_crashes_while_the_queue_is_emptied_has_an_heir(serve: StartPool, address: str) -> None:
    server = serve("--max-workers", "1", listen=address)
    with ExitStack() as stack:
        slow = stack.enter_context(begun(address, "/sleep/0.3"))
        victim = stack.enter_context(begun(address, "/leave/9"))
        rest = [stack.enter_context(begun(address, "/pid")) for _ in range(5)]
        server.signal(signal.SIGTERM)
        assert rest_of(slow).status == 200
        assert victim.recv(65536) == b""
        assert [rest_of(peer).status for peer in rest] == [200] * 5
    assert server.wait() == 0


def test_term_while_the_application_is_imported_answers_the_queue_before_the_end(
    scgi_serve: Serve, short_tmp: Path
) -> None:
    (short_tmp / "slow.py").write_text(f"{PAGES.read_text()}\ntime.sleep(1)\n")
    address = f"unix:{short_tmp}/s"
    server = scgi_serve(f"{short_tmp}/slow.py:app", listen=address)
    with begun(address, "/pid") as peer:
        server.signal(signal.SIGTERM)
        assert rest_of(peer).status == 200
    assert server.wait() == 0
    assert not Path(f"{short_tmp}/s").exists()


@pytest.mark.parametrize("threads", ["1", "4"])
def test_term_under_load_loses_nothing_that_was_accepted_or_queued(
    serve: StartPool, address: str, threads: str
) -> None:
    server = serve("--max-workers", "3", "--threads", threads, listen=address)
    with Crowd(address, size=32) as crowd:
        wait_until(lambda: crowd.answered > 100)
        told = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - told < 5
    # A connection that TCP establishes after TERM cannot always be told from one that is refused.
    until = float("inf") if address.startswith("unix:") else told
    assert [loss for loss in crowd.lost if loss[0] < until] == []
    server.assert_nothing_left()


@pytest.mark.parametrize("downwards", [True, False])
def test_term_to_every_process_at_once_loses_nothing_either(serve: StartPool, address: str, downwards: bool) -> None:
    server = serve("--max-workers", "3", "--min-workers", "3", listen=address)
    wait_until(lambda: len(server.workers()) == 3)
    with ExitStack() as stack:
        peers = [stack.enter_context(begun(address, "/sleep/0.1")) for _ in range(14)]
        everybody = [server.pid, *server.pools(), *server.workers()]
        for pid in everybody if downwards else reversed(everybody):
            os.kill(pid, signal.SIGTERM)
        assert [rest_of(peer).status for peer in peers] == [200] * 14
    assert server.wait() == 0
    server.assert_nothing_left()


def test_several_listeners_are_all_drained(serve: StartPool, short_tmp: Path) -> None:
    others = [f"127.0.0.1:{free_port()}", f"unix:{short_tmp}/b"]
    server = serve("--listen", others[0], "--listen", others[1], "--max-workers", "2", listen=f"unix:{short_tmp}/a")
    addresses = [server.address, *others]
    for address in addresses:
        assert scgi_request(address).status == 200
    with ExitStack() as stack:
        peers = [stack.enter_context(begun(address, "/sleep/0.1")) for address in addresses * 4]
        server.signal(signal.SIGTERM)
        assert [rest_of(peer).status for peer in peers] == [200] * 12
    assert server.wait() == 0
    assert list(short_tmp.iterdir()) == []


def activated(launch: Launch, *sockets: socket.socket, options: tuple[str, ...] = ()) -> Process:
    """A server that is lent these sockets."""
    descriptors = [sock.fileno() for sock in sockets]
    program = [sys.executable, "-c", ACTIVATE, ",".join(map(str, descriptors))]
    return launch(*program[1:], "-m", "scgi", "serve", f"{PAGES}:app", *options, pass_fds=descriptors)


def test_sockets_from_systemd_are_served_and_left_open_for_the_next_server(launch: Launch, short_tmp: Path) -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 0), backlog=100)) as tcp,
        closing(socket.socket(socket.AF_UNIX)) as unix,
    ):
        unix.bind(f"{short_tmp}/s")
        unix.listen(100)
        addresses = [f"127.0.0.1:{tcp.getsockname()[1]}", f"unix:{short_tmp}/s"]
        first = activated(launch, tcp, unix)
        for address in addresses:
            assert scgi_request(address).status == 200
        assert first.stop() == 0
        with ExitStack() as stack:
            queued = [stack.enter_context(begun(address, "/pid")) for address in addresses * 3]
            second = activated(launch, tcp, unix, options=("--max-workers", "1"))
            assert [rest_of(peer).status for peer in queued] == [200] * 6
        assert second.stop() == 0
        assert Path(f"{short_tmp}/s").exists()


@pytest.mark.parametrize("listeners", [1, 2])
def test_under_load_a_lent_socket_passes_from_one_server_to_the_next_and_no_request_is_lost(
    launch: Launch, listeners: int
) -> None:
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100)) for _ in range(listeners)]
        servers = [activated(launch, *socks)]
        with Crowd(f"127.0.0.1:{socks[0].getsockname()[1]}", size=8) as crowd:
            for _ in range(2):
                before = crowd.answered
                wait_until(lambda before=before: crowd.answered > before + 50)
                servers.append(activated(launch, *socks))
                wait_until(lambda: " started (" in servers[-1].log())
                assert servers[-2].stop(within=8) == 0
        assert crowd.lost == [] and crowd.refused == 0


def test_nobody_is_started_at_the_end_for_those_who_wait_at_a_lent_door(launch: Launch, address: str) -> None:
    with ExitStack() as stack:
        lent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
        lent_address = f"127.0.0.1:{lent.getsockname()[1]}"
        server = activated(launch, lent, options=("--listen", "systemd", "--listen", address, "--max-workers", "1"))
        wait_until(lambda: is_listening(address))
        busy = stack.enter_context(begun(address, "/sleep/2"))
        wait_until(lambda: server.workers())
        queued = [stack.enter_context(begun(lent_address, "/pid")) for _ in range(5)]
        server.signal(signal.SIGTERM)
        assert rest_of(busy).status == 200
        assert server.wait() == 0
        assert server.log().count(" started (") == 1
        heir = activated(launch, lent)
        assert [rest_of(peer).status for peer in queued] == [200] * 5
        wait_until(lambda: " serves after " in heir.log())  # they may have been answered before it was there
        assert heir.stop() == 0


@pytest.mark.parametrize("page", ["stubborn", "blocked"])
@pytest.mark.parametrize("signals", [("TERM", "TERM"), ("INT",), ("TERM", "INT")])
def test_a_second_term_or_an_int_stops_at_once_even_with_a_request_that_is_stuck(
    serve: StartPool, page: str, signals: tuple[str, ...]
) -> None:
    server = serve("--max-workers", "2")
    with begun(server.address, f"/{page}/30"):
        wait_until(lambda: len(server.workers()) == 1)
        scgi_request(server.address)  # by a second worker: the first is busy now
        began = time.monotonic()
        for name in signals:
            server.signal(signal.Signals[f"SIG{name}"])
            wait_until(lambda: "stopping" in server.log())
        assert server.wait() == 0
        assert time.monotonic() - began < 2
    server.assert_nothing_left()


@pytest.mark.parametrize("page", ["stubborn", "blocked"])
def test_what_has_not_ended_by_the_graceful_timeout_is_killed(serve: StartPool, page: str) -> None:
    server = serve("--max-workers", "2", "--graceful-timeout", "0.7")
    with begun(server.address, f"/{page}/30") as stuck:
        scgi_request(server.address)
        began = time.monotonic()
        assert server.stop() == 0
        assert 0.6 < time.monotonic() - began < 4
        assert stuck.recv(1000).startswith(b"Status: 502")
    assert "1 workers are still busy after the graceful timeout" in server.log()


def test_threads_and_children_of_the_application_do_not_hold_up_the_end(serve: StartPool) -> None:
    server = serve("--max-workers", "1", "--threads", "2")
    for _ in range(3):
        scgi_request(server.address, path="/endless_thread")
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 3


def test_a_silent_peer_holds_up_the_end_no_longer_than_the_header_timeout(serve: StartPool) -> None:
    server = serve("--max-workers", "1", "--header-timeout", "0.5")
    with connect(server.address) as silent:
        wait_until(server.workers)
        server.signal(signal.SIGTERM)
        assert silent.recv(100).startswith(b"Status: 408")
    assert server.wait() == 0


HASTY = """
import os, signal, time

pool = os.getpid()
once = [lambda: os.kill(pool, signal.SIGSTOP)]
os.register_at_fork(after_in_child=lambda: once and os.getppid() == pool and once.pop()())

def app(environ, start_response):
    open("taken", "w").close()
    time.sleep(60)
"""


def test_a_request_that_was_taken_before_the_server_knew_that_it_serves_is_looked_after(
    launch: Launch, address: str, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(HASTY)
    server = launch("-m", "scgi", "serve", "--listen", address, "--timeout", "1", "app.py:app", cwd=tmp_path)
    wait_until(lambda: is_listening(address))
    with begun(address, "/") as peer:
        wait_until((tmp_path / "taken").exists)
        (pool,) = server.pools()
        server.signal(signal.SIGTERM)
        wait_until(lambda: "stopping: what has arrived is served" in server.log())
        os.kill(pool, signal.SIGCONT)
        assert rest_of(peer).status == 504
    assert server.wait() == 0


WITHOUT_FILTER = """
import scgi.net.closing
scgi.net.closing._drop_new = lambda sock: False
from scgi.cli.main import main
main()
"""


def test_where_new_connections_cannot_be_kept_out_the_end_comes_all_the_same(launch: Launch) -> None:
    address = f"127.0.0.1:{free_port()}"
    server = launch("-c", WITHOUT_FILTER, "serve", "--listen", address, f"{PAGES}:app", address=address)
    with Crowd(address, size=32) as crowd:
        wait_until(lambda: crowd.answered > 100)
        told = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
    assert [loss for loss in crowd.lost if loss[0] < told] == []
    assert len(crowd.lost) <= 20


def test_nor_does_a_late_request_in_the_lobby_keep_such_a_server_for_those_who_still_come(launch: Launch) -> None:
    address = f"127.0.0.1:{free_port()}"
    server = launch("-c", WITHOUT_FILTER, "serve", "--listen", address, f"{PAGES}:app", address=address)
    request = build_request(path="/sleep/0")
    with Crowd(address, size=32) as crowd, connect(address, 20) as peer:
        peer.sendall(request[:5])
        wait_until(lambda: "lobby" in {title_of(pid).removeprefix("scgi: ")[:5] for pid in server.descendants()})
        wait_until(lambda: crowd.answered > 100)
        server.signal(signal.SIGTERM)
        wait_until(lambda: not server.workers())
        peer.sendall(request[5:])
        assert rest_of(peer).status == 200
        assert server.wait() == 0


def test_when_the_master_is_killed_idle_workers_go_busy_ones_finish_and_the_address_is_free(
    serve: StartPool, address: str
) -> None:
    server = serve("--max-workers", "3", "--min-workers", "3", listen=address)
    wait_until(lambda: len(server.workers()) == 3)
    with begun(address, "/sleep/1.5") as busy:
        scgi_request(address)
        workers = server.workers()
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        wait_until(lambda: sum(is_alive(worker) for worker in workers) == 1, 1, "the idle workers to be gone")
        successor = serve("--max-workers", "1", listen=address)
        assert scgi_request(address).status == 200
        assert rest_of(busy).status == 200
        wait_until(lambda: not any(is_alive(worker) for worker in workers), 1, "the last worker to be gone")
    assert successor.stop() == 0


def test_idle_threads_are_gone_too_when_the_master_is_killed(serve: StartPool) -> None:
    server = serve("--threads", "8")
    workers = wait_until(server.workers)
    scgi_request(server.address)
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    wait_until(lambda: not any(is_alive(worker) for worker in workers), 1, "the worker to be gone")
