"""Listening sockets: opened without harm to anybody, and taken away without harm to anybody else."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from scgi.errors import ListenError
from scgi.net.address import Address, parse_address
from scgi.net.listen import adopt, inherited_listeners, open_listener
from support import free_port, is_listening

SYSTEMD = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


@pytest.fixture
def path(short_tmp: Path) -> Path:
    return short_tmp / "app.sock"


def unix(path: Path) -> Address:
    return Address("unix", path=str(path))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# unix sockets


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777, 0o000])
@pytest.mark.parametrize("umask", [0o000, 0o077, 0o022])
def test_a_unix_socket_has_the_mode_that_was_asked_for_whatever_the_umask(path: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        with closing(open_listener(unix(path), socket_mode=mode)):
            assert mode_of(path) == mode
        assert os.umask(umask) == umask
    finally:
        os.umask(before)


def test_a_unix_socket_is_never_open_wider_than_asked_not_for_an_instant(path: Path) -> None:
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                seen.add(mode_of(path))
            except FileNotFoundError:
                pass

    before = os.umask(0)
    pause = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for number in range(50_000):
            if number >= 300 and seen:  # where others want the processor too, the watcher may come late
                break
            open_listener(unix(path), socket_mode=0o640).close()
    finally:
        done.set()
        watcher.join()
        sys.setswitchinterval(pause)
        os.umask(before)
    assert seen and seen <= {0o000, 0o640}


def test_the_mode_is_closed_between_bind_and_chmod(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same promise without luck: looked at in the only moment where it could be broken."""
    seen = []
    chmod = os.chmod
    monkeypatch.setattr(os, "chmod", lambda name, mode: (seen.append(mode_of(path)), chmod(name, mode)))
    before = os.umask(0)
    try:
        open_listener(unix(path), socket_mode=0o666).close()
    finally:
        os.umask(before)
    assert seen == [0]


def test_a_dead_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert path.is_socket()
    with closing(open_listener(unix(path))):
        assert is_listening(f"unix:{path}")


def test_a_live_server_keeps_its_socket(path: Path) -> None:
    with closing(open_listener(unix(path))) as first:
        inode = path.lstat().st_ino
        with pytest.raises(ListenError, match="a live server listens there already") as caught:
            open_listener(unix(path))
        assert "\n" not in str(caught.value)
        assert path.lstat().st_ino == inode
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
        first.sock.accept()[0].close()


def test_a_live_server_with_a_full_queue_keeps_its_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = []
        try:
            for _ in range(10):
                peer = socket.socket(socket.AF_UNIX)
                waiting.append(peer)
                peer.setblocking(False)
                peer.connect(str(path))
        except BlockingIOError:
            pass
        with pytest.raises(ListenError, match="a live server"):
            open_listener(unix(path))
        assert path.is_socket()
        for peer in waiting:
            peer.close()


@pytest.mark.parametrize("what", ["file", "folder", "fifo", "link-to-file", "link-to-socket"])
def test_what_is_not_a_socket_is_left_alone(path: Path, what: str) -> None:
    other = path.with_name("other")
    if what == "file":
        path.write_text("precious")
    elif what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "link-to-file":
        other.write_text("precious")
        path.symlink_to(other)
    else:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(other))
        path.symlink_to(other)
    before = path.lstat()
    with pytest.raises(ListenError, match="not a socket; it was left alone"):
        open_listener(unix(path))
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)


def test_closing_takes_our_name_away_but_nobody_elses(path: Path) -> None:
    first = open_listener(unix(path))
    first.close()
    assert not path.exists()

    second = open_listener(unix(path))
    path.unlink()
    with closing(open_listener(unix(path))):
        second.close()
        assert path.is_socket()
    assert not path.exists()


def test_a_relative_path_still_means_the_same_socket_after_a_change_of_folder(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short_tmp)
    listener = open_listener(parse_address("unix:app.sock"))
    monkeypatch.chdir("/")
    assert str(listener.address) == f"unix:{short_tmp}/app.sock"
    listener.close()
    assert not (short_tmp / "app.sock").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("missing/app.sock", "the folder .*/missing does not exist"), ("file/app.sock", ".*/file is not a folder")],
)
def test_a_folder_that_is_not_there_is_named(short_tmp: Path, name: str, sentence: str) -> None:
    (short_tmp / "file").touch()
    with pytest.raises(ListenError, match=f"^cannot listen on unix:.*: {sentence}$"):
        open_listener(unix(short_tmp / name))


