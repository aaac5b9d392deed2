"""What real applications have fallen into on other servers, behind nginx, without the applications.

The other traps are in the recipes (uploads in chunks: Git, PHP, Perl) and beside the code: variables that
`wsgiref.validate` refuses in tests/apps/test_wsgi.py, connections that say nothing in tests/wire_faults.
"""

from __future__ import annotations

import http.client
from pathlib import Path

import pytest

from conftest import Serve, StartFront

MB = 1 << 20
APPLICATION = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/breaks":
        return breaks()
    return [b"answered at once"]

def breaks():
    yield b"half of it\\n" * 10_000
    raise RuntimeError("no more")
"""
HANDLER = """
import sys

from scgi.scgi_server import SCGIHandler

class Handler(SCGIHandler):
    def produce_cgilike(self, env, bodysize):
        text = sys.stdin.read(bodysize)
        sys.stdout.write("Content-Type: text/plain; charset=utf-8\\r\\n\\r\\n")
        sys.stdout.flush()
        sys.stdout.buffer.write(f"{len(text)} letters: {text}".encode())
"""


def ask(url: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    try:
        connection.request("POST" if body else "GET", path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_text_that_is_not_ascii_is_read_from_standard_input(
    scgi_serve: Serve, nginx: StartFront, tmp_path: Path
) -> None:
    """`bodysize` counts bytes, `sys.stdin` letters: waiting for as many of these would be for ever."""
    (tmp_path / "handler.py").write_text(HANDLER)
    server = scgi_serve(tmp_path / "handler.py")
    status, said = ask(nginx(to=server.address).url, "/", "Grüße, 日本語".encode())
    assert (status, said.decode()) == (200, "10 letters: Grüße, 日本語")


def test_an_upload_that_nobody_reads_has_its_answer(scgi_serve: Serve, nginx: StartFront, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    server = scgi_serve(tmp_path / "app.py")
    assert ask(nginx(to=server.address).url, "/", bytes(200 * MB)) == (200, b"answered at once")


def test_an_answer_that_breaks_off_is_not_taken_for_whole(scgi_serve: Serve, nginx: StartFront, tmp_path: Path) -> None:
    """Over TCP; a unix socket cannot tell, nor can a worker that is killed when part of its answer is out."""
    (tmp_path / "app.py").write_text(APPLICATION)
    url = nginx(to=scgi_serve(tmp_path / "app.py").address).url
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        ask(url, "/breaks")
    assert ask(url, "/") == (200, b"answered at once")
