"""What the server keeps to on its machine: addresses, modes, descriptors, logs, files, companions."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Launch
from pool.conftest import PAGES
from pool.crowd import begun, dozing
from support import Process, free_port, is_alive, is_listening, scgi_request, start, wait_until

StartPool = Callable[..., Process]


def refused(launch: Launch, address: str) -> str:
    """What a start at this address says that has to fail, and soon."""
    began = time.monotonic()
    second = launch("-m", "scgi", "serve", "--listen", address, f"{PAGES}:app")
    assert second.wait() not in (0, -signal.SIGKILL)
    assert time.monotonic() - began < 5  # a second and Python's own start, on a loaded machine
    assert len(second.log().splitlines()) == 1, second.log()
    return second.log()


def test_a_second_start_on_the_same_address_says_why_it_fails_and_the_first_goes_on(
    serve: StartPool, launch: Launch, short_tmp: Path
) -> None:
    first = serve("--listen", f"unix:{short_tmp}/s")
    assert "the address is in use" in refused(launch, first.address)
    assert "a live server listens there already" in refused(launch, f"unix:{short_tmp}/s")
    for address in (first.address, f"unix:{short_tmp}/s"):
        assert scgi_request(address).status == 200


def test_the_socket_of_a_dead_server_is_replaced(serve: StartPool, short_tmp: Path) -> None:
    address = f"unix:{short_tmp}/s"
    first = serve(listen=address)
    workers = wait_until(first.workers)
    first.signal(signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, workers)))
    assert Path(f"{short_tmp}/s").is_socket()
    assert scgi_request(serve(listen=address).address).status == 200


def test_a_file_in_the_way_is_left_alone(launch: Launch, short_tmp: Path) -> None:
    (short_tmp / "s").write_text("precious")
    assert "left alone" in refused(launch, f"unix:{short_tmp}/s")
    assert (short_tmp / "s").read_text() == "precious"


def test_a_unix_socket_has_mode_0660_or_what_is_asked_for(serve: StartPool, short_tmp: Path) -> None:
    def mode(name: str) -> int:
        return stat.S_IMODE((short_tmp / name).stat().st_mode)

    serve(listen=f"unix:{short_tmp}/a")
    serve("--socket-mode", "0600", listen=f"unix:{short_tmp}/b")
    assert (mode("a"), mode("b")) == (0o660, 0o600)


def test_no_descriptor_of_the_server_survives_exec_in_the_application(
    serve: StartPool, short_tmp: Path, tmp_path: Path
) -> None:
    server = serve(
        *("--listen", f"unix:{short_tmp}/s", "--log-file", f"{tmp_path}/log", "--access-log", f"{tmp_path}/access"),
        *("--http", f"127.0.0.1:{free_port()}", "--pid-file", f"{tmp_path}/pid"),
    )
    seen = scgi_request(server.address, path="/descriptors").text
    numbers = [int(line.split(",")[0].strip("(")) for line in seen.splitlines()]
    assert set(numbers) <= {0, 1, 2}, seen


@pytest.mark.parametrize("closed", [{0}, {1}, {2}, {0, 1, 2}])
def test_a_server_that_is_started_without_standard_streams_opens_nothing_else_in_their_place(
    tmp_path: Path, closed: set[int]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "scgi", "serve", "--listen", address, "--log-file", f"{tmp_path}/log"]
    without = " ".join(f"{number}>&-" for number in closed)
    command = ["sh", "-c", f'exec "$@" {without}', "sh", *words, f"{PAGES}:app"]
    server = start(command, log_file=tmp_path / "out", address=address)
    try:
        answer = scgi_request(address, path="/descriptors")
        assert answer.status == 200, answer.text
        for pid in (server.pid, *server.pools(), *wait_until(server.workers)):
            for number in closed:
                assert os.readlink(f"/proc/{pid}/fd/{number}") == "/dev/null"
        assert server.stop() == 0
        server.assert_nothing_left()
    finally:
        server.kill()


def test_sigusr1_reopens_the_log_files_of_master_pool_and_workers(serve: StartPool, tmp_path: Path) -> None:
    log, access = tmp_path / "server.log", tmp_path / "access.log"
    server = serve("--log-file", str(log), "--access-log", str(access), "--max-workers", "1")
    scgi_request(server.address, path="/pid", query="before")
    wait_until(lambda: access.exists() and "before" in access.read_text())
    for file in (log, access):
        file.rename(f"{file}.1")
    server.signal(signal.SIGUSR1)
    wait_until(lambda: log.exists() and access.exists())

    def written_anew() -> bool:  # the worker gets its signal a moment after the others
        scgi_request(server.address, path="/pid", query="after")
        return "after" in access.read_text()

    wait_until(written_anew)
    assert scgi_request(server.address, b"1:x,").status == 400
    wait_until(lambda: "refused with 400" in log.read_text())
    server.stop()
    assert "scgi.master: stopping" in log.read_text()
    assert "scgi.pool: stopping" in log.read_text()
    assert server.log() == ""


def test_the_pid_file_holds_the_process_id_for_as_long_as_the_server_runs(serve: StartPool, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    server = serve("--pid-file", str(file))
    assert file.read_text() == f"{server.pid}\n"
    server.stop()
    assert not file.exists()


def test_check_binds_and_loads_and_leaves_nothing(launch: Launch, short_tmp: Path) -> None:
    server = launch("-m", "scgi", "serve", "--check", "--listen", f"unix:{short_tmp}/s", f"{PAGES}:app")
    assert server.wait() == 0
    assert "loads as wsgi" in server.log()
    assert list(short_tmp.iterdir()) == []


def test_threads_share_a_process_and_answer_at_the_same_time(serve: StartPool) -> None:
    server = serve("--threads", "3", "--max-workers", "1")
    with begun(server.address, "/sleep/0.5") as first, begun(server.address, "/sleep/0.5") as second:
        assert scgi_request(server.address, path="/pid").status == 200
        began = time.monotonic()
        for peer in (first, second):
            assert b"200 OK" in peer.recv(1000)
        assert time.monotonic() - began < 0.95


def test_each_of_several_addresses_is_served(serve: StartPool, short_tmp: Path) -> None:
    others = [f"[::1]:{free_port()}"] if socket.has_ipv6 and Path("/proc/net/if_inet6").exists() else []
    others += [f"127.0.0.1:{free_port()}", f"unix:{short_tmp}/s"]
    options = [word for other in others for word in ("--listen", other)]
    server = serve(*options, "--max-workers", "2")
    for _ in range(5):
        for address in (server.address, *others):
            assert scgi_request(address).status == 200


def test_the_http_front_is_restarted_when_it_is_killed_and_ends_with_the_server(serve: StartPool) -> None:
    front = f"127.0.0.1:{free_port()}"
    server = serve("--http", front, "--max-workers", "1")

    def front_process() -> int:
        started = [line for line in server.log().splitlines() if "started as process" in line]
        return int(started[-1].rsplit(maxsplit=1)[1]) if started else 0

    def get() -> bytes:
        with urllib.request.urlopen(f"http://{front}/pid", timeout=10) as page:
            return page.read()

    wait_until(lambda: is_listening(front))
    assert get()
    first = front_process()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: front_process() != first and is_listening(front))
    assert get()
    assert "killed by SIGKILL" in server.log()
    assert server.stop() == 0
    server.assert_nothing_left()
    assert not is_listening(front)


def test_a_request_over_the_http_front_is_finished_when_term_comes(serve: StartPool) -> None:
    front = f"127.0.0.1:{free_port()}"
    server = serve("--http", front, "--min-workers", "0")
    wait_until(lambda: is_listening(front))
    host, port = front.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as browser:
        browser.sendall(b"GET /doze/0.7 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        dozing(server)
        server.signal(signal.SIGTERM)
        received = b"".join(iter(lambda: browser.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 200"), received
    assert server.wait() == 0
