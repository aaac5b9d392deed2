"""The truth about servers that fail: 502 cut, 503 nobody there, 504 too late; and the next one is asked instead."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from apache_module.asking import ask, request
from gateway.toys import Answer, Conversation, Upstream
from support import free_port, short_folder, wait_until
from support.apache_module import Apache, serving


@dataclass(slots=True)
class Pair:
    """An Apache with one mount and two servers; `asked` says who was asked, in order."""

    web: Apache
    first: Upstream
    second: Upstream
    asked: list[str]

    def behave(self, first: Answer, second: Answer | None = None) -> None:
        def noted(name: str, answer: Answer) -> Answer:
            def play(talk: Conversation) -> None:
                self.asked.append(name)
                answer(talk)

            return play

        self.first.answer = noted("first", first)
        self.second.answer = noted("second", second or (lambda talk: talk.answer(b"second")))


@pytest.fixture
def pair() -> Iterator[Pair]:
    first, second = (Upstream(f"127.0.0.1:{free_port()}") for _ in range(2))
    config = f"""
SCGIMount /app {first.address} {second.address}
SCGIMount /one {first.address}
SCGIServerTimeout 10
SCGIConnectTimeout 1
"""
    with serving(config) as web:
        pair = Pair(web, first, second, [])
        yield pair
        for server in (pair.first, pair.second):
            with suppress(OSError):  # closed by the test
                server.close()
            server.settle()


def nothing(talk: Conversation) -> None:
    """Close without a byte."""


def after_the_body(talk: Conversation) -> None:
    for _ in talk.body():
        pass


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_who_dies_before_a_byte_is_not_the_last_to_be_asked(pair: Pair, method: str) -> None:
    pair.behave(nothing)
    for _ in range(4):
        answer = ask(pair.web, "/app", method)
        assert answer.status == 200, answer.raw
    assert pair.asked.count("second") == 4
    assert pair.asked.count("first") <= 2  # it rests; the first turn may have been the second's


def test_one_alone_that_dies_before_a_byte_is_a_502(pair: Pair) -> None:
    pair.behave(nothing)
    assert ask(pair.web, "/one").status == 502


def test_a_post_whose_body_is_gone_is_not_repeated(pair: Pair) -> None:
    pair.behave(after_the_body, after_the_body)
    answer = ask(pair.web, "/app", "POST", (), bytes(300_000))
    assert answer.status == 502
    assert len(pair.asked) == 1


def test_a_post_is_never_repeated_once_anything_was_sent(pair: Pair) -> None:
    pair.behave(nothing, nothing)
    assert ask(pair.web, "/app", "POST", (), b"12345").status == 502
    assert ask(pair.web, "/app", "POST", (), b"").status == 502
    assert len(pair.asked) == 2


def test_a_small_put_is_repeated_whole(pair: Pair) -> None:
    bodies: list[bytes] = []

    def take(talk: Conversation) -> None:
        bodies.append(b"".join(talk.body()))
        if len(bodies) == 2:
            talk.answer(b"stored")

    pair.behave(take, take)
    answer = ask(pair.web, "/app", "PUT", (), b"12345", chunked=True)
    assert (answer.status, answer.body) == (200, b"stored")
    assert bodies == [b"12345", b"12345"]


def test_once_an_answer_has_begun_nobody_else_is_asked(pair: Pair) -> None:
    pair.behave(lambda talk: talk.send(b"Status: 200"), lambda talk: talk.send(b"Status: 200"))
    assert ask(pair.web, "/app").status == 502
    assert len(pair.asked) == 1


def test_a_503_of_the_application_s_own_is_an_answer(pair: Pair) -> None:
    pair.behave(*[lambda talk: talk.send(b"Status: 503 Later\r\n\r\nlater")] * 2)
    answer = ask(pair.web, "/app")
    assert (answer.status, answer.reason, answer.body, len(pair.asked)) == (503, "Later", b"later", 1)


def test_both_refusing_is_a_503_and_each_is_named_in_the_log(pair: Pair) -> None:
    pair.first.close()
    pair.second.close()
    for method in ("GET", "POST"):
        assert ask(pair.web, "/app", method, (), b"12345").status == 503
    assert pair.first.address in pair.web.log() and pair.second.address in pair.web.log()
    pair.first = Upstream(pair.first.address)
    pair.second = Upstream(pair.second.address)
    assert ask(pair.web, "/app").status == 200  # though both rest: nobody is refused because of that


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_when_all_have_just_gone_a_request_waits_for_the_first_that_is_back(pair: Pair, method: str) -> None:
    pair.first.close()
    pair.second.close()
    found: list[int] = []
    asking = threading.Thread(target=lambda: found.append(ask(pair.web, "/app", method, (), b"12345").status))
    asking.start()
    wait_until(lambda: pair.web.codes().count("SCGI10") == 2)
    pair.first = Upstream(pair.first.address)
    pair.second = Upstream(pair.second.address)
    asking.join()
    assert found == [200]
    assert pair.web.codes().count("SCGI10") == 2  # said once, however often they were asked


def test_who_no_longer_wants_the_answer_is_not_waited_with(pair: Pair) -> None:
    pair.first.close()
    pair.second.close()
    with socket.create_connection(("127.0.0.1", pair.web.port)) as peer:
        peer.sendall(request("/app"))
        wait_until(lambda: "SCGI10" in pair.web.codes())
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: "SCGI12" in pair.web.codes(), 1.5, "the end of the wait, which would else be two seconds")


def test_a_request_that_every_server_dies_of_is_not_passed_on_for_ever(pair: Pair) -> None:
    pair.behave(nothing, nothing)
    assert ask(pair.web, "/app").status == 502
    assert len(pair.asked) == 4


def test_refused_the_next_is_asked_even_for_a_post_and_the_first_rests(pair: Pair) -> None:
    pair.first.close()
    pair.behave(nothing)
    for _ in range(6):
        answer = ask(pair.web, "/app", "POST", (), b"12345")
        assert (answer.status, answer.body) == (200, b"second")
    pair.first = Upstream(pair.first.address)
    pair.behave(lambda talk: talk.answer(b"first"))
    deadline = time.monotonic() + 10  # it rests for two seconds
    while ask(pair.web, "/app").body != b"first":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_both_take_turns(pair: Pair) -> None:
    pair.behave(lambda talk: talk.answer(b"first"))
    for _ in range(10):
        ask(pair.web, "/app")
    assert pair.asked.count("first") == pair.asked.count("second") == 5


# -- time -------------------------------------------------------------------------------------------------------------


def test_silence_is_a_504_and_the_server_is_left(upstream: Upstream) -> None:
    gone = threading.Event()

    def silent(talk: Conversation) -> None:
        talk.wait_for_eof()
        gone.set()

    upstream.answer = silent
    with serving(f"SCGIMount / {upstream.address}\nSCGIServerTimeout 0.3") as web:
        assert ask(web, "/").status == 504
        assert gone.wait(10)
        assert ask(web, "/", "POST", (), bytes(100_000)).status == 504


@contextmanager
def full_queue(folder: Path) -> Iterator[str]:
    """The address of a unix socket that has no room for a single connection more."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(f"{folder}/full")
        Path(f"{folder}/full").chmod(0o777)
        listener.listen(0)
        while True:
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.setblocking(False)
            try:
                peer.connect(f"{folder}/full")
            except BlockingIOError:
                break
        yield f"unix:{folder}/full"


