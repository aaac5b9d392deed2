"""A unix socket never has a wider mode than asked for, not for an instant."""

from __future__ import annotations

import os
import stat
import time

import pytest

from support import scgi_request
from support.room import Room


@pytest.mark.parametrize(("asked", "expected"), [((), 0o660), (("--socket-mode", "0600"), 0o600)])
def test_a_unix_socket_is_never_open_wider_than_asked_whatever_the_umask(
    unix_room: Room, asked: tuple[str, ...], expected: int
) -> None:
    place = str(unix_room.folder / "s")
    umask = os.umask(0)
    try:
        server = unix_room.start("pages.py", *asked, wait=False)
    finally:
        os.umask(umask)
    seen = set()
    end = time.monotonic() + 5
    while time.monotonic() < end and server.running():
        try:
            seen.add(stat.S_IMODE(os.stat(place).st_mode))
        except FileNotFoundError:
            continue
        if "generation 1 serves" in server.log():
            break
    assert scgi_request(server.address).status == 200
    assert expected in seen and all(mode | expected == expected for mode in seen), [oct(mode) for mode in seen]
