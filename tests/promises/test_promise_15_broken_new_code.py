"""A reload serves the new code at once. Code that is broken leaves the old code serving, loses nothing, says why."""

from __future__ import annotations

import time

import pytest

from support.load import Load, write_application
from support.room import Room

BROKEN = {  # a line of code, what `scgi reload` says of it, and the log
    "does not import": ("import no_such_module\n", "No module named 'no_such_module'", "no_such_module"),
    "raises": ("raise RuntimeError('no database')\n", "RuntimeError: no database", "RuntimeError: no database"),
    "hangs": ("import time\ntime.sleep(3600)\n", 'app.py", line ', "not ready within 1.5 s"),
    "fails its probe": ("", "the probe / was answered with 500", "ZeroDivisionError"),
}


@pytest.mark.parametrize("way", list(BROKEN))
def test_new_code_that_is_broken_leaves_the_old_code_serving_loses_nothing_and_says_why(
    tcp_room: Room, way: str
) -> None:
    first, said, logged = BROKEN[way]
    last = "\napp = lambda environ, start_response: 1 / 0\n" if not first else ""
    server = tcp_room.serve("app.py", "--start-timeout", "1.5", "--probe", "/", workers=2)
    with Load(server.address, clients=16, pause=0.001) as load:
        load.wait_for_more(200)
        write_application(tcp_room.app, "2", first=first, last=last)
        status, explained = tcp_room.reload(server)
        load.wait_for_more(200)
    assert status == 1
    assert said in explained, explained
    assert logged in server.log()
    assert load.report.lost == [] and load.report.refused == 0, load.report.lost[:5]
    assert list(load.report.versions) == ["1"]
    write_application(tcp_room.app, "3")  # and once it is mended
    assert tcp_room.reload(server)[0] == 0
    with Load(server.address, clients=4, total=50) as load:
        assert list(load.wait().versions) == ["3"]


def test_new_code_serves_at_once_even_if_it_was_written_in_the_same_second_and_is_as_long(either_room: Room) -> None:
    either_room.environment["PYTHONDONTWRITEBYTECODE"] = ""
    server = either_room.serve("app.py", workers=2)
    with Load(server.address, clients=16, pause=0.001) as load:
        for version in ("2", "3", "4", "5", "6"):
            load.wait_for_more(50)
            write_application(either_room.app, version)
            began = time.monotonic()
            assert either_room.reload(server)[0] == 0
            assert time.monotonic() - began < 3
            load.wait_for_more(50)
    assert load.report.lost == [] and load.report.refused == 0, load.report.lost[:5]
    assert list(load.report.versions) == ["1", "2", "3", "4", "5", "6"]
    for old, new in zip("12345", "23456", strict=True):
        # The old code's last answers come while its workers go one for one.
        assert load.report.versions[old].last < load.report.versions[new].first + 1
