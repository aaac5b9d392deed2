"""An answer whose length nobody has said ends with its connection: a worker's death must not look like that."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import Serve
from support import Reset, build_request, parse_response, raw_exchange

APPLICATION = """
import os, signal, time

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"begun\\n"
    time.sleep(float(environ["QUERY_STRING"] or 0))
    if environ["PATH_INFO"] == "/exits":
        os._exit(0)
    if environ["PATH_INFO"] == "/is-killed":
        os.kill(os.getpid(), signal.SIGKILL)
    yield b"whole\\n"
"""


@pytest.mark.parametrize("after", ["", "1"])  # the second: somebody else guards the connection too
@pytest.mark.parametrize("path", ["/exits", "/is-killed"])
def test_over_tcp_the_client_of_a_worker_that_dies_within_its_answer_sees_a_reset(
    scgi_serve: Serve, tmp_path: Path, path: str, after: str
) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    server = scgi_serve(tmp_path / "app.py")
    with pytest.raises(Reset):
        raw_exchange(server.address, build_request(path=path, query=after))


def test_an_answer_that_ends_well_is_not_reset(scgi_serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    server = scgi_serve(tmp_path / "app.py")
    for _ in range(20):
        assert parse_response(raw_exchange(server.address, build_request(path="/"))).body == b"begun\nwhole\n"
