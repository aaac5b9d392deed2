"""Code that does not import at the start: exit within a second, a status that is not 0, and the traceback."""

from __future__ import annotations

import time

import pytest

from support.load import write_application
from support.room import Room


@pytest.mark.alone
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import there_is_no_such_module\n", "ModuleNotFoundError: No module named 'there_is_no_such_module'"),
        ("def broken(:\n", "SyntaxError"),
        ("raise RuntimeError('no database')\n", "RuntimeError: no database"),
        ("raise SystemExit(0)\n", "SystemExit: 0"),
    ],
)
def test_code_that_does_not_import_ends_the_start_within_a_second_with_its_traceback(
    tcp_room: Room, line: str, said: str
) -> None:
    write_application(tcp_room.app, "1", first=line)
    tcp_room.start(tcp_room.app, "--check", wait=False).wait()  # what Python compiles is compiled
    took = []
    while not took or (min(took) >= 1.0 and len(took) < 4):  # others may have kept the machine busy
        began = time.monotonic()
        server = tcp_room.start("app.py", wait=False)
        status = server.wait()
        took.append(time.monotonic() - began)
        assert status not in (0, 1) and status > 0
        assert said in server.log() and "app.py" in server.log(), server.log()
        assert "most recent call last" in server.log() or "SyntaxError" in said
    assert min(took) < 1.0
