"""Where `RequestTimeout` may be raised: in the application's code, of the request that has had its time, and once."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scgi.apps.handler import HandlerAdapter, SCGIHandler
from scgi.apps.wsgi import WsgiAdapter
from scgi.errors import RequestTimeout
from scgi.net.stream import PeerGone
from scgi.status.scoreboard import Scoreboard, Slot, Stage
from scgi.workers.interrupt import Interrupter, in_application

VARIABLES = {"REQUEST_METHOD": "GET", "CONTENT_LENGTH": "0", "SCGI": "1", "REQUEST_URI": "/"}


class Desk:
    """A slot with a request, and what the application sees of itself."""

    def __init__(self) -> None:
        self.board = Scoreboard(2)
        self.slots = [Slot(self.board, 0, 1), Slot(self.board, 1, 2)]
        self.peer, self.ours = socket.socketpair()
        self.seen: list[bool] = []
        self.interrupter = Interrupter(self.slots, self.board)

    def begin(self, slot: Slot, serial: int = 1) -> None:
        slot.fd = self.ours.fileno()
        slot.serial = serial
        slot.thread = threading.get_ident()
        self.board.mark(slot.index - self.slots[0].index, Stage.RUNNING)

    def look(self) -> None:
        """Called in the code that is to be judged."""
        self.seen.append(in_application(sys._getframe(1)))

    def answer(self, adapter: Any, slot: Slot | None = None, **variables: Any) -> Any:
        slot = slot or self.slots[0]
        slot.variables = {**getattr(adapter, "base", {}), **VARIABLES, **variables}
        return adapter.answer(slot, self.ours.fileno(), slot.variables, 0, io.BytesIO())

    def received(self) -> bytes:
        self.ours.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: self.peer.recv(65536), b""))


@pytest.fixture
def desk() -> Iterator[Desk]:
    found = Desk()
    yield found
    found.peer.close()
    found.ours.close()


def wsgi(body: Callable[[], Any]) -> WsgiAdapter:
    """An application that starts its response and returns what `body` does."""

    def application(environ, start_response):
        start_response("200 OK", [])
        return body()

    return WsgiAdapter(application)


def test_the_call_the_steps_and_the_close_of_a_wsgi_application_are_its_code(desk: Desk) -> None:
    class Result:
        def __init__(self) -> None:
            desk.look()

        def __iter__(self) -> Iterator[bytes]:
            desk.look()
            return self

        def __next__(self) -> bytes:
            desk.look()
            raise StopIteration

        def close(self) -> None:
            desk.look()

    desk.answer(wsgi(Result))
    assert desk.seen == [True] * 5  # iter() is called on what iter() has given


def test_a_generator_and_a_file_like_object_are_the_applications_code(desk: Desk) -> None:
    def generator() -> Iterator[bytes]:
        try:
            desk.look()
            yield b"x"
        finally:
            desk.look()

    class File:
        def read(self, size: int) -> bytes:
            desk.look()
            return b""

    def application(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](File())

    desk.answer(wsgi(generator))
    desk.answer(WsgiAdapter(application))
    assert desk.seen == [True] * 3


def test_what_the_application_calls_through_context_managers_of_its_own_is_its_code(desk: Desk) -> None:
    @contextlib.contextmanager
    def transaction() -> Iterator[None]:
        desk.look()
        yield
        desk.look()

    @transaction()
    def body() -> list[bytes]:
        desk.look()
        return [b"x"]

    desk.answer(wsgi(body))
    assert desk.seen == [True] * 3


def handlers(look: Callable[[], None]) -> list[type[SCGIHandler]]:
    class Produce(SCGIHandler):
        def produce(self, env, bodysize, input, output):
            look()
            output.write("Content-Type: text/plain\n\n")

    class Cgilike(SCGIHandler):
        def produce_cgilike(self, env, bodysize):
            look()
            print("Content-Type: text/plain\n")

    class OfTheConnection(SCGIHandler):
        def handle_connection(self, conn):
            look()
            conn.sendall(b"Content-Type: text/plain\n\n")

    class OwnReader(SCGIHandler):
        def read_env(self, input):
            look()
            return super().read_env(input)

    return [Produce, Cgilike, OfTheConnection, OwnReader]


@pytest.mark.parametrize("style", range(4))
def test_a_handler_of_any_style_is_the_applications_code(desk: Desk, style: int) -> None:
    desk.answer(HandlerAdapter(handlers(desk.look)[style](-1)))
    assert desk.seen == [True]


def test_what_our_own_code_calls_is_not_the_applications(desk: Desk) -> None:
    class Value(str):
        def encode(self, *args: Any, **options: Any) -> bytes:  # where the environment of a CGI program is made
            desk.look()
            return super().encode(*args, **options)

    class Listener(logging.Handler):  # where a failure is logged
        def emit(self, record: logging.LogRecord) -> None:
            desk.look()

    def fails() -> Any:
        raise ValueError("for the log")

    listener = Listener()
    logging.getLogger("scgi.request").addHandler(listener)
    try:
        desk.answer(HandlerAdapter(handlers(lambda: None)[1](-1)), HTTP_COOKIE=Value("a"))
        desk.answer(wsgi(fails))
    finally:
        logging.getLogger("scgi.request").removeHandler(listener)
    desk.look()
    assert desk.seen and not any(desk.seen)


def test_a_context_manager_of_ours_is_not_interrupted_while_it_enters(desk: Desk) -> None:
    frames: list[str] = []

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if frame.f_code is contextlib._GeneratorContextManager.__enter__.__code__:
            frames.append(frame.f_back.f_code.co_name)
            desk.seen.append(in_application(frame))
        return None

    adapter = HandlerAdapter(handlers(lambda: None)[1](-1))
    sys.settrace(trace)
    try:
        desk.answer(adapter)
    finally:
        sys.settrace(None)
    assert frames == ["produce"] and desk.seen == [False]


@pytest.fixture
def nudged(desk: Desk) -> Iterator[Callable[[], None]]:
    """Nudges this process, as the pool nudges a worker."""
    before = signal.signal(signal.SIGURG, lambda signum, frame: desk.interrupter.on_signal(frame))
    yield functools.partial(os.kill, os.getpid(), signal.SIGURG)
    signal.signal(signal.SIGURG, before)


def test_the_request_that_is_condemned_is_interrupted_once(desk: Desk, nudged: Callable[[], None]) -> None:
    cleaned = []

    def body() -> Any:
        try:
            for _ in range(3):
                nudged()
        except BaseException as error:
            cleaned.append(type(error))
            nudged()
            raise

    desk.begin(desk.slots[0])
    desk.board.condemn(0, 1)
    desk.answer(wsgi(body))
    assert cleaned == [RequestTimeout]
    assert desk.board.sight(0).stage == Stage.RUNNING
    assert desk.received().startswith(b"Status: 504 ")


@pytest.mark.parametrize("condemned", [0, 1, 3])
def test_a_nudge_for_another_request_interrupts_nobody(desk: Desk, nudged: Callable[[], None], condemned: int) -> None:
    desk.begin(desk.slots[0], serial=2)
    desk.board.condemn(0, condemned)
    desk.answer(wsgi(lambda: nudged() or [b"whole"]))
    assert desk.received().endswith(b"whole")


def test_a_thread_is_interrupted_in_the_condemned_request_and_never_after_it(desk: Desk) -> None:
    """The worst case: requests end as they are condemned, again and again."""
    slot = desk.slots[1]
    hits: list[bool] = []  # whether the request was condemned that was interrupted
    stray: list[BaseException] = []

    def application(environ: Any, start_response: Any) -> Any:
        try:
            _run_python(50)
        except RequestTimeout:
            hits.append(desk.board.condemned(1) == slot.serial)
        raise PeerGone  # so that nothing is sent: the next request has the same connection

    def serve() -> None:
        sys.settrace(None)
        try:
            adapter = WsgiAdapter(application)
            for serial in range(1, 100_000):
                if (serial > 2000 or time.monotonic() > enough) and len(hits) > 10:
                    break
                if time.monotonic() > too_long:
                    break
                desk.begin(slot, serial)
                with contextlib.suppress(RequestTimeout):  # as the worker's loop does
                    desk.answer(adapter, slot)
                    slot.fd = -1
                    desk.interrupter.settle(slot)
                slot.fd = -1
                _run_python(20)
        except BaseException as error:
            stray.append(error)

    enough, too_long = time.monotonic() + 5, time.monotonic() + 20  # where it is traced, fewer have to do
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that the two threads meet at every point
    traced = sys.gettrace()
    sys.settrace(None)  # Python 3.11 hangs where it is traced and an exception is pending in another thread
    try:
        thread = threading.Thread(target=serve)
        thread.start()
        while thread.is_alive():
            desk.board.condemn(1, slot.serial)
            desk.interrupter.interrupt(slot)
        thread.join()
    finally:
        sys.settrace(traced)
        sys.setswitchinterval(before)
    assert not stray, "raised where no request was running"
    assert len(hits) > 10 and all(hits), f"raised in another request: {hits}"


def _run_python(steps: int) -> None:
    for _ in range(steps):
        time.monotonic()
