"""Where control sockets live: found by whoever may ask, and never where others could put one of theirs."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scgi.errors import ConfigError, ScgiError
from scgi.net import rendezvous
from scgi.net.address import Address, parse_address
from scgi.net.rendezvous import control_name, find_control, place_control

FIRST = parse_address("4000")


class Machine:
    """A /run of the test's own, with servers that do nothing but listen."""

    def __init__(self, folder: Path, opened: ExitStack) -> None:
        self.run = folder / "run"
        self.session = folder / "session"
        self.run.mkdir()
        self.session.mkdir(0o700)
        self.environ = {"XDG_RUNTIME_DIR": str(self.session)}
        self._opened = opened

    def serve(self, address: str, environ: dict[str, str] | None = None) -> Path:
        path, reason = place_control("", parse_address(address), self.environ if environ is None else environ)
        assert path is not None, reason
        sock = self._opened.enter_context(socket.socket(socket.AF_UNIX))
        sock.bind(str(path))
        sock.listen()
        return path

    def find(self, address: str | None = None) -> Path:
        return find_control(address, "", self.environ)


@pytest.fixture
def machine(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with ExitStack() as opened:
        found = Machine(short_tmp, opened)
        monkeypatch.setattr(rendezvous, "_RUN", found.run)
        yield found


# Where a server puts it.


def test_the_folder_is_systemds_else_the_sessions_else_for_root_that_in_run(machine: Machine) -> None:
    runtime = machine.run / "shop"
    runtime.mkdir()
    everything = {**machine.environ, "RUNTIME_DIRECTORY": f"{runtime}:{machine.run}/other"}
    name = "127.0.0.1:4000.control"
    assert place_control("", FIRST, everything) == (runtime / name, "")
    assert place_control("", FIRST, machine.environ) == (machine.session / "scgi" / name, "")
    if os.geteuid() == 0:
        assert place_control("", FIRST, {}) == (machine.run / "scgi" / name, "")


def test_a_folder_that_is_made_is_for_its_owner_alone(machine: Machine) -> None:
    before = os.umask(0)
    try:
        place_control("", FIRST, machine.environ)
    finally:
        os.umask(before)
    assert (machine.session / "scgi").stat().st_mode & 0o777 == 0o700


def test_a_path_that_is_given_is_taken_as_it_is_and_none_is_none(machine: Machine) -> None:
    assert place_control("/srv/shop/control", FIRST, machine.environ) == (Path("/srv/shop/control"), "")
    assert place_control("none", FIRST, machine.environ) == (None, "")


def is_a_link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(0o700)
    folder.symlink_to("elsewhere")


def is_a_file(folder: Path) -> None:
    folder.touch()


def is_open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def is_open_to_a_group(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def belongs_to_somebody_else(folder: Path) -> None:
    folder.mkdir(0o700)
    if os.geteuid():
        pytest.skip("only root can give a folder away")
    os.chown(folder, 65534, 65534)


UNFIT = [is_a_link, is_a_file, is_open_to_all, is_open_to_a_group, belongs_to_somebody_else]


@pytest.mark.parametrize("unfit", UNFIT, ids=lambda unfit: unfit.__name__)
def test_a_folder_that_is_not_ours_alone_is_not_taken_and_the_reason_is_said(machine: Machine, unfit) -> None:
    unfit(machine.session / "scgi")
    is_open_to_all(machine.run / "shop")
    environ = {**machine.environ, "RUNTIME_DIRECTORY": str(machine.run / "shop")}
    path, reason = place_control("", FIRST, environ)
    if os.geteuid() == 0:
        assert path == machine.run / "scgi" / "127.0.0.1:4000.control"
        unfit(machine.run / "scgi2")
        (machine.run / "scgi").rmdir()
        (machine.run / "scgi2").rename(machine.run / "scgi")
        path, reason = place_control("", FIRST, environ)
    assert path is None
    assert f"{machine.session}/scgi" in reason and f"{machine.run}/shop is open to others (mode 0777)" in reason


def test_a_session_folder_that_others_may_write_to_such_as_tmp_gets_none(machine: Machine) -> None:
    machine.session.chmod(0o1777)
    path, _ = place_control("", FIRST, machine.environ)
    assert path is None or path.parent == machine.run / "scgi"
    assert not (machine.session / "scgi").exists()


def test_without_any_place_the_reason_is_said(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert place_control("", FIRST, {}) == (None, "XDG_RUNTIME_DIR is not set, and only root has /run/scgi")
    assert place_control("", FIRST, {"XDG_RUNTIME_DIR": "relative", "RUNTIME_DIRECTORY": "too"})[0] is None


def test_a_folder_whose_name_leaves_no_room_for_a_socket_is_not_taken(machine: Machine) -> None:
    deep = machine.run / ("d" * 70)
    deep.mkdir()
    path, _ = place_control("", FIRST, {"RUNTIME_DIRECTORY": str(deep), **machine.environ})
    assert path == machine.session / "scgi" / "127.0.0.1:4000.control"


# The name.


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("4000", "127.0.0.1:4000.control"),
        ("[::1]:4000", "[::1]:4000.control"),
        ("unix:/run/x.sock", "unix:%2Frun%2Fx.sock.control"),
        ("/run/a%2Fb", "unix:%2Frun%2Fa%252Fb.control"),
    ],
)
def test_the_name_is_the_address_and_can_be_read(address: str, name: str) -> None:
    assert control_name(parse_address(address)) == name


def test_long_names_are_cut_and_still_differ() -> None:
    long = [Address("unix", path=f"/run/{'x' * 90}/{last}") for last in ("a", "b")]
    names = {control_name(address) for address in long}
    assert len(names) == 2 and all(len(name) <= 60 + len(".control") for name in names)
    assert all(name.startswith("unix:%2Frun%2Fxxxx") for name in names)


def test_a_path_that_is_no_utf8_has_a_name_too() -> None:
    assert control_name(Address("unix", path=os.fsdecode(b"/run/\xff"))) == "unix:%2Frun%2F%FF.control"


# Who looks for it.


def test_the_only_server_needs_no_address(machine: Machine) -> None:
    path = machine.serve("4000")
    assert machine.find() == path


def test_one_of_several_is_found_by_its_address_however_that_is_written(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tcp, unix = machine.serve("127.0.0.1:4000"), machine.serve(f"unix:{machine.run}/x.sock")
    everywhere = machine.serve("0.0.0.0:4001")
    assert {machine.find(text) for text in ("4000", ":4000", "127.0.0.1:4000", "localhost:4000")} == {tcp}
    assert machine.find("4001") == everywhere
    monkeypatch.chdir(machine.run)
    assert {machine.find(text) for text in (f"unix:{machine.run}/x.sock", "./x.sock", "unix:x.sock")} == {unix}


def test_without_an_address_several_are_named(machine: Machine) -> None:
    machine.serve("4000")
    machine.serve("unix:/run/x.sock")
    with pytest.raises(ScgiError, match=r"there are 2 servers.*: 127.0.0.1:4000, unix:/run/x.sock$"):
        machine.find()


def test_an_address_that_nobody_has_is_answered_with_those_there_are(machine: Machine) -> None:
    machine.serve("4000")
    with pytest.raises(ScgiError, match=r"no server was found whose first address is 4444; there are: 127.0.0.1:4000"):
        machine.find("4444")


def test_servers_that_are_dead_are_not_found(machine: Machine) -> None:
    dead = machine.serve("4000")
    machine._opened.close()
    assert dead.exists()
    with pytest.raises(ScgiError, match="no server was found that this user may ask"):
        machine.find()
    with pytest.raises(ScgiError, match="no server was found"):
        machine.find("4000")


def test_servers_whose_folder_systemd_made_are_found_without_its_variable(machine: Machine) -> None:
    (machine.run / "shop").mkdir()
    path = machine.serve("4000", {"RUNTIME_DIRECTORY": str(machine.run / "shop")})
    assert machine.find() == machine.find("4000") == path


def test_a_socket_where_anybody_may_put_one_is_not_a_server(machine: Machine) -> None:
    lock = machine.run / "lock"
    lock.mkdir()
    path = machine.serve("4000", {"RUNTIME_DIRECTORY": str(lock)})
    assert machine.find() == path
    lock.chmod(0o1777)
    with pytest.raises(ScgiError, match="no server was found"):
        machine.find()


def test_what_is_no_socket_is_not_a_server(machine: Machine) -> None:
    path = machine.serve("4000")
    (path.parent / "127.0.0.1:4001.control").write_text("not a socket")
    (path.parent / "x.sock").symlink_to(path)
    assert machine.find() == path


def test_a_socket_of_another_user_is_not_trusted_except_by_root(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine.serve("4000")
    mine = os.geteuid()
    if mine == 0:
        os.chown(path, 1001, -1)
    assert machine.find("4000") == path
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1000)
    with pytest.raises(ScgiError, match="no server was found"):
        machine.find("4000")


def test_a_path_that_is_given_is_not_looked_at(machine: Machine) -> None:
    assert find_control("4000", "/nowhere/c", machine.environ) == Path("/nowhere/c")


@pytest.mark.parametrize(("address", "setting"), [("systemd", ""), (None, "none"), ("4000:x", "")])
def test_what_cannot_name_a_server_is_an_error(machine: Machine, address: str | None, setting: str) -> None:
    with pytest.raises(ConfigError):
        find_control(address, setting, machine.environ)
