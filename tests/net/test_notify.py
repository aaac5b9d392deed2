"""What systemd hears, judged by a socket that plays its part; systemd-notify(1)'s own protocol, sd_notify(3)."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scgi.net.notify import Notifier


@pytest.fixture
def manager(short_tmp: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(short_tmp / "notify"))
        sock.settimeout(5)
        yield sock


@pytest.fixture
def notifier(manager: socket.socket) -> Iterator[Notifier]:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    yield notifier
    notifier.close()


def heard(manager: socket.socket) -> dict[str, str]:
    """The next message."""
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


def test_each_state_is_told_with_its_status(manager: socket.socket, notifier: Notifier) -> None:
    notifier.ready("serves hello")
    assert heard(manager) == {"READY": "1", "STATUS": "serves hello"}
    notifier.status("2 of 4 workers")
    assert heard(manager) == {"STATUS": "2 of 4 workers"}
    notifier.extend(2.5)
    assert heard(manager) == {"EXTEND_TIMEOUT_USEC": "2500000"}
    notifier.stopping()
    assert heard(manager) == {"STOPPING": "1"}


def test_a_reload_tells_when_it_began_by_systemds_clock(manager: socket.socket, notifier: Notifier) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading("generation 2")
    told = heard(manager)
    assert before <= int(told.pop("MONOTONIC_USEC")) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert told == {"RELOADING": "1", "STATUS": "generation 2"}


def test_a_status_cannot_say_anything_but_a_status(manager: socket.socket, notifier: Notifier) -> None:
    notifier.status("no module\nMAINPID=1\n\udc80")
    assert manager.recv(4096) == b"STATUS=no module MAINPID=1 ?"


def test_the_abstract_namespace_is_understood() -> None:
    name = f"scgi-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": f"@{name}"})
        notifier.ready()
        assert heard(manager) == {"READY": "1"}
        notifier.close()


def test_nothing_of_it_is_left_for_a_child(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    notifier = Notifier()
    assert notifier
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()
    assert not os.get_inheritable(notifier._socket.fileno())
    notifier.close()


def test_the_watchdog_is_fed_twice_in_the_time_that_it_allows(manager: socket.socket) -> None:
    asked = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "3000000"}
    for pid in ({}, {"WATCHDOG_PID": str(os.getpid())}):
        notifier = Notifier({**asked, **pid})
        assert notifier.watchdog_interval == 1.5
        notifier.alive()
        assert heard(manager) == {"WATCHDOG": "1"}
        notifier.close()


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-1"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
    ids=str,
)
def test_a_watchdog_that_does_not_ask_us_hears_nothing(manager: socket.socket, asked: dict[str, str]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname(), **asked})
    assert notifier.watchdog_interval is None
    notifier.alive()
    notifier.ready()
    assert heard(manager) == {"READY": "1"}
    notifier.close()


@pytest.mark.parametrize("where", ["", "relative/path", "vsock:2:1234", "/run/nobody/is/there", "/" + 200 * "x"])
def test_without_somebody_who_listens_nothing_happens(where: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": where} if where else {})
    notifier.ready("serves")
    notifier.reloading()
    notifier.alive()
    notifier.stopping()
    notifier.close()


def test_after_its_close_a_forked_process_is_silent(manager: socket.socket, notifier: Notifier) -> None:
    notifier.close()
    notifier.ready()
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(4096)


def test_what_finds_no_room_is_told_later_and_in_order(manager: socket.socket, notifier: Notifier) -> None:
    limit = 10_000
    for number in range(limit):
        notifier.status(f"{number}")
        if notifier._unsent:
            break
    assert number < limit - 1, "the queue never filled"
    began = time.monotonic()
    notifier.ready("late")
    assert time.monotonic() - began < 1
    assert [heard(manager)["STATUS"] for _ in range(number)] == [str(earlier) for earlier in range(number)]
    notifier.stopping()
    assert [heard(manager) for _ in range(3)] == [
        {"STATUS": str(number)},
        {"READY": "1", "STATUS": "late"},
        {"STOPPING": "1"},
    ]