# TCP


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_tcp_address_is_listened_on(host: str) -> None:
    if host == "::1" and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    with closing(open_listener(Address("tcp", host, 0))) as listener:
        assert listener.address.port > 0
        assert listener.owned
        with listener.address.connect(5.0):
            listener.sock.accept()[0].close()


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_a_port_in_use_is_one_sentence_and_does_the_other_server_no_harm() -> None:
    port = free_port()
    with closing(open_listener(Address("tcp", "127.0.0.1", port))) as first:
        with pytest.raises(ListenError) as caught:
            open_listener(Address("tcp", "127.0.0.1", port))
        assert str(caught.value) == (
            f"cannot listen on 127.0.0.1:{port}: the address is in use; stop what listens there or choose another"
        )
        with first.address.connect(5.0):
            first.sock.accept()[0].close()


def test_a_port_that_was_just_in_use_can_be_bound_at_once() -> None:
    port = free_port()
    for _ in range(3):
        with closing(open_listener(Address("tcp", "127.0.0.1", port))) as listener, listener.address.connect(5) as peer:
            listener.sock.accept()[0].close()  # our side closes first and stays in TIME_WAIT
            assert peer.recv(1) == b""


@pytest.mark.parametrize(
    ("host", "sentence"),
    [("no-such-host.invalid", "the host name is not known"), ("192.0.2.1", "this machine has no such address")],
)
def test_a_host_that_cannot_be_is_said(host: str, sentence: str) -> None:
    with pytest.raises(ListenError, match=f"^cannot listen on {host}:1: {sentence}"):
        open_listener(Address("tcp", host, 1))


def test_nothing_that_we_open_survives_an_exec(path: Path) -> None:
    with closing(open_listener(unix(path))) as one, closing(open_listener(Address("tcp", "127.0.0.1", 0))) as two:
        assert not one.sock.get_inheritable()
        assert not two.sock.get_inheritable()


# Sockets that somebody else made


def test_an_adopted_socket_listens_blocks_and_keeps_its_name(path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.setblocking(False)
    listener = adopt(sock, owned=False)
    assert is_listening(f"unix:{path}")
    assert sock.getblocking()
    assert str(listener.address) == f"unix:{path}"
    assert not listener.owned
    listener.close()
    assert path.is_socket()  # lent, not ours to unlink


@pytest.fixture
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in SYSTEMD:
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch


def test_without_systemd_nothing_is_inherited(no_systemd: pytest.MonkeyPatch) -> None:
    assert inherited_listeners() == []


def test_sockets_for_another_process_are_not_taken(no_systemd: pytest.MonkeyPatch) -> None:
    no_systemd.setenv("LISTEN_PID", "1")
    no_systemd.setenv("LISTEN_FDS", "1")
    assert inherited_listeners() == []
    assert os.environ["LISTEN_FDS"] == "1"


@pytest.mark.parametrize("count", ["", "two", "+1", "-1", "1_0", "\u0661"])
def test_a_count_that_is_no_number_is_said(no_systemd: pytest.MonkeyPatch, count: str) -> None:
    no_systemd.setenv("LISTEN_PID", str(os.getpid()))
    no_systemd.setenv("LISTEN_FDS", count)
    with pytest.raises(ListenError, match=r"LISTEN_FDS: expected a whole number"):
        inherited_listeners()
    assert not set(SYSTEMD) & set(os.environ)


TAKE = """
import os
os.environ["LISTEN_PID"] = str(os.getpid())
from scgi.errors import ListenError
from scgi.net.listen import inherited_listeners
try:
    for listener in inherited_listeners():
        print(listener.address, listener.owned, listener.sock.get_inheritable(), listener.sock.fileno())
except ListenError as error:
    print("error:", error)
print(sorted(name for name in os.environ if name.startswith("LISTEN_")))
"""


def as_systemd(sockets: list[socket.socket]) -> list[str]:
    """What a process prints that is started with these sockets as systemd would hand them over."""
    # Through the shell, in two steps, because a number that is wanted may be one that is in use.
    high = " ".join(f"{100 + place}<&{sock.fileno()}" for place, sock in enumerate(sockets))
    low = " ".join(f"{3 + place}<&{100 + place} {100 + place}<&-" for place in range(len(sockets)))
    found = subprocess.run(
        ["bash", "-c", f'exec {high}; exec {low}; exec "$0" -c "$1"', sys.executable, TAKE],
        env={**os.environ, "LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": "a:b"},
        pass_fds=[sock.fileno() for sock in sockets],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return found.stdout.splitlines()


def test_sockets_from_systemd_are_taken_lent_and_forgotten_in_the_environment(path: Path) -> None:
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as named:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        named.bind(str(path))
        named.listen()
        lines = as_systemd([tcp, named])
        assert lines == [
            f"127.0.0.1:{tcp.getsockname()[1]} False False 3",
            f"unix:{path} False False 4",
            "[]",
        ]
        assert path.is_socket()


def test_what_systemd_hands_over_has_to_be_a_stream_socket() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        assert as_systemd([udp]) == ["error: descriptor 3 from systemd is not a stream socket", "[]"]
