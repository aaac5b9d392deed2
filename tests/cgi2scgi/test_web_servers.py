"""Behind real web servers: Apache with mod_cgid and with mod_cgi, and busybox's httpd, which speaks nothing but CGI."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import scgi
from cgi2scgi.app import PIECE
from cgi2scgi.sites import busybox, cgi_apache, install
from conftest import Launch, Serve
from support import Process, apache, free_port, short_folder

KINDS = ["cgid", "cgi", "busybox"]
APP = Path(__file__).with_name("app.py")


@dataclass(frozen=True, slots=True)
class Site:
    """A web server that runs cgi2scgi as /cgi-bin/app."""

    kind: str
    address: str
    log: Callable[[], str]

    def client(self) -> httpx.Client:
        # busybox closes without having said so: a connection that is used again may be closed a moment later.
        url = f"http://{self.address}/cgi-bin/app"
        return httpx.Client(base_url=url, headers={"Connection": "close"}, trust_env=False, timeout=60)


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, program: Path) -> Iterator[Callable[[str], Site]]:
    """Starts the web server, with cgi2scgi set up for that address."""
    with ExitStack() as stack:

        def start(to: str) -> Site:
            folder = stack.enter_context(short_folder())
            place = install(program, folder, settings=f"server {to}\ntimeout 20\n")
            if request.param == "busybox":
                process = stack.enter_context(busybox(place))
                return Site("busybox", process.address, process.log)
            # Apache believes no length that a program announces, unless it is told to.
            front = stack.enter_context(cgi_apache(place, request.param, "SetEnv ap_trust_cgilike_cl 1"))
            return Site(request.param, f"127.0.0.1:{front.port}", front.log)

        yield start


@pytest.fixture
def server(scgi_serve: Serve) -> Process:
    return scgi_serve(f"{APP}:application", "--max-workers", "2")


def test_the_article_s_page_is_shown(launch: Launch, site: Callable[[str], Site]) -> None:
    script = Path(scgi.__file__).with_name("scgi_server.py")
    port = free_port()
    launch(script.name, str(port), cwd=script.parent, address=f"127.0.0.1:{port}")
    with site(f"127.0.0.1:{port}").client() as client:
        page = client.get("/some/path?pizza=hawaii&drink=beer", headers={"Proxy": "http://evil", "X-One": "1"})
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/plain")
    found = dict(re.findall(r"^(\w+): '(.*)'$", page.text, re.MULTILINE))
    wanted = {
        "CONTENT_LENGTH": "0",
        "SCGI": "1",
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "/cgi-bin/app",
        "PATH_INFO": "/some/path",
        "QUERY_STRING": "pizza=hawaii&drink=beer",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "HTTP_X_ONE": "1",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    assert not {"PATH", "HOME", "LD_LIBRARY_PATH", "HTTP_PROXY"} & found.keys()


def test_a_binary_body_arrives_whole(server: Process, site: Callable[[str], Site]) -> None:
    with site(server.address).client() as client:
        for body in (b"", b"x", bytes(range(256)), PIECE[:100_001], b"\r\n\0\x1a" * 300_000):
            answer = client.post("/digest", content=body)
            assert (answer.status_code, answer.text) == (200, f"{len(body)} {hashlib.sha256(body).hexdigest()}")


@pytest.mark.parametrize("query", ["", "a=1&b=%20", "word", "two+words", "-h", "a%3Db", "%2e%2e;id", "=", "a=\\'$"])
def test_a_query_arrives_as_it_was_sent(server: Process, site: Callable[[str], Site], query: str) -> None:
    with site(server.address).client() as client:
        answer = client.get(httpx.URL(client.base_url).copy_with(raw_path=f"/cgi-bin/app/x?{query}".encode()))
    assert answer.status_code == 200 and f"\nQUERY_STRING={query}\n" in answer.text


def test_100_mb_go_up_and_come_down(server: Process, site: Callable[[str], Site]) -> None:
    whole = hashlib.sha256(PIECE * 1600).hexdigest()
    with site(server.address).client() as client:
        answer = client.post("/digest", content=PIECE * 1600)
        assert answer.text == f"{1600 * 65536} {whole}"
        for path in ("/large?1600", "/stream?1600"):
            found = hashlib.sha256()
            with client.stream("GET", path) as response:
                assert response.status_code == 200
                for piece in response.iter_raw():
                    found.update(piece)
            assert found.hexdigest() == whole


def test_an_early_413_is_seen(server: Process, site: Callable[[str], Site]) -> None:
    with site(server.address).client() as client:
        for _ in range(5):
            answer = client.post("/no", content=bytes(8 << 20))
            assert (answer.status_code, answer.text) == (413, "too large")


def test_a_redirect_is_the_application_s(server: Process, site: Callable[[str], Site]) -> None:
    with site(server.address).client() as client:
        answer = client.get("/moved")
    assert (answer.status_code, answer.headers["location"]) == (302, "/elsewhere")


def test_head_has_no_body(server: Process, site: Callable[[str], Site]) -> None:
    with site(server.address).client() as client:
        answer = client.head("/large?2")
    assert (answer.status_code, answer.content) == (200, b"")


def test_a_server_that_is_not_there_is_a_503_and_a_line_in_the_log(site: Callable[[str], Site]) -> None:
    to = f"127.0.0.1:{free_port()}"
    started = site(to)
    with started.client() as client:
        answer = client.get("/x")
    assert (answer.status_code, answer.text) == (
        503,
        "503 Service Unavailable\nThe application server cannot be reached.\n",
    )
    assert f"cgi2scgi: 503: cannot connect to {to}: Connection refused" in started.log()


def test_what_apache_is_told_to_keep_it_passes_on(server: Process, site: Callable[[str], Site]) -> None:
    with site(server.address).client() as client:
        answer = client.get("/x", headers={"Cookie": "a=1; b=2", "Authorization": "Basic YTpi"})
    assert "HTTP_COOKIE=a=1; b=2\n" in answer.text and "SCRIPT_NAME=/cgi-bin/app\n" in answer.text


def test_what_the_page_says_to_apache(server: Process, program: Path) -> None:
    page = Path(__file__).parents[2] / "docs/how-to/cgi-only.md"
    block = re.search(r"^```apache\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    assert block
    with short_folder() as folder:
        install(program, folder, "hello", f"server {server.address}\n")
        modules = "LoadModule cgid_module ${MODULES}/mod_cgid.so\nLoadModule env_module ${MODULES}/mod_env.so\n"
        with apache(config=modules + block[1].replace("/srv/site", str(folder))) as front:
            answer = httpx.get(f"http://127.0.0.1:{front.port}/hello/who", trust_env=False)
    assert "SCRIPT_NAME=/hello\n" in answer.text and "PATH_INFO=/who\n" in answer.text
    assert "content-length" in answer.headers
