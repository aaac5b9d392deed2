"""The gateway as a process: how it ends, and what it says without uvicorn."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial

import httpx
import pytest

from gateway.toys import Conversation, build_site
from scgi.errors import ConfigError
from scgi.gateway import Gateway
from scgi.net.address import Address
from support import Process, free_port, is_listening, short_folder, start, wait_until
from support.addresses import connect

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def logged(program: Process, pattern: str) -> list[str]:
    return re.findall(pattern, program.log())


def read_all(peer: socket.socket, end: bytes = b"\0") -> bytes:
    """Up to the end of file, or to these last bytes."""
    received = b""
    while not received.endswith(end) and (data := peer.recv(1000)):
        received += data
    return received


def test_at_sigint_it_is_gone_within_a_second_although_connections_are_kept_open() -> None:
    with short_folder() as folder, build_site("unix", folder) as site:
        stall = threading.Event()
        with connect(site.address) as kept, connect(site.address) as silent, connect(site.address) as busy:
            kept.sendall(GET)
            assert kept.recv(1000)
            silent.sendall(b"GET /")
            site.upstream.answer = lambda talk: talk.wait_for(stall)
            busy.sendall(GET)
            began = time.monotonic()
            assert site.gateway.stop(number=signal.SIGINT) == 0
            assert time.monotonic() - began < 1
        stall.set()
        assert site.gateway.log().endswith("returned\n")
        assert "Traceback" not in site.gateway.log()


def test_at_sigterm_what_is_in_flight_is_finished() -> None:
    with short_folder() as folder, build_site("unix", folder) as site:
        working, stopping = threading.Event(), threading.Event()

        def answer(talk: Conversation) -> None:
            working.set()
            assert stopping.wait(10)
            talk.answer(b"in time")

        site.upstream.answer = answer
        with connect(site.address) as peer:
            peer.sendall(GET)
            assert working.wait(10)
            site.gateway.signal(signal.SIGTERM)
            wait_until(lambda: not is_listening(site.address), 5, "it to listen no more")
            stopping.set()
            received = read_all(peer)
        assert received.endswith(b"\r\n\r\nin time")
        assert site.gateway.wait() == 0
        assert "returned" in site.gateway.log()
        site.upstream.settle()


def test_at_sigterm_connections_that_wait_in_the_queue_are_served() -> None:
    with short_folder() as folder, build_site("unix", folder) as site, contextlib.ExitStack() as opened:
        with connect(site.address) as peer:
            peer.sendall(GET)
            assert read_all(peer, b"hello")
        site.gateway.signal(signal.SIGSTOP)
        try:
            peers = [opened.enter_context(connect(site.address)) for _ in range(12)]
            for peer in peers[1:]:
                peer.sendall(GET)
            site.gateway.signal(signal.SIGTERM)
            stopped = time.monotonic()  # uvicorn looks ten times a second whether it shall end: now it does at once
            wait_until(lambda: time.monotonic() > stopped + 0.2)
        finally:
            site.gateway.signal(signal.SIGCONT)
        peers[0].sendall(GET)
        for peer in peers:
            assert read_all(peer).endswith(b"\r\n\r\nhello")
        assert time.monotonic() - stopped < 4, "connections were kept for another request"
        assert site.gateway.wait() == 0
        assert site.gateway.log().endswith("returned\n")


def test_under_a_rush_of_connections_sigterm_resets_none() -> None:
    with short_folder() as folder, build_site("unix", folder) as site:
        ends: list[str] = []
        served = threading.Semaphore(0)

        def ask() -> None:
            while True:
                try:
                    peer = connect(site.address)
                except OSError:  # refused: the end
                    return
                with peer:
                    try:
                        peer.sendall(GET)
                        whole = read_all(peer, b"hello").endswith(b"hello")
                    except OSError as error:
                        ends.append(repr(error))
                        return
                if not whole:
                    ends.append("cut")
                served.release()

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            assert served.acquire(timeout=10)
        assert site.gateway.stop() == 0
        for thread in threads:
            thread.join(20)
        assert ends == []


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_successor_at_the_same_socket_is_heard(kind: str) -> None:
    with short_folder() as folder:
        address = f"unix:{folder}/front" if kind == "unix" else f"127.0.0.1:{free_port()}"
        program = """
import os, signal, socket, sys
from scgi.gateway import run_gateway
from scgi.net.address import parse_address
from scgi.net.listen import open_listener
listener = open_listener(parse_address(sys.argv[1]))
for name in "first", "second":
    pid = os.fork()
    if not pid:
        run_gateway(listener.sock, parse_address("127.0.0.1:1"))
        os._exit(0)
    print(f"{name}={pid}.", flush=True)
    os.waitpid(pid, 0)
