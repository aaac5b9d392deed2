"""`scgi reload` and `scgi stop` with real servers: both wait for what they asked for, and say how it went."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest

from scgi.client.control import ask
from scgi.errors import ScgiError
from support import is_alive, scgi_request, wait_until

# Reload.


def change(app: Path, old: str, new: str) -> None:
    """Exchange a part of the application's code, in one step."""
    code = app.read_text()
    assert old in code
    new_file = app.with_name("new.py")
    new_file.write_text(code.replace(old, new))
    new_file.replace(app)


def version(address: str) -> str:
    return scgi_request(address).text.strip()


def test_reload_waits_until_the_new_code_serves_and_says_so(site) -> None:
    server = site.serve()
    assert version(server.address) == "version 1"
    change(site.app, "version 1", "version 2")
    done = site.scgi("reload", server.address)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"generation 2 starts\ngeneration 2 serves \(0\.\d\d s\)\n", done.stdout)
    assert version(server.address) == "version 2"
    assert site.status(server)["counters"]["reloads"] == 1


def raises(app: Path) -> str:
    change(app, "GATE =", "raise LookupError('no \\x1b[31msuch table')\nGATE =")
    return "LookupError: no \\x1b[31msuch table"


def is_no_python(app: Path) -> str:
    change(app, "def application(", "def application((")
    return "SyntaxError"


def has_no_application(app: Path) -> str:
    change(app, "def application(", "def _application(")
    return "application"


def hangs(app: Path) -> str:
    change(app, "GATE =", "time.sleep(60)\nGATE =")
    return 'pages.py", line 8 in <module>'


def answers_with_errors(app: Path) -> str:
    change(app, "200 OK", "503 Out of order")
    return "503"


@pytest.mark.parametrize(
    "broken", [raises, is_no_python, has_no_application, hangs, answers_with_errors], ids=lambda how: how.__name__
)
def test_new_code_that_does_not_serve_is_told_with_the_reason_and_the_old_code_serves_on(
    site, broken: Callable[[Path], str]
) -> None:
    server = site.serve("--start-timeout", "1", "--probe", "/")
    reason = broken(site.app)
    done = site.scgi("reload", server.address)
    assert (done.returncode, done.stdout) == (1, "generation 2 starts\n")
    assert reason in done.stderr and "\x1b" not in done.stderr
    assert done.stderr.endswith("\nscgi: the reload failed; nothing has changed\n")
    assert version(server.address) == "version 1"
    counters = site.status(server)["counters"]
    assert (counters["reloads"], counters["reloads_failed"]) == (0, 1)
    site.app.write_bytes(Path(__file__).with_name("control_pages.py").read_bytes())
    assert site.scgi("reload", server.address).returncode == 0


def test_a_reload_that_has_to_wait_says_for_what(site) -> None:
    server = site.serve()
    answers = site.ask(server, "/wait")
    wait_until(lambda: site.status(server)["generations"][0]["workers"][0]["current"])
    assert site.scgi("reload", server.address).returncode == 0
    waiting = site.start("reload", server.address)
    wait_until(lambda: "the reload waits" in server.log())
    found = site.status(server)
    assert [generation["state"] for generation in found["generations"]] == ["draining", "serving"]
    assert found["generations"][0]["workers"][0]["state"] == "retiring"
    site.open_gate()
    done = waiting()
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"waiting: generation 1 still .*\ngeneration 3 starts\ngeneration 3 serves ", done.stdout)
    assert [answer.status for answer in answers] == [200]


def test_reloads_asked_for_at_the_same_time_are_all_told(site) -> None:
    server = site.serve()
    asked = [site.start("reload", server.address) for _ in range(4)]
    done = [wait() for wait in asked]
    assert [one.returncode for one in done] == [0] * 4
    assert all("serves" in one.stdout for one in done)
    assert 1 <= site.status(server)["counters"]["reloads"] <= 4


