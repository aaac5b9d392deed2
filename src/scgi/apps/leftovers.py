"""What an application's import has left open that all workers would share after a fork.

A connection that two processes write to, a thread that exists in none of the workers: such things go wrong rarely and
far from their cause, so they are named at the start. Nothing is closed. What is looked at is what this process holds:
threads everywhere, descriptors where there is a /dev/fd.

Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_SQLITE: Final = b"SQLite format 3\0"
_TASKS: Final = "/proc/self/task"
_LINGER: Final = 0.02  # seconds
# Datagrams to these are whole messages that nobody answers: sharing them is no harm.
_LOGGERS: Final = ("/dev/log", "/run/systemd/journal/", "/var/run/syslog", "/run/log")
_PORTS: Final = {
    389: "LDAP", 636: "LDAP", 1433: "SQL Server", 1521: "Oracle", 3306: "MySQL", 5432: "PostgreSQL",
    5672: "RabbitMQ", 5671: "RabbitMQ", 6379: "Redis", 6380: "Redis", 6432: "PgBouncer", 9042: "Cassandra",
    9092: "Kafka", 9200: "Elasticsearch", 11211: "memcached", 27017: "MongoDB",
}  # fmt: skip
_PATHS: Final = {".s.PGSQL.": "PostgreSQL", "mysql": "MySQL", "mariadb": "MariaDB", "redis": "Redis"}

_Descriptor = tuple[int, int, int]  # number, device, inode


@dataclass(frozen=True, slots=True)
class Before:
    """What was there before the application's code ran."""

    threads: frozenset[threading.Thread]
    tasks: frozenset[str]
    descriptors: frozenset[_Descriptor]


def before_load() -> Before:
    """To be called before the application is imported; `left_open` wants it."""
    return Before(
        frozenset(threading.enumerate()),
        frozenset(_tasks()),
        frozenset(entry for entry, _ in _descriptors()),
    )


def left_open(before: Before) -> list[str]:
    """What has come since, one phrase each: ``"a connection to 127.0.0.1:5432 (PostgreSQL)"``."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(None)  # with one, a look at a socket would make it non-blocking
    try:
        return [*_new_threads(before), *_new_descriptors(before)]
    finally:
        socket.setdefaulttimeout(timeout)


def _new_threads(before: Before) -> Iterator[str]:
    for thread in threading.enumerate():
        if thread not in before.threads and thread is not threading.current_thread():
            yield f"the thread {thread.name!r}, which runs in no worker"
    foreign = _foreign_tasks(before)
    if foreign:
        time.sleep(_LINGER)  # a thread that has ended is in the list a moment longer
        foreign &= _foreign_tasks(before)
    if len(foreign) > _openblas_threads():
        names = {_task_name(task) for task in foreign} - {_task_name(str(os.getpid()))}
        count, run = ("a thread", "runs") if len(foreign) == 1 else (f"{len(foreign)} threads", "run")
        known_as = f" ({', '.join(sorted(names))})" if names else ""
        yield f"{count} from outside the threading module{known_as}, which {run} in no worker"


def _foreign_tasks(before: Before) -> set[str]:
    """New threads that Python does not list."""
    known = {str(thread.native_id) for thread in threading.enumerate()}
    return {task for task in _tasks() if task not in before.tasks and task not in known}


def _tasks() -> list[str]:
    """All threads of this process, those that Python does not know included (Linux)."""
    with contextlib.suppress(OSError):
        return os.listdir(_TASKS)
    return []


def _task_name(task: str) -> str:
    with contextlib.suppress(OSError), open(f"{_TASKS}/{task}/comm", errors="replace") as file:
        return file.read().strip()
    return "ended"


def _openblas_threads() -> int:
    """How many threads may be OpenBLAS's, which numpy brings: it ends them before a fork, and makes them anew after."""
    with contextlib.suppress(OSError), open("/proc/self/maps", errors="replace") as maps:
        copies = {line.partition("/")[2] for line in maps if "openblas" in line}
        return len(copies) * ((os.cpu_count() or 1) - 1)
    return 0


def _new_descriptors(before: Before) -> Iterator[str]:
    for entry, mode in _descriptors():
        if entry in before.descriptors:
            continue
        phrase = None
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(mode):
                phrase = _socket_phrase(entry[0])
            elif stat.S_ISREG(mode):
                phrase = _file_phrase(entry[0])
        if phrase:
            yield phrase


def _descriptors() -> Iterator[tuple[_Descriptor, int]]:
    """All open descriptors, each with the mode of what it stands for, by number."""
    try:
        numbers = sorted(int(name) for name in os.listdir("/dev/fd"))
    except (OSError, ValueError):
        return
    for number in numbers:
        with contextlib.suppress(OSError):  # the listing's own is closed already
            found = os.fstat(number)
            yield (number, found.st_dev, found.st_ino), found.st_mode


def _file_phrase(number: int) -> str | None:
    # Read in place: to close another descriptor of the file would release the application's locks on it.
    if os.pread(number, len(_SQLITE), 0) != _SQLITE:
        return None
    try:
        return f"the SQLite database {os.readlink(f'/proc/self/fd/{number}')}"
    except OSError:
        return "an SQLite database"


def _socket_phrase(number: int) -> str | None:
    with socket.socket(fileno=os.dup(number)) as sock:
        if sock.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            return None
        here = _name(sock.getsockname())
        try:
            there = sock.getpeername()
        except OSError:
            there = None
        if sock.type == socket.SOCK_DGRAM:
            return _datagram_phrase(here, there)
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return f"a listening socket at {here}"
    if there is None:
        return None  # connected to nothing: there is nothing to share
    if not _name(there):
        return f"one end of a pair of sockets (descriptor {number}), such as an event loop has"
    return f"a connection to {_name(there)}{_product(there)}"


def _datagram_phrase(here: str, there: Any) -> str | None:
    if there is not None and not (isinstance(there, str) and there.startswith(_LOGGERS)):
        return f"a datagram socket to {_name(there)}{_product(there)}"
    return f"a datagram socket at {here}" if there is None and here else None


def _name(address: Any) -> str:
    """An address as one writes it; "" for a socket without one."""
    if isinstance(address, bytes):  # in the abstract namespace
        return "@" + address[1:].decode("utf-8", "backslashreplace")
    if isinstance(address, str):
        return address
    host, port = address[:2]
    if not port:  # not bound
        return ""
    return f"[{host}]:{port}" if ipaddress.ip_address(host.partition("%")[0]).version == 6 else f"{host}:{port}"


def _product(address: Any) -> str:
    """What usually listens there, in brackets."""
    if isinstance(address, tuple):
        found = _PORTS.get(address[1])
    else:
        found = next((name for part, name in _PATHS.items() if part in _name(address)), None)
    return f" ({found})" if found else ""