"""
        both = start([sys.executable, "-c", program, address], log_file=folder / "log", address=address)
        try:
            for pattern in (r"first=(\d+)\.", r"second=(\d+)\."):
                found = wait_until(partial(logged, both, pattern), 10, pattern)
                with connect(address) as peer:
                    peer.sendall(GET)
                    assert peer.recv(1000).startswith(b"HTTP/1.1 503 ")
                os.kill(int(found[0]), signal.SIGTERM)
            assert both.wait() == 0
        finally:
            both.kill()


def test_a_head_that_does_not_come_in_time_gets_a_408_and_silence_is_cut_off() -> None:
    with short_folder() as folder, build_site("unix", folder, head_timeout=0.4) as site:
        with connect(site.address) as begun, connect(site.address) as silent, connect(site.address) as kept:
            kept.sendall(GET)
            assert read_all(kept, b"hello")
            kept.sendall(GET[:-1])
            begun.sendall(GET[:-1])
            assert read_all(silent) == b""
            for peer in (begun, kept):
                answer = read_all(peer)
                assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
                assert b"\r\nconnection: close\r\n" in answer
                assert answer.endswith(b"The request's head did not come in time.\n")
        assert "Traceback" not in site.gateway.log()


def test_what_takes_long_after_the_head_is_not_cut_off() -> None:
    with short_folder() as folder, build_site("unix", folder, head_timeout=0.3) as site:
        watched = threading.Event()

        def answer(talk: Conversation) -> None:
            received = b"".join(talk.body())
            assert watched.wait(10)
            talk.answer(received)

        site.upstream.answer = answer
        with connect(site.address) as peer, connect(site.address) as clock:
            peer.sendall(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n")
            assert read_all(clock) == b""  # one whole head timeout
            peer.sendall(b"o")
            with connect(site.address) as clock:
                assert read_all(clock) == b""
            peer.sendall(b"k")
            with connect(site.address) as clock:
                assert read_all(clock) == b""
            watched.set()
            assert read_all(peer, b"\r\n\r\nok")
        site.upstream.settle()


def test_what_outlasts_the_grace_period_gets_a_503() -> None:
    with short_folder() as folder, build_site("unix", folder, graceful_timeout=0.2) as site:
        site.upstream.answer = lambda talk: talk.wait_for_eof()
        with connect(site.address) as peer:
            peer.sendall(GET)
            wait_until(lambda: site.upstream.last, 5, "the request to arrive")
            assert site.gateway.stop() == 0
            assert peer.recv(1000).startswith(b"HTTP/1.1 503 ")
        assert "Traceback" not in site.gateway.log()


def test_a_second_signal_ends_it_at_once() -> None:
    with short_folder() as folder, build_site("unix", folder) as site:
        site.upstream.answer = lambda talk: talk.wait_for_eof()
        with connect(site.address) as peer:
            peer.sendall(GET)
            wait_until(lambda: site.upstream.last, 5, "the request to arrive")
            site.gateway.signal(signal.SIGTERM)
            wait_until(lambda: not is_listening(site.address), 5, "the first signal to be taken")
            assert site.gateway.running()
            began = time.monotonic()
            assert site.gateway.stop() == 0
            assert time.monotonic() - began < 1


def test_it_runs_in_a_forked_child() -> None:
    program = """
import os, socket, signal, sys, urllib.request
from scgi.gateway import run_gateway
from scgi.net.address import parse_address
sock = socket.create_server(("127.0.0.1", 0))
url = "http://127.0.0.1:%d/" % sock.getsockname()[1]
pid = os.fork()
if not pid:
    run_gateway(sock, parse_address("127.0.0.1:1"))
    os._exit(7)
try:
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url)
except urllib.error.HTTPError as error:
    print(error.code)
os.kill(pid, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["503", "7"], done.stderr


def test_without_uvicorn_it_says_what_to_install() -> None:
    program = """
import socket, sys
sys.modules["uvicorn"] = None
from scgi.gateway import run_gateway
from scgi.net.address import Address
try:
    run_gateway(socket.socket(), Address("tcp", "127.0.0.1", 1))
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("MissingExtra the HTTP front needs"), done.stderr
    assert "scgi-server[http]" in done.stdout


def test_an_upstream_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigError, match="found 'systemd'"):
        Gateway(Address("systemd"))


def test_under_load_every_request_is_answered() -> None:
    with short_folder() as folder, build_site("unix", folder) as site:
        site.upstream.answer = lambda talk: talk.answer(talk.variables["QUERY_STRING"].encode())
        found: list[str] = []

        def ask(number: int) -> None:
            with httpx.Client(base_url=site.url, trust_env=False, timeout=20) as client:
                for serial in range(25):
                    found.append(client.get(f"/?{number}-{serial}").text)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == sorted(f"{number}-{serial}" for number in range(8) for serial in range(25))
        site.upstream.settle()
