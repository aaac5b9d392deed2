"""What an import left open is named: real threads, sockets and databases, opened by the test itself."""

from __future__ import annotations

import _thread
import asyncio
import fcntl
import mmap
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from scgi.apps.leftovers import before_load, left_open
from support import free_port


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closed at the test's end."""
    with ExitStack() as stack:
        yield stack


@contextmanager
def thread(start: object, *arguments: object, **options: object) -> Iterator[None]:
    """A thread that waits until the end."""
    end, ended = threading.Event(), threading.Event()

    def run() -> None:
        end.wait()
        ended.set()

    start(run, *arguments, **options)
    try:
        yield
    finally:
        end.set()
        ended.wait(5)


def name(sock: socket.socket) -> str:
    return "{}:{}".format(*sock.getsockname())


def test_an_import_that_leaves_nothing_open_is_passed_over(opened: ExitStack, tmp_path: Path) -> None:
    opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    before = before_load()
    (tmp_path / "read.txt").write_text("read")
    with socket.create_server(("127.0.0.1", 0)):
        pass
    worker = threading.Thread(target=int)
    worker.start()
    worker.join()
    opened.enter_context(open(tmp_path / "read.txt"))
    assert left_open(before) == []


def test_a_connection_is_named_by_its_peer(opened: ExitStack) -> None:
    server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    before = before_load()
    opened.enter_context(socket.create_connection(server.getsockname()))
    assert left_open(before) == [f"a connection to {name(server)}"]


def test_a_connection_over_ipv6_is_written_as_addresses_are(opened: ExitStack) -> None:
    server = opened.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
    before = before_load()
    opened.enter_context(socket.create_connection(server.getsockname()[:2]))
    assert left_open(before) == [f"a connection to [::1]:{server.getsockname()[1]}"]


@pytest.mark.parametrize(("port", "product"), [(5432, "PostgreSQL"), (3306, "MySQL"), (6379, "Redis")])
def test_a_database_is_named_by_its_usual_port(opened: ExitStack, port: int, product: str) -> None:
    # An address that is this test's own: nobody else listens at that port there.
    host = f"127.{os.getpid() % 200 + 1}.{os.getpid() // 200 % 250}.{port % 250 + 1}"
    opened.enter_context(socket.create_server((host, port)))
    before = before_load()
    opened.enter_context(socket.create_connection((host, port)))
    assert left_open(before) == [f"a connection to {host}:{port} ({product})"]


@pytest.mark.parametrize(
    ("path", "product"),
    [(".s.PGSQL.5432", " (PostgreSQL)"), ("mysqld.sock", " (MySQL)"), ("redis.sock", " (Redis)"), ("x", "")],
)
def test_a_database_is_named_by_its_usual_socket(opened: ExitStack, short_tmp: Path, path: str, product: str) -> None:
    server = opened.enter_context(socket.socket(socket.AF_UNIX))
    server.bind(str(short_tmp / path))
    server.listen()
    before = before_load()
    client = opened.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(str(short_tmp / path))
    assert left_open(before) == [f"a connection to {short_tmp / path}{product}"]


def test_a_listening_socket_is_one(opened: ExitStack) -> None:
    before = before_load()
    server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    assert left_open(before) == [f"a listening socket at {name(server)}"]


def test_a_datagram_socket_is_named_unless_it_is_bound_to_nothing_or_to_the_systems_log(
    opened: ExitStack, short_tmp: Path
) -> None:
    before = before_load()
    metrics = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    metrics.connect(("127.0.0.1", 8125))
    opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.bind(("127.0.0.1", free_port()))
    assert left_open(before) == [
        "a datagram socket to 127.0.0.1:8125",
        f"a datagram socket at {name(receiver)}",
    ]


def test_an_event_loop_is_known_by_its_sockets(opened: ExitStack) -> None:
    before = before_load()
    loop = asyncio.new_event_loop()
    opened.callback(loop.close)
    found = left_open(before)
    assert len(found) == 2
    assert all(phrase.startswith("one end of a pair of sockets (descriptor ") for phrase in found)


