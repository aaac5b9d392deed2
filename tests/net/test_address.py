"""One grammar for addresses: what is understood, its canonical text, and a sentence for anything else."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from scgi.errors import ConfigError
from scgi.net.address import Address, parse_address
from support import short_folder

UNDERSTOOD = {
    "4000": (Address("tcp", "127.0.0.1", 4000), "127.0.0.1:4000"),
    ":4000": (Address("tcp", "127.0.0.1", 4000), "127.0.0.1:4000"),
    "0": (Address("tcp", "127.0.0.1", 0), "127.0.0.1:0"),
    "65535": (Address("tcp", "127.0.0.1", 65535), "127.0.0.1:65535"),
    "localhost:4000": (Address("tcp", "localhost", 4000), "localhost:4000"),
    "0.0.0.0:80": (Address("tcp", "0.0.0.0", 80), "0.0.0.0:80"),
    "app-1.example_x.org:4000": (Address("tcp", "app-1.example_x.org", 4000), "app-1.example_x.org:4000"),
    "[::1]:4000": (Address("tcp", "::1", 4000), "[::1]:4000"),
    "[::]:4000": (Address("tcp", "::", 4000), "[::]:4000"),
    "[fe80::1%eth0]:4000": (Address("tcp", "fe80::1%eth0", 4000), "[fe80::1%eth0]:4000"),
    "unix:/run/app.sock": (Address("unix", path="/run/app.sock"), "unix:/run/app.sock"),
    "unix:app.sock": (Address("unix", path="app.sock"), "unix:app.sock"),
    "/run/app.sock": (Address("unix", path="/run/app.sock"), "unix:/run/app.sock"),
    "./app.sock": (Address("unix", path="./app.sock"), "unix:./app.sock"),
    "run/app:4000": (Address("unix", path="run/app:4000"), "unix:run/app:4000"),
    "systemd": (Address("systemd"), "systemd"),
    "unix:" + "/x" * 53 + "y": (Address("unix", path="/x" * 53 + "y"), "unix:" + "/x" * 53 + "y"),
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_an_address_has_one_meaning_and_one_canonical_text(text: str) -> None:
    address, canonical = UNDERSTOOD[text]
    assert parse_address(text) == address
    assert str(address) == canonical
    assert parse_address(canonical) == address


REFUSED = [
    "", " ", ":", "host", "host:", "host:port", "host:-1", "host:+1", "host:65536", "65536", "99999999999999999999",
    "4000 ", " 4000", "40_00", "0x10", "\u0664000", "host:40\n", "ho st:4000", "::1:4000", "::1", "[::1]", "[::1]:",
    "[::1:4000", "[host]:4000", "host:1:2", "unix:", "unix:/run/", "/", "unix:/a\0b", "unix:/" + "x" * 107,
    "/" + "\xe9" * 60, "http:4000:", "user@host:4000", "host:4000/",
]  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=ascii)
def test_anything_else_is_refused_with_what_was_found(text: str) -> None:
    with pytest.raises(ConfigError, match="address: ") as caught:
        parse_address(text)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_an_ipv6_address_without_brackets_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"goes into brackets: \[::1\]:4000"):
        parse_address("::1:4000")


def test_a_bare_port_listens_where_the_reader_says() -> None:
    assert parse_address("4000", default_host="::1") == Address("tcp", "::1", 4000)
    assert parse_address("1.2.3.4:4000", default_host="::1") == Address("tcp", "1.2.3.4", 4000)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("4000", True), ("localhost:1", True), ("127.8.8.8:1", True), ("[::1]:1", True), ("unix:/a", True),
     ("systemd", True), ("0.0.0.0:1", False), ("[::]:1", False), ("10.0.0.1:1", False), ("127.evil.org:1", False),
     ("example.org:1", False)],
)  # fmt: skip
def test_only_this_machine_can_reach_a_loopback_address(text: str, loopback: bool) -> None:
    assert parse_address(text).is_loopback is loopback


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_connect_gives_a_connected_socket_with_its_timeout(kind: str) -> None:
    with short_folder() as folder, socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX) as listening:
        listening.bind(("127.0.0.1", 0) if kind == "tcp" else str(folder / "s"))
        listening.listen()
        text = f"127.0.0.1:{listening.getsockname()[1]}" if kind == "tcp" else f"unix:{folder}/s"
        answering = threading.Thread(target=lambda: _answer(listening), daemon=True)
        answering.start()
        with parse_address(text).connect(5.0) as peer:
            assert peer.gettimeout() == 5.0
            assert peer.recv(10) == b"hello"
        answering.join(5)


def _answer(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.sendall(b"hello")


def test_connect_raises_where_nobody_listens(short_tmp: Path) -> None:
    with pytest.raises(OSError):
        parse_address(f"unix:{short_tmp}/nobody").connect(1.0)
