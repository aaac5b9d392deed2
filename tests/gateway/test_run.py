"""The gateway as a process: how it ends, and what it says without uvicorn."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest

from gateway.toys import Conversation, build_site
from scgi.errors import ConfigError
from scgi.gateway import Gateway
from scgi.net.address import Address
from support import is_listening, short_folder, wait_until
from support.addresses import connect

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


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
            received = b""
            while data := peer.recv(1000):
                received += data
        assert received.endswith(b"\r\n\r\nin time")
        assert site.gateway.wait() == 0
        assert "returned" in site.gateway.log()
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
