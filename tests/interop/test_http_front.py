"""`scgi serve --http` and `scgi gateway`: the wiring; what the gateway relays is tested in tests/gateway."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from interop.sites import MEGABYTE, PAGES
from support import Process, free_port, is_listening, wait_until

WITHOUT_UVICORN = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "uvicorn" else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


@pytest.fixture(params=["tcp", "unix", "anywhere"])
def listen(request: pytest.FixtureRequest, short_tmp: Path) -> str:
    port = free_port()
    return {"tcp": f"127.0.0.1:{port}", "unix": f"unix:{short_tmp}/s", "anywhere": f":{port}"}[request.param]


def serve_http(launch: Any, listen: str, facts: Path, *options: str) -> tuple[Process, str]:
    port = free_port()
    command = ["-m", "scgi", "serve", "--listen", listen, "--http", f"127.0.0.1:{port}", f"--env=FACTS={facts}"]
    process = launch(*command, *options, PAGES, address=f"127.0.0.1:{port}")
    return process, f"http://127.0.0.1:{port}"


def test_get_post_upload_and_download_through_the_embedded_front(launch: Any, listen: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(os.urandom(MEGABYTE) * 20)
    _, url = serve_http(launch, listen, tmp_path)
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        seen = client.get("/environ/a%20b?q=1", headers={"X-Own": "yes"}).json()
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["QUERY_STRING"]) == ("", "/environ/a b", "q=1")
        assert (seen["HTTP_X_OWN"], seen["REMOTE_ADDR"]) == ("yes", "127.0.0.1")
        assert client.post("/valid", content=b"a=1").text == "a=1"
        answer = client.get("/headers")
        assert (answer.status_code, answer.headers.get_list("set-cookie")) == (404, ["a=1; Path=/", "b=2"])
        body = (tmp_path / "large").read_bytes()
        right = f"{len(body)} {hashlib.sha256(body).hexdigest()}"
        assert client.post("/echo", content=body).text == right
        assert client.post("/echo", content=iter([body[:1000], body[1000:]])).text == right  # chunked
        assert client.get("/file").content == body
        assert client.head("/echo").headers["x-method"] == "HEAD"
        assert client.get("/fail").status_code == 500


def test_ctrl_c_ends_server_workers_and_front_at_once_and_leaves_nothing(
    launch: Any, listen: str, tmp_path: Path
) -> None:
    process, url = serve_http(launch, listen, tmp_path)
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:  # its connection stays open
        assert client.get("/valid").status_code == 200
        started = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.wait()
        process.assert_nothing_left()
        assert time.monotonic() - started < 3  # a second, on a machine with nothing else to do
    assert not is_listening(process.address) and not is_listening(listen)
    assert not listen.startswith("unix:") or not Path(listen.removeprefix("unix:")).exists()
    assert "Traceback" not in process.log() and "ERROR" not in process.log()


def test_a_front_that_dies_is_replaced(launch: Any, tmp_path: Path) -> None:
    process, url = serve_http(launch, f"127.0.0.1:{free_port()}", tmp_path)
    assert httpx.get(url + "/valid").status_code == 200
    found = wait_until(lambda: [line for line in process.log().splitlines() if "started as process" in line])
    os.kill(int(found[0].rpartition(" ")[2]), signal.SIGKILL)
    wait_until(lambda: process.log().count("started as process") == 2, what="another front")
    assert httpx.get(url + "/valid", timeout=20).status_code == 200


def test_a_gateway_of_its_own_asks_a_server_elsewhere(
    scgi_serve: Any, launch: Any, listen: str, tmp_path: Path
) -> None:
    server = scgi_serve(PAGES, f"--env=FACTS={tmp_path}", listen=listen)
    upstream = listen if listen[0] != ":" else "127.0.0.1" + listen
    address = f"127.0.0.1:{free_port()}"
    gateway = launch("-m", "scgi", "gateway", "--http", address, "--upstream", upstream, address=address)
    assert httpx.post(f"http://{address}/valid", content=b"through two").text == "through two"
    server.stop()
    assert httpx.get(f"http://{address}/valid").status_code == 503
    os.killpg(gateway.pid, signal.SIGINT)
    assert gateway.wait() in (0, 130)
    assert "Traceback" not in gateway.log()


@pytest.mark.parametrize("command", ["serve", "gateway"])
def test_without_uvicorn_one_sentence_names_what_to_install(launch: Any, tmp_path: Path, command: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_UVICORN)
    arguments = ["--http", f"127.0.0.1:{free_port()}"]
    if command == "serve":
        arguments += ["--listen", f"127.0.0.1:{free_port()}", f"--env=FACTS={tmp_path}", str(PAGES)]
    process = launch("-m", "scgi", command, *arguments, env={"PYTHONPATH": str(tmp_path)})
    assert process.wait() != 0
    [line] = process.log().splitlines()
    assert line.startswith("scgi: ") and "pip install 'scgi-server[http]'" in line
