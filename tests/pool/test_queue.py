"""Clients that give up while they wait in a full queue: nothing is done for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import Serve
from pool.crowd import begun, rest_of
from support import free_port, wait_until

APP = """
import os, time

def app(environ, start_response):
    kind, _, name = environ["PATH_INFO"][1:].partition("/")
    with open(f"{os.path.dirname(__file__)}/{name}", "w"):
        pass
    while kind == "wait" and not os.path.exists(f"{os.path.dirname(__file__)}/go"):
        time.sleep(0.02)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [name.encode()]
"""


@pytest.fixture(params=["tcp", "unix"])
def address(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[str]:
    yield f"127.0.0.1:{free_port()}" if request.param == "tcp" else f"unix:{short_tmp}/s"


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_client_that_has_left_the_queue_is_skipped(
    scgi_serve: Serve, tmp_path: Path, address: str, threads: str
) -> None:
    (tmp_path / "app.py").write_text(APP)
    server = scgi_serve(f"{tmp_path}/app.py:app", "--max-workers", "1", "--threads", threads, listen=address)
    with ExitStack() as stack:
        busy = [stack.enter_context(begun(address, f"/wait/busy{number}")) for number in range(int(threads))]
        wait_until(lambda: all((tmp_path / f"busy{number}").exists() for number in range(int(threads))))
        stay = [stack.enter_context(begun(address, f"/at-once/stays{number}")) for number in range(4)]
        for number in range(4):
            with begun(address, f"/at-once/leaves{number}"):
                pass
        stay += [stack.enter_context(begun(address, "/at-once/last"))]
        wait_until(lambda: is_crowded(server.pools()[0]), 5)
        (tmp_path / "go").touch()
        assert [rest_of(peer).status for peer in (*busy, *stay)] == [200] * len((*busy, *stay))
    assert not list(tmp_path.glob("leaves*"))
    wait_until(lambda: server.log().count("a client has left while it waited") == 4)
    assert server.stop() == 0


def is_crowded(pool: int) -> bool:
    """Whether the pool has told its workers so: the first byte of the scoreboard, as the pool has it mapped."""
    for line in Path(f"/proc/{pool}/maps").read_text().splitlines():
        span, access, _, device, _, *_ = line.split()
        if access == "rw-s" and device == "00:01":
            with open(f"/proc/{pool}/mem", "rb") as memory:
                memory.seek(int(span.split("-")[0], 16))
                if memory.read(1) == b"\x02":
                    return True
    return False
