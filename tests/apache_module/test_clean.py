"""No use of memory that is not ours, nothing undefined, nothing leaked, whatever servers and clients say."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from apache_module.asking import ask
from gateway.toys import Conversation, Upstream
from support import free_port, require_program, short_folder
from support.apache_module import VALGRIND, Apache, build, serving
from support.hostile import TABLE, HostileServer, Row, ask_http

QUICK = 0.4  # seconds that a server may be silent here
# Of what a server may do, one of each kind: under valgrind an Apache takes its time.
SOME = """
    close-after-request reset-within-upload close-within-head stall-within-head endless-head ten-thousand-headers noise
    nul-in-name status-of-letters early-hints-first longer-than-announced shorter-than-announced
    much-shorter-than-announced lengths-that-differ chunks reset-within-open-body early-and-deaf early-and-reset
    """.split()


@dataclass(frozen=True, slots=True)
class Site:
    web: Apache
    hostile: HostileServer
    toy: Upstream
    folder: Path

    def assert_clean(self) -> None:
        said = self.web.log()
        assert not re.search(r"AddressSanitizer|runtime error:|^==\d+==", said, re.MULTILINE), said


@contextmanager
def watched(sanitized: bool) -> Iterator[Site]:
    """One process with some threads; what leaks shows at its end."""
    toy = Upstream(f"127.0.0.1:{free_port()}")
    with short_folder() as folder, HostileServer(f"127.0.0.1:{free_port()}") as hostile:
        (folder / "file").write_bytes(bytes(100_000))
        config = f"""
SCGIMount /hostile {hostile.address}
SCGIMount /toy {toy.address}
SCGIMount /two 127.0.0.1:{free_port()} unix:{folder}/nobody {toy.address}
SCGIMount /none [::1]:{free_port()}
SCGIServerTimeout {QUICK if sanitized else 2}
SCGISendfile {folder}
<Location /toy/small>
  LimitRequestBody 1000
</Location>
"""
        limits = "ThreadsPerChild 4\nMaxRequestWorkers 4\nServerLimit 1\nStartServers 1"
        try:
            with serving(
                config,
                mpm="worker",
                sanitized=sanitized,
                wrapper=() if sanitized else [require_program("valgrind"), *VALGRIND[1:]],
                options=("-X",),
                limits=limits,
            ) as web:
                yield Site(web, hostile, toy, folder)
        finally:
            toy.close()
    toy.settle()


@pytest.fixture(scope="module")
def sanitized() -> Iterator[Site]:
    with watched(sanitized=True) as site:
        yield site


@pytest.fixture(scope="module")
def valgrind() -> Iterator[Site]:
    require_program("valgrind")
    with watched(sanitized=False) as site:
        yield site


def held(site: Site, row: Row) -> None:
    site.hostile.row = row
    seen = ask_http("127.0.0.1", site.web.port, row)
    site.hostile.settle()
    row.truth.judge(seen)
    site.assert_clean()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_the_sanitizers_find_nothing_whatever_a_server_does(sanitized: Site, row: Row) -> None:
    held(sanitized, row)


@pytest.mark.parametrize("row", [row for row in TABLE if row.name in SOME], ids=lambda row: row.name)
def test_valgrind_finds_nothing_whatever_a_server_does(valgrind: Site, row: Row) -> None:
    held(valgrind, row)


def everything(site: Site) -> None:
    """One request of each kind that goes another way through the module."""

    def answer(talk: Conversation) -> None:
        path = talk.variables["PATH_INFO"]
        body = b"".join(talk.body())
        if path == "/file":
            talk.send(f"X-Sendfile: {site.folder}/file\r\n\r\n".encode())
        elif path == "/outside":
            talk.send(f"X-Sendfile: {site.folder}/../../etc/passwd\r\n\r\n".encode())
        elif path == "/circle":
            talk.send(b"Location: /toy/circle\r\n\r\n")
        elif path == "/moved":
            talk.send(b"Location: /toy/there?a\r\n\r\n")
        elif path == "/large":
            talk.send(b"Status: 200 OK\r\n\r\n" + bytes(300_000))
        else:
            talk.answer(body[:1000], "Set-Cookie: a=1", "Set-Cookie: b=2")

    site.toy.answer = answer
    headers = [("Cookie", "a=1"), ("Cookie", "b=2"), ("X-Multi", "a"), ("X-Multi", "b"), ("X_Under", "c"), ("X", "")]
    asked = [
        *[ask(site.web, f"/toy/{path}", "GET", headers) for path in ("", "file", "moved", "large", "caf%E9%20")],
        ask(site.web, "/toy/large", "HEAD"),
        *[ask(site.web, "/toy/up", "POST", (), bytes(size), chunked=size % 2 == 0) for size in (0, 1, 70_001, 200_000)],
        ask(site.web, "/two/", "POST", (), b"12345"),
    ]
    assert {answer.status for answer in asked} == {200}
    asked = [ask(site.web, path) for path in ("/toy/outside", "/toy/circle", "/none")]
    assert all(answer.status >= 400 for answer in asked)
    for chunked in (False, True):
        assert ask(site.web, "/toy/small", "POST", (), bytes(2000), chunked=chunked).status == 413
    site.assert_clean()


def test_the_sanitizers_find_nothing_in_requests_of_every_kind(sanitized: Site) -> None:
    everything(sanitized)


def test_valgrind_finds_nothing_in_requests_of_every_kind(valgrind: Site) -> None:
    everything(valgrind)


def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    for name in ("cc", "make", "apxs"):
        require_program(name)
    build(tmp_path / "strict", "CFLAGS=-O2 -Wall -Wextra -Werror")


def test_it_exports_its_name_alone(tmp_path: Path) -> None:
    """Apache loads all modules into one room, so another's names must not be ours by accident."""
    said = subprocess.run(
        ["nm", "-D", "--defined-only", build(tmp_path / "here")], check=True, capture_output=True, text=True
    ).stdout
    assert [line.split()[-1] for line in said.splitlines()] == ["scgi_module"]
