"""The application on another machine than the web server: three of them, with a cable from each to the first."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scgi.errors import ExitCode
from support import Process, require_program, wait_until
from support.identity import needs_root
from support.networks import Machine, machines

Serve = Callable[..., Process]
pytestmark = needs_root

TESTS = Path(__file__).parents[1]
APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"hello {environ['REMOTE_ADDR']} {environ.get('REMOTE_USER')}".encode()]
"""
# Run on a machine; the first line that each prints is JSON.
BROWSE = """
import json, sys
from urllib.request import urlopen
from support import nginx
with nginx(to=sys.argv[1]) as front, urlopen(front.url, timeout=10) as answer:
    print(json.dumps(answer.read().decode()))
"""
FORGE = """
import json, sys
from support import Reset, scgi_request
try:
    print(json.dumps(scgi_request(sys.argv[1], {"REMOTE_USER": "root", "REMOTE_ADDR": "10.0.0.1"}).body.decode()))
except (Reset, ConnectionError) as error:
    print(json.dumps(f"refused: {type(error).__name__}"))
"""


@pytest.fixture
def hosts() -> Iterator[list[Machine]]:
    """The application's, the web server's, and a third that has no business here."""
    with machines("app", "web", "third") as hosts:
        yield hosts


@pytest.fixture
def app(short_tmp: Path) -> Path:
    file = short_tmp / "app.py"
    file.write_text(APP)
    return file


def on(machine: Machine, program: str, address: str) -> str:
    said = machine.run("env", f"PYTHONPATH={TESTS}", sys.executable, "-c", program, address)
    return str(json.loads(said.splitlines()[0]))


def test_the_web_servers_machine_is_served_and_a_third_is_refused(
    serve: Serve, hosts: list[Machine], app: Path
) -> None:
    require_program("nginx")
    here, web, third = hosts
    server = serve("--user", "nobody", "--listen", "0.0.0.0:4000", "--allow", web.address, app, prefix=here.prefix)
    wait_until(lambda: "serves after" in server.log())
    assert on(web, BROWSE, "10.77.1.1:4000") == "hello 127.0.0.1 None"
    assert on(third, FORGE, "10.77.2.1:4000").startswith("refused")
    assert on(here, FORGE, "127.0.0.1:4000").startswith("refused")  # not named, either
    assert on(web, FORGE, "10.77.1.1:4000") == "hello 10.0.0.1 root"  # why nobody else may connect
    wait_until(lambda: f"refused {third.address}, which is not in allow (1 refused so far)" in server.log())


def test_an_address_that_others_reach_is_not_served_without_a_list(
    serve: Serve, hosts: list[Machine], app: Path
) -> None:
    here, _, third = hosts
    for address in ("0.0.0.0:4000", "10.77.2.1:4000"):
        server = serve("--user", "nobody", "--listen", address, app, prefix=here.prefix)
        assert server.wait() == ExitCode.USAGE
        assert f"other machines can reach {address}" in server.log() and "--allow any" in server.log()
        assert len(server.log().splitlines()) == 1
    server = serve("--user", "nobody", "--listen", "10.77.2.1:4000", "--allow", "any", app, prefix=here.prefix)
    wait_until(lambda: "serves after" in server.log())
    assert on(third, FORGE, "10.77.2.1:4000") == "hello 10.0.0.1 root"
