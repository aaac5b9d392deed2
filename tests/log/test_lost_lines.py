"""Lines that cannot be written: nobody waits for them, they are counted, and how many are missing is said."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from log.test_log_setup import messages, python
from scgi.log.sink import PATIENCE, Sink


@pytest.fixture
def pipe() -> Iterator[tuple[int, Sink]]:
    """A pipe's reading end, and a sink for the other."""
    reader, writer = os.pipe()
    sink = Sink(descriptor=writer)
    yield reader, sink
    sink.close()
    os.close(reader)
    os.close(writer)


def test_however_slowly_a_pipe_is_emptied_a_hundred_lines_do_not_wait_long(pipe: tuple[int, Sink]) -> None:
    reader, sink = pipe
    began = time.monotonic()
    while not sink.dropped:
        sink.write("x" * 4000)
    for _ in range(100):
        os.read(reader, 4096)  # there is room again, for one
        sink.write("x" * 4000)
        sink.write("x" * 4000)
    assert time.monotonic() - began < PATIENCE + 0.03
    assert sink.dropped > 90


def test_how_many_lines_are_missing_is_one_line_as_soon_as_there_is_room() -> None:
    done = python("""
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        log.setup()
        ours = logging.getLogger("scgi")
        while not log.dropped():
            ours.info("x" * 1000)
        for _ in range(9):
            ours.info("x" * 1000)
        read = os.read(reader, 1 << 20)
        ours.info("room")
        ours.info("again")
        print(os.read(reader, 1 << 20).decode(), end="")
    """)
    assert messages(done.stdout)[-3:] == [
        "room", "log lines lost: 10 that this process could not write to standard error", "again",
    ]  # fmt: skip


def test_lines_of_the_access_log_that_are_missing_are_told_in_the_log() -> None:
    done = python("""
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        log.setup()
        write = log.open_access_log("access")
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
        for _ in range(3):
            write("0123456789")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        write("0123456789")
        print(open("access").read(), log.dropped())
        os.unlink("access")
    """)
    assert done.stdout == "0123456789\n0123456789\n 3\n"
    assert messages(done.stderr) == ["log lines lost: 3 that this process could not write to access"]


def test_each_process_tells_its_own_and_all_together_are_counted() -> None:
    done = python("""
        from scgi.log.sink import dropped_by_all
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        log.setup()
        ours = logging.getLogger("scgi")
        while not log.dropped():
            ours.info("x" * 1000)
        for _ in range(3):
            if not os.fork():
                ours.info("x" * 1000)
                ours.info("x" * 1000)
                os._exit(log.dropped())
            assert os.waitstatus_to_exitcode(os.wait()[1]) == 2
        print(log.dropped(), dropped_by_all())
        os.read(reader, 1 << 20)
        if not os.fork():
            ours.info("has lost none")
            os._exit(0)
        os.wait()
        ours.info("has lost one")
        print(os.read(reader, 1 << 20).decode(), end="")
    """)
    first, *rest = done.stdout.splitlines()
    assert first == "1 7"
    assert messages("\n".join(rest))[-3:] == [
        "has lost none", "has lost one", "log lines lost: 1 that this process could not write to standard error",
    ]  # fmt: skip