def test_an_sqlite_database_is_named_and_keeps_its_locks(opened: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "pizzas.db"
    sqlite3.connect(path).execute("create table pizzas (name)").connection.close()
    before = before_load()
    database = sqlite3.connect(path, isolation_level=None)
    opened.callback(database.close)
    database.execute("begin exclusive")
    assert left_open(before) == [f"the SQLite database {path}"]
    # A lock of this process would not stand in its own way: ask another.
    other = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('select * from pizzas')"
    assert "database is locked" in subprocess.run([sys.executable, "-c", other], capture_output=True, text=True).stderr


def test_a_database_in_memory_and_other_files_are_passed_over(opened: ExitStack, tmp_path: Path) -> None:
    before = before_load()
    opened.callback(sqlite3.connect(":memory:").close)
    opened.enter_context(open(tmp_path / "empty", "w"))
    opened.enter_context(open(tmp_path / "text", "w")).write("SQLite format 3, they say")
    for end in os.pipe():
        opened.callback(os.close, end)
    assert left_open(before) == []


def test_a_descriptor_that_has_come_to_mean_something_else_is_new(opened: ExitStack) -> None:
    server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    place = opened.enter_context(socket.socket())
    before = before_load()
    with socket.create_connection(server.getsockname()) as client:
        os.dup2(client.fileno(), place.fileno())
    assert left_open(before) == [f"a connection to {name(server)}"]


def test_a_thread_is_named(opened: ExitStack) -> None:
    before = before_load()
    opened.enter_context(thread(lambda run: threading.Thread(target=run, name="poller", daemon=True).start()))
    assert left_open(before) == ["the thread 'poller', which runs in no worker"]


def test_threads_that_python_does_not_list_are_counted(opened: ExitStack) -> None:
    before = before_load()
    opened.enter_context(thread(lambda run: _thread.start_new_thread(run, ())))
    assert left_open(before) == ["a thread from outside the threading module, which runs in no worker"]
    opened.enter_context(thread(lambda run: _thread.start_new_thread(run, ())))
    assert left_open(before) == ["2 threads from outside the threading module, which run in no worker"]


def test_threads_of_a_library_are_known_by_their_names(opened: ExitStack) -> None:
    def run_as(run: Callable[[], None]) -> None:
        def named() -> None:
            Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text("jobs")
            begun.set()
            run()

        begun = threading.Event()
        _thread.start_new_thread(named, ())
        begun.wait()

    before = before_load()
    opened.enter_context(thread(run_as))
    assert left_open(before) == ["a thread from outside the threading module (jobs), which runs in no worker"]


def test_as_many_threads_as_openblas_has_are_passed_over(
    opened: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has one for each further CPU, ends them before a fork, and makes them anew when it wants them."""
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    library = tmp_path / "libscipy_openblas64_.so"
    library.write_bytes(b"code")
    before = before_load()
    with open(library) as file:
        opened.enter_context(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    for _ in range(2):
        opened.enter_context(thread(lambda run: _thread.start_new_thread(run, ())))
    assert left_open(before) == []
    opened.enter_context(thread(lambda run: _thread.start_new_thread(run, ())))
    assert left_open(before) == ["3 threads from outside the threading module, which run in no worker"]


def test_what_was_there_before_is_nobodys_fault(opened: ExitStack) -> None:
    server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    opened.enter_context(socket.create_connection(server.getsockname()))
    opened.enter_context(thread(lambda run: threading.Thread(target=run).start()))
    before = before_load()
    assert left_open(before) == []


def test_looking_leaves_every_descriptor_as_it_is(opened: ExitStack) -> None:
    server = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    before = before_load()
    socket.setdefaulttimeout(5)  # as applications do, for all sockets that they make from here on
    opened.callback(socket.setdefaulttimeout, None)
    client = opened.enter_context(socket.create_connection(server.getsockname()))
    os.set_blocking(client.fileno(), True)  # as a database's library in C may have it
    quick = opened.enter_context(socket.create_connection(server.getsockname()))

    def state() -> list[object]:
        flags = [fcntl.fcntl(sock, command) for sock in (client, quick) for command in (fcntl.F_GETFD, fcntl.F_GETFL)]
        return [sorted(os.listdir("/proc/self/fd")), flags, socket.getdefaulttimeout()]

    was = state()
    assert len(left_open(before)) == 2
    assert state() == was
    peer = opened.enter_context(server.accept()[0])
    client.send(b"still there")
    assert peer.recv(20) == b"still there"