def test_a_server_that_is_killed_leaves_nobody_waiting_although_a_worker_lives_on(site) -> None:
    server = site.serve()
    site.ask(server, "/wait")
    wait_until(lambda: site.status(server)["generations"][0]["workers"][0]["current"])
    hangs(site.app)
    waiting = site.start("reload", server.address)
    wait_until(lambda: "generation 2 starts" in server.log())
    server.signal(signal.SIGKILL)
    done = waiting()
    assert server.survivors()  # no child has kept the connection
    assert (done.returncode, done.stdout) == (1, "generation 2 starts\n")
    assert done.stderr == "scgi: the server ended before the new code served\n"


def test_a_server_that_follows_a_killed_one_has_its_control_socket(site) -> None:
    first = site.serve()
    first.signal(signal.SIGKILL)
    first.wait()
    first.assert_nothing_left()
    assert site.control(first).is_socket()
    assert site.scgi("status", first.address, only_here=True).returncode == 1
    second = site.serve(listen=first.address)
    assert site.status(second)["pid"] == second.pid


# Stop.


def test_stop_waits_until_the_server_is_gone_and_what_had_arrived_is_served(site) -> None:
    server = site.serve()
    answers = site.ask(server, "/wait")
    wait_until(lambda: site.status(server)["generations"][0]["workers"][0]["current"])
    stopping = site.start("stop", server.address)
    wait_until(lambda: site.status(server)["phase"] == "stopping")
    assert is_alive(server.pid)
    site.open_gate()
    done = stopping()
    assert not is_alive(server.pid)  # at that very moment
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")
    assert server.wait() == 0
    assert [answer.status for answer in answers] == [200]
    assert "no server was found" in site.scgi("stop", server.address, only_here=True).stderr


def test_stop_asked_for_twice_is_told_twice(site) -> None:
    server = site.serve()
    asked = [site.start("stop", server.address) for _ in range(2)]
    assert sorted(wait().returncode for wait in asked) in ([0, 0], [0, 1])  # 1: it was gone already
    assert server.wait() == 0


def test_a_reload_of_a_server_that_is_stopping_is_refused(site) -> None:
    server = site.serve()
    site.ask(server, "/wait")
    wait_until(lambda: site.status(server)["generations"][0]["workers"][0]["current"])
    server.signal(signal.SIGTERM)
    wait_until(lambda: site.status(server)["phase"] == "stopping")
    done = site.scgi("reload", server.address)
    assert done.returncode == 1 and "the server is stopping" in done.stderr


# What is no server.


@pytest.fixture
def imposter(short_tmp: Path):
    """Answers the first who asks with these bytes; listens at the path that it returns."""
    path = short_tmp / "c"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    kept = []

    def answer_with(said: bytes | None) -> Path:
        def answer() -> None:
            peer, _ = listener.accept()
            kept.append(peer)
            peer.recv(1000)
            if said is not None:
                peer.sendall(said)
                peer.close()

        Thread(target=answer, daemon=True).start()
        return path

    yield answer_with
    for sock in (listener, *kept):
        sock.close()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no SCGI server's control socket"),
        (b"[1]\n", "is no SCGI server's control socket"),
        (b'{"status": {"vers', "ended in the middle of its answer"),
        (b'{"refused": "not you"}\n', "the server refused: not you"),
        (b'{"status": {}}\n', "did not say what it does"),
        (b"{}\n", "did not say what it does"),
        (b"", "did not say what it does"),
    ],
)
def test_an_answer_that_is_none_is_told_in_a_sentence(site, imposter, said: bytes, sentence: str) -> None:
    done = site.scgi("status", "--control", imposter(said))
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_server_that_falls_silent_is_not_waited_for_for_ever(imposter) -> None:
    path = imposter(None)
    began = time.monotonic()
    with pytest.raises(ScgiError, match=f"the server at {path} stopped answering"):
        list(ask(path, "status", timeout=0.2))
    assert 0.2 <= time.monotonic() - began < 5
