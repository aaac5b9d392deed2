"""No log line can be forged; no control byte of a request reaches a log."""

from __future__ import annotations

import json
import os
import re
import signal

from pool.crowd import dozing
from support import build_request, scgi_request, wait_until
from support.addresses import connect
from support.room import Room

FORGED = "2026-01-01 00:00:00.000 [1] ERROR scgi.pool: forged"
EVIL = f"/x\r\n{FORGED}\x1b[2J\x9b2J\x7f\x08\u2028\t"
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[\d+\] [A-Z]+ scgi\.\w+( \[request \S+\])?: |  +\S")


def misbehave(room: Room, *options: str) -> tuple[str, str]:
    """Everything that a request can say is said where it is logged; what the two logs hold then."""
    access = room.folder / "access"
    server = room.serve("pages.py", "--access-log", str(access), *options)
    evil = EVIL.encode("utf-8").decode("latin-1")
    names = ("REQUEST_URI", "PATH_INFO", "REMOTE_ADDR", "REMOTE_USER", "SERVER_PROTOCOL", "QUERY_STRING")
    for name in names:
        scgi_request(server.address, {name: evil})
    for name in ("HTTP_USER_AGENT", "HTTP_REFERER", "HTTP_X_REQUEST_ID"):
        scgi_request(server.address, {name: evil.replace("\r\n", "")}, path="/raise_it/ValueError")
    with connect(server.address) as peer:  # and the line that names a death
        peer.sendall(build_request({"REQUEST_URI": evil, "HTTP_X_REQUEST_ID": "\x1b[31mred"}, path="/doze/20"))
        os.kill(dozing(server), signal.SIGKILL)
        assert peer.recv(10) == b""
    wait_until(lambda: "killed by SIGKILL" in server.log())
    assert server.stop() == 0
    return server.log(), access.read_bytes().decode()


def controls(text: str) -> set[str]:
    return set(re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", text))


def test_whatever_a_request_holds_a_log_line_is_ours_and_has_no_control_byte(unix_room: Room) -> None:
    log, access = misbehave(unix_room)
    assert controls(log + access) == set()
    strange = [line for line in log.splitlines() if not LINE.match(line) and not line.startswith("dozing: ")]
    assert strange == []
    assert not any(line.startswith(FORGED[:20]) for line in (log + access).splitlines())
    assert "forged" in log and "forged" in access  # it is there, and harmless


def test_a_log_of_objects_has_one_to_a_line(unix_room: Room) -> None:
    log, _ = misbehave(unix_room, "--log-format", "json")
    for line in log.splitlines():
        assert line.startswith("dozing: ") or isinstance(json.loads(line), dict)
    assert controls(log) == set()
