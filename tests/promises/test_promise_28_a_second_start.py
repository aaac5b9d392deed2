"""A second start neither robs nor harms the first, and says why it fails. Only our own dead socket is ever unlinked."""

from __future__ import annotations

import os
import signal
import socket
import time

import pytest

from support import is_alive, scgi_request, wait_until
from support.load import Load
from support.room import Room


@pytest.mark.alone
def test_a_second_start_fails_within_a_second_in_one_line_and_the_first_loses_nothing(either_room: Room) -> None:
    server = either_room.serve("app.py", workers=2)
    with Load(server.address, clients=4, pause=0.001) as load:
        load.wait_for_more(50)
        began = time.monotonic()
        second = either_room.start("app.py", wait=False)
        assert second.wait() > 0
        assert time.monotonic() - began < 1
        load.wait_for_more(50)
    assert load.report.lost == [] and load.report.refused == 0
    assert len(second.log().splitlines()) == 1 and server.address.removeprefix("unix:") in second.log()
    assert either_room.status(server)["pid"] == server.pid  # its control socket is its own still


@pytest.mark.parametrize("what", ["file", "folder", "link to a file", "somebody's socket"])
def test_what_is_not_our_own_dead_socket_is_left_alone(unix_room: Room, what: str) -> None:
    place = unix_room.folder / "s"
    with socket.socket(socket.AF_UNIX) as alive:
        if what == "file":
            place.write_text("precious")
        elif what == "folder":
            place.mkdir()
        elif what == "link to a file":
            (unix_room.folder / "file").write_text("precious")
            place.symlink_to("file")
        else:
            alive.bind(str(place))
            alive.listen()
            place.chmod(0o666)
        before = place.lstat()
        server = unix_room.start("app.py", wait=False)
        assert server.wait() > 0
        assert len(server.log().splitlines()) == 1 and str(place) in server.log()
    assert place.lstat().st_ino == before.st_ino
    assert what in ("folder", "somebody's socket") or place.read_text() == "precious"


def test_the_socket_of_a_server_that_was_killed_is_replaced(unix_room: Room) -> None:
    first = unix_room.serve("pages.py")
    everybody = first.descendants()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    wait_until(lambda: not any(map(is_alive, everybody)), 2)
    assert (unix_room.folder / "s").is_socket()
    assert scgi_request(unix_room.serve("pages.py").address).status == 200


def test_a_socket_that_somebody_put_in_our_place_is_not_ours_to_remove(unix_room: Room) -> None:
    server = unix_room.serve("pages.py")
    place = unix_room.folder / "s"
    place.unlink()
    place.write_text("somebody else's")
    assert server.stop() == 0
    assert place.read_text() == "somebody else's"
