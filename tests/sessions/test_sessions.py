"""Sessions on real processes: one child each, in order, bounded, replaced."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import Launch
from support import Process, Response, build_request, free_port, is_alive, parse_response, scgi_request, wait_until
from support.processes import children_of

PAGES = Path(__file__).with_name("session_pages.py")
Start = Callable[..., Process]


def cookie(session: str) -> dict[str, str]:
    return {"HTTP_COOKIE": f'session="{session}"'}


def ask(server: Process, session: str, path: str = "/", body: bytes = b"") -> Response:
    return scgi_request(server.address, cookie(session), body, path=path, within=60)


def pid_of(answer: Response) -> int:
    assert answer.status == 200, answer.raw
    return int(answer.text.split()[0])


@pytest.fixture
def serve(launch: Launch) -> Start:
    def serve(children: int, *more: str) -> Process:
        port = free_port()
        return launch(PAGES, str(port), str(children), *more, address=f"127.0.0.1:{port}")

    return serve


class Begun:
    """A request that is sent, whose answer is asked for later."""

    def __init__(self, server: Process, session: str, path: str = "/") -> None:
        host, _, port = server.address.rpartition(":")
        self.peer = socket.create_connection((host, int(port)), timeout=60)
        self.peer.sendall(build_request(cookie(session), path=path))

    def answer(self) -> Response:
        received = b""
        with self.peer:
            while data := self.peer.recv(65536):
                received += data
        return parse_response(received)


def test_a_thousand_sessions_on_twenty_children_keep_each_session_s_order(serve: Start) -> None:
    server = serve(20)
    wrong: list[str] = []

    def visit(sessions: range) -> None:
        for number in sessions:
            begun = [Begun(server, f"s{number}", f"/{turn}") for turn in range(5)]  # nobody waits for an answer
            last = begun[-1].answer()
            answers = [*(one.answer() for one in begun[:-1]), last]
            if {pid_of(one) for one in answers} != {pid_of(last)} or not last.text.endswith(" /0 /1 /2 /3 /4"):
                wrong.append(f"{number}: {[one.text for one in answers]}")
            used.add(pid_of(last))

    used: set[int] = set()
    threads = [threading.Thread(target=visit, args=(range(first, 1000, 10),)) for first in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(used) == 20
    for number in (0, 500, 999):  # whom they know, they know later too
        assert ask(server, f"s{number}", "/5").text.endswith(" /4 /5")


def test_who_hammers_an_expensive_page_gets_503_and_does_not_slow_the_others(serve: Start) -> None:
    server = serve(3)
    assert ask(server, "modest").status == 200
    with ExitStack() as stack:
        greedy = [Begun(server, "greedy", "/slow") for _ in range(40)]
        for one in greedy:
            stack.callback(one.peer.close)
        slowest = 0.0
        for _ in range(50):
            began = time.monotonic()
            assert ask(server, "modest").status == 200
            slowest = max(slowest, time.monotonic() - began)
        answers = [one.answer() for one in greedy]
    refused = [answer for answer in answers if answer.status == 503]
    assert len(refused) == 40 - 15 - 1  # those that wait, and the one that is answered
    assert all(answer.header("Retry-After") for answer in refused)
    assert slowest < 16 * 0.3  # as long as the greedy one's requests take: they were not waited for
    assert len({pid_of(answer) for answer in answers if answer.status == 200}) == 1


def test_without_a_cookie_the_client_s_address_is_the_session(serve: Start) -> None:
    server = serve(4)

    def home(address: str) -> int:
        return pid_of(scgi_request(server.address, {"REMOTE_ADDR": address}))

    assert home("192.0.2.1") == home("192.0.2.1") != home("192.0.2.2")


@pytest.mark.parametrize("path", ["/killed", "/exits"])
def test_a_child_that_dies_is_a_502_and_who_waited_for_it_is_answered(serve: Start, path: str) -> None:
    server = serve(1)
    begun = [Begun(server, "a", "/slow"), Begun(server, "a", path), Begun(server, "a", "/2"), Begun(server, "b", "/3")]
    answers = [one.answer() for one in begun]
    assert [answer.status for answer in answers] == [200, 502, 200, 200]
    assert pid_of(answers[0]) != pid_of(answers[2])
    assert pid_of(answers[3]) in (pid_of(answers[0]), pid_of(answers[2]))  # whose turn was before, or after


def test_a_child_that_has_closed_everything_does_not_stop_the_dispatcher(serve: Start) -> None:
    server = serve(2)
    Begun(server, "a", "/closes").peer.close()
    assert ask(server, "b").status == 200
    assert ask(server, "a").status == 200


def test_a_child_that_bails_out_has_answered(serve: Start) -> None:
    server = serve(1)
    assert ask(server, "a", "/bails").text == "bye"
    assert ask(server, "a").status == 200


def test_a_child_that_is_killed_while_it_is_free_costs_nobody_anything(serve: Start) -> None:
    server = serve(1)
    for _ in range(20):
        os.kill(pid_of(ask(server, "a")), signal.SIGKILL)
    assert ask(server, "a").status == 200


def test_idle_children_are_retired(serve: Start) -> None:
    server = serve(4, "0.2")
    pids = [pid_of(ask(server, name)) for name in "abc"]
    wait_until(lambda: not any(map(is_alive, pids)))
    assert ask(server, "a").status == 200


def test_slow_senders_hold_up_nobody(serve: Start) -> None:
    server = serve(1)
    whole = build_request(cookie("a"), body := b"x" * 300_000, path="/", method="POST")
    with ExitStack() as stack:
        host, _, port = server.address.rpartition(":")
        slow = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(20)]
        for number, peer in enumerate(slow):
            peer.sendall(whole[: number * 10_000])
        assert ask(server, "a").status == 200
        slow[-1].sendall(whole[190_000:])
        received = b""
        while data := slow[-1].recv(65536):
            received += data
    assert parse_response(received).text.split()[1] == str(len(body))


def test_a_malformed_request_is_refused(serve: Start) -> None:
    server = serve(1)
    assert scgi_request(server.address, b"nonsense").status == 400


def test_hup_replaces_the_children(serve: Start) -> None:
    server = serve(2)
    before = pid_of(ask(server, "a"))
    begun = Begun(server, "a", "/slow")
    server.signal(signal.SIGHUP)
    assert begun.answer().status == 200
    wait_until(lambda: pid_of(ask(server, "a")) != before)
    wait_until(lambda: not is_alive(before))


def test_term_answers_who_has_arrived(serve: Start) -> None:
    server = serve(1)
    begun = [Begun(server, name, "/slow") for name in "abc"]
    wait_until(lambda: children_of(server.pid))
    assert begun[0].answer().status == 200
    server.signal(signal.SIGTERM)
    assert [one.answer().status for one in begun[1:]] == [200, 200]
    assert server.wait() == 0
