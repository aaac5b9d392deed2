"""The pool behind nginx: as many at once as there are children, and nobody lost."""

from __future__ import annotations

import http.client
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import Front, Process, free_port, scgi_request, wait_until

PROGRAM = """
import os, time
from pathlib import Path
from scgi.scgi_server import SCGIHandler, SCGIServer

FACTS = Path(os.environ["FACTS"])

class Handler(SCGIHandler):
    def produce(self, env, bodysize, input, output):
        if env["QUERY_STRING"].startswith("until-"):  # there are so many files in the folder
            (FACTS / str(os.getpid())).touch()
            deadline = time.monotonic() + 30
            while len(list(FACTS.iterdir())) < int(env["QUERY_STRING"].removeprefix("until-")):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        else:
            time.sleep(float(env["QUERY_STRING"]))
        output.write("Content-Type: text/plain\\r\\n\\r\\n%d" % os.getpid())

if __name__ == "__main__":
    SCGIServer(handler_class=Handler, port=int(os.environ["PORT"]), max_children=5).serve()
"""


@pytest.fixture
def server(launch: Any, tmp_path: Path) -> Process:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "facts").mkdir()
    port = free_port()
    env = {"FACTS": str(tmp_path / "facts"), "PORT": str(port)}
    process: Process = launch(tmp_path / "program.py", address=f"127.0.0.1:{port}", env=env)
    return process


def ask_at_once(front: Front, count: int, query: str) -> list[tuple[int, str]]:
    """The statuses and bodies of so many simultaneous requests."""
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=100)
        try:
            connection.request("GET", f"/?{query}")
            response = connection.getresponse()
            answers.append((response.status, response.read().decode()))
        except (OSError, http.client.HTTPException) as error:
            answers.append((0, repr(error)))
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_five_slow_requests_at_once_are_answered_by_five_processes(
    server: Process, nginx: Callable[..., Front]
) -> None:
    answers = ask_at_once(nginx(to=server.address), 5, "until-5")
    assert [status for status, _ in answers] == [200] * 5
    assert len({pid for _, pid in answers}) == 5


def test_200_requests_of_a_second_at_once_on_5_children_are_all_answered(
    server: Process, nginx: Callable[..., Front]
) -> None:
    started = time.monotonic()
    answers = ask_at_once(nginx(to=server.address), 200, "1")
    took = time.monotonic() - started
    assert Counter(status for status, _ in answers) == {200: 200}
    assert len({pid for _, pid in answers}) == 5
    assert 39 <= took < 60  # 200 s of work on 5 children


NO_SCGI_PARAMS = """
location / {{
  scgi_param REQUEST_METHOD $request_method;
  scgi_param PATH_INFO $document_uri;
  scgi_pass {to};
}}
"""

APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]
"""


def get(front: Front, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=20)
    connection.request("GET", path)
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer


def test_nginx_without_scgi_params_is_refused_with_a_sentence_and_accepted_on_request(
    tmp_path: Path, scgi_serve: Any, nginx: Callable[..., Front]
) -> None:
    (tmp_path / "app.py").write_text(APP)
    strict = scgi_serve(tmp_path / "app.py")
    status, body = get(nginx(config=NO_SCGI_PARAMS.format(to=strict.address)), "/a")
    assert status == 400 and b"SCGI" in body
    line = wait_until(lambda: re.search("WARNING.*refused with 400.*", strict.log()), what="the refusal in the log")
    assert "SCGI" in line[0] and "scgi_params" in line[0] and "--no-require-scgi" in line[0]
    lenient = scgi_serve(tmp_path / "app.py", "--no-require-scgi")
    assert get(nginx(config=NO_SCGI_PARAMS.format(to=lenient.address)), "/a") == (200, b"/a")


def test_a_child_that_is_killed_costs_its_request_alone(
    server: Process, nginx: Callable[..., Front], tmp_path: Path
) -> None:
    front = nginx(to=server.address)
    answers: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: answers.extend(ask_at_once(front, 3, "until-4")))
    asking.start()
    facts = tmp_path / "facts"
    busy = wait_until(lambda: len(list(facts.iterdir())) == 3 and list(facts.iterdir()), what="three busy children")
    os.kill(int(busy[0].name), signal.SIGKILL)
    wait_until(lambda: f"worker {busy[0].name} killed by SIGKILL while answering GET /?until-4" in server.log())
    (facts / "go on").touch()
    asking.join()
    assert sorted(status for status, _ in answers) == [200, 200, 502]
    assert scgi_request(server.address, query="0").status == 200