def test_a_full_unix_backlog_is_a_503_within_the_connect_timeout(short_tmp: Path) -> None:
    with (
        full_queue(short_tmp) as address,
        serving(f"SCGIMount / {address}\nSCGIConnectTimeout 0.5\nSCGIServerTimeout 60") as web,
    ):
        began = time.monotonic()
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(ask(web, "/").status)) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [503] * 5
        assert time.monotonic() - began < 20  # of 60 that the server might be silent: no hang


def test_the_next_is_asked_instead_of_a_full_one(upstream: Upstream, short_tmp: Path) -> None:
    config = f"SCGIMount / {{}} {upstream.address}\nSCGIConnectTimeout 0.2"
    with full_queue(short_tmp) as address, serving(config.format(address)) as web:
        assert [ask(web, "/").status for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("kind", ["tcp", "unix", "no permission"])
def test_nobody_there_is_a_503_and_the_log_says_what_to_do(kind: str) -> None:
    with short_folder() as folder:
        address = f"127.0.0.1:{free_port()}" if kind == "tcp" else f"unix:{folder}/s"
        with ExitStack() as stack:
            if kind == "no permission":
                listener = stack.enter_context(socket.socket(socket.AF_UNIX))
                listener.bind(f"{folder}/s")
                listener.listen(5)
                Path(f"{folder}/s").chmod(0)
            with serving(f"SCGIMount / {address}") as web:
                answer = ask(web, "/")
                assert answer.status == 503 and answer.whole
                assert address in web.log() and web.codes()
