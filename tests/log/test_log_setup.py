"""Where log lines go: real files, pipes and terminals, in processes of their own."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from scgi.log import Sink


def python(program: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program; its standard error is the log."""
    options.setdefault("stderr", subprocess.PIPE)
    return subprocess.run(
        [sys.executable, "-c", "import logging, os, sys; from scgi import log\n" + textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
        **options,
    )


def messages(text: str) -> list[str]:
    return [line.split(": ", 1)[1] for line in text.splitlines()]


def test_our_lines_and_those_of_an_application_without_a_set_up_go_to_standard_error() -> None:
    done = python("""
        log.setup()
        log.set_request_lookup(lambda: "r1")
        logging.getLogger("scgi.workers").info("ours")
        logging.getLogger("scgi.workers").debug("not asked for")
        logging.getLogger("app").warning("theirs")
        logging.warning("root's")
    """)
    assert messages(done.stderr) == ["ours", "theirs", "root's"]
    assert " scgi.workers [request r1]: ours" in done.stderr
    assert " app [request r1]: theirs" in done.stderr


def test_basic_config_of_the_application_does_what_it_always_does() -> None:
    done = python("""
        log.setup()
        logging.basicConfig(level=logging.DEBUG, format="MINE %(message)s", stream=sys.stdout)
        logging.getLogger("app").debug("theirs")
        logging.getLogger("scgi.workers").info("ours")
    """)
    assert done.stdout == "MINE theirs\n"
    assert messages(done.stderr) == ["ours"]


def test_the_applications_set_up_cannot_silence_us() -> None:
    done = python("""
        import logging.config
        ours = logging.getLogger("scgi.workers")
        log.setup()
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
        ours.info("ours")
        logging.getLogger("scgi").info("ours too")
        logging.getLogger("app").warning("theirs")
    """)
    assert messages(done.stderr) == ["ours", "ours too", "theirs"]


def test_a_basic_config_that_asks_for_nothing_changes_nothing() -> None:
    done = python("""
        log.setup(format="json")
        logging.basicConfig()
        logging.error("root's")  # which calls basicConfig() itself
    """)
    assert done.stderr.startswith("{") and done.stderr.count("\n") == 1


def test_a_set_up_that_came_before_is_left_alone() -> None:
    done = python("""
        logging.basicConfig(format="MINE %(message)s", stream=sys.stdout)
        log.setup("debug")
        logging.getLogger("app").warning("theirs")
        logging.getLogger("app").info("not asked for")
        logging.getLogger("scgi").debug("ours")
    """)
    assert done.stdout == "MINE theirs\n"
    assert messages(done.stderr) == ["ours"]


def test_setting_up_again_replaces_what_was_before(tmp_path: Path) -> None:
    done = python(f"""
        log.setup(file={str(tmp_path / "a")!r})
        log.setup("error", "json", {str(tmp_path / "b")!r})
        logging.getLogger("scgi").warning("not asked for")
        logging.getLogger("scgi").error("once")
    """)
    assert done.stderr == "" and (tmp_path / "a").read_text() == ""
    assert (tmp_path / "b").read_text().count("once") == 1
    assert '"level": "error"' in (tmp_path / "b").read_text()


def test_arguments_that_do_not_fit_are_logged_as_they_are() -> None:
    done = python('log.setup(); logging.getLogger("scgi").info("%d apples", "some")')
    assert messages(done.stderr)[0].startswith("'%d apples' ('some',) (cannot be formatted: TypeError(")


def test_an_object_that_cannot_be_shown_costs_its_line_and_raises_nothing() -> None:
    done = python("""
        class Bad:
            def __repr__(self): raise KeyError
        log.setup()
        logging.getLogger("scgi").info("%s", Bad())
        logging.getLogger("scgi").info("dropped %d", log.dropped())
    """)
    assert messages(done.stderr) == [
        "dropped 1", "log lines lost: 1 that this process could not write to standard error",
    ]  # fmt: skip


def test_filters_of_the_application_hold() -> None:
    done = python("""
        log.setup()
        logging.getLogger("scgi").handlers[0].addFilter(lambda record: "secret" not in record.getMessage())
        logging.getLogger("scgi").info("secret")
        logging.getLogger("scgi").info("open")
    """)
    assert messages(done.stderr) == ["open"]


def test_a_file_is_appended_to_and_opened_anew_behind_the_same_number(tmp_path: Path) -> None:
    file, access = tmp_path / "a.log", tmp_path / "access.log"
    file.write_text("before: before\n")
    done = python(f"""
        log.setup(file={str(file)!r})
        write = log.open_access_log({str(access)!r})
        number = log.descriptor()
        logging.getLogger("scgi").info("first")
        write("first")
        os.rename({str(file)!r}, {str(file) + ".1"!r})
        os.rename({str(access)!r}, {str(access) + ".1"!r})
        logging.getLogger("scgi").info("second")
        assert log.reopen() is True
        logging.getLogger("scgi").info("third")
        write("third")
        assert log.descriptor() == number and not os.get_inheritable(number)
    """)
    assert done.returncode == 0, done.stderr
    assert messages(Path(f"{file}.1").read_text()) == ["before", "first", "second"]
    assert messages(file.read_text()) == ["third"]
    assert (Path(f"{access}.1").read_text(), access.read_text()) == ("first\n", "third\n")


def test_a_file_that_cannot_be_opened_anew_stays_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    done = python(f"""
        log.setup(file={str(folder / "a.log")!r})
        os.rename({str(folder)!r}, {str(folder) + "2"!r})
        assert log.reopen() is False
        logging.getLogger("scgi").info("still here")
    """)
    assert done.returncode == 0, done.stderr
    assert messages((tmp_path / "logs2/a.log").read_text()) == ["still here"]


def test_the_access_log_can_go_to_standard_output() -> None:
    done = python('write = log.open_access_log("-"); write("one"); write("two"); assert log.reopen()')
    assert done.stdout == "one\ntwo\n"


def test_a_redirection_to_a_file_is_shared_with_what_the_application_prints(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w") as out:
        python(
            """
            log.setup()
            print("printed: one", file=sys.stderr, flush=True)
            logging.getLogger("scgi").info("two")
            print("printed: three", file=sys.stderr, flush=True)
            """,
            stderr=out,
        )
    assert messages((tmp_path / "out").read_text()) == ["one", "two", "three"]


# Prints how many lines were dropped, and the time of a slow line: the slowest few may be the machine's doing.
STUCK = """
    import time
    log.setup()
    took = []
    for number in range(3000):
        began = time.monotonic()
        logging.getLogger("scgi").info("line %d " + "x" * 100, number)
        took.append(time.monotonic() - began)
    print(log.dropped(), sorted(took)[-10])
"""


@pytest.mark.alone
def test_a_pipe_that_nobody_empties_costs_lines_not_time() -> None:
    reader, writer = os.pipe()
    try:
        done = python(STUCK, stderr=writer)
    finally:
        os.close(writer)
    dropped, slow = done.stdout.split()
    assert int(dropped) > 1000
    assert float(slow) < 0.005
    assert os.get_blocking(reader)
    with open(reader) as log:
        lines = log.read().splitlines()
    assert len(lines) + int(dropped) == 3000
    assert all(line.endswith("x" * 100) for line in lines)


@pytest.mark.alone
def test_a_socket_that_nobody_reads_costs_lines_not_time() -> None:
    ours, theirs = socket.socketpair()  # what standard error is under systemd
    with ours, theirs:
        done = python(STUCK, stderr=theirs.fileno())
        assert theirs.getblocking()
    dropped, slow = done.stdout.split()
    assert int(dropped) > 1000
    assert float(slow) < 0.005


def test_a_pipe_whose_reader_left_raises_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = python('log.setup(); logging.getLogger("scgi").info("x"); print(log.dropped())', stderr=writer)
    finally:
        os.close(writer)
    assert (done.stdout, done.returncode) == ("1\n", 0)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_raises_nothing() -> None:
    done = python('log.setup(file="/dev/full"); logging.getLogger("scgi").info("x"); print(log.dropped())')
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)


def test_a_closed_standard_error_is_never_mistaken_for_what_gets_its_number() -> None:
    done = python("""
        os.close(2)
        log.setup()
        reader, writer = os.pipe()
        logging.getLogger("scgi").info("x")
        os.set_blocking(reader, False)
        try:
            os.read(reader, 100)
        except BlockingIOError:
            print("nothing")
    """)
    assert done.stdout == "nothing\n"


def test_a_terminal_gets_whole_lines() -> None:
    ours, theirs = pty.openpty()
    try:
        python('log.setup(); logging.getLogger("scgi").info("hello")', stderr=theirs)
        assert os.read(ours, 4096).endswith(b" INFO scgi: hello\r\n")
    finally:
        os.close(ours)
        os.close(theirs)


def test_where_a_pipe_cannot_be_opened_anew_it_is_looked_at_before_each_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = os.open

    def refusing(path: str, *more: Any) -> int:
        if path.startswith("/proc/"):
            raise PermissionError(13, "Permission denied")
        return real(path, *more)

    monkeypatch.setattr(os, "open", refusing)
    reader, writer = os.pipe()
    try:
        sink = Sink(descriptor=writer)
        for _ in range(1000):
            sink.write("x" * 499)
        assert sink.dropped > 0
        assert os.read(reader, 500) == b"x" * 499 + b"\n"
        sink.close()
    finally:
        os.close(reader)


def test_a_line_after_one_that_was_cut_begins_on_its_own() -> None:
    reader, writer = os.pipe()
    sink = Sink(descriptor=writer)
    sink.write("a" * 200_000)
    assert sink.dropped == 1
    cut = os.read(reader, 1 << 20)
    sink.write("next")
    assert not cut.endswith(b"\n")
    assert os.read(reader, 100) == b"\nnext\n"
    sink.close()
    os.close(reader)
    os.close(writer)


def test_a_child_writes_on_while_another_thread_of_the_parent_was_logging_at_the_fork(tmp_path: Path) -> None:
    file = tmp_path / "log"  # no pipe, which this flood could fill
    # Coverage has a lock that a fork between two lines of the thread would leave locked in the child.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    program = f"""
        import threading
        log.setup(file={str(file)!r})
        stop = threading.Event()
        def chatter():
            while not stop.is_set():
                logging.getLogger("scgi").info("parent")
        thread = threading.Thread(target=chatter)
        thread.start()
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                logging.getLogger("scgi").info("child")
                os._exit(0)
            os.waitpid(pid, 0)
        stop.set()
        thread.join()
    """
    done = python(program, env=environ)
    assert done.returncode == 0, done.stderr
    assert messages(file.read_text()).count("child") == 20
