"""`SCGIServer`, its test page, the article's programs behind nginx, and what is refused with a sentence."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

import scgi
from scgi.apps.connection import Connection
from scgi.apps.handler import SCGIHandler, cgi_process, cgi_variables
from scgi.apps.load import refuse_unrunnable
from scgi.errors import AppLoadError, ConfigError, ExitCode, MisuseError, ScgiError
from scgi.scgi_server import SCGIServer
from support import free_port, netstring, scgi_request, wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
PACKAGE = Path(scgi.__file__).parent


def told(*command: str | Path, cwd: Path | None = None) -> tuple[int, list[str]]:
    """Exit status and standard error of a Python program that ends by itself."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=30, check=False, cwd=cwd)
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def only_complaint(lines: list[str]) -> str:
    """The last line, when there is nothing before it but how the start went."""
    *course, complaint = lines
    assert all(re.match(r"\S+ \S+ \[\d+\] INFO scgi\.", line) for line in course), course
    return complaint


# The test page


def test_run_from_its_own_folder_it_shows_the_page(launch: Any) -> None:
    port = free_port()
    launch("scgi_server.py", str(port), address=f"127.0.0.1:{port}", cwd=PACKAGE)
    variables = {"SCRIPT_NAME": "/scgitest", "HTTP_X_QUOTES": "it's", "HTTP_X_BYTE": "\xe9\x01"}
    answer = scgi_request(f"127.0.0.1:{port}", variables, path="/scgitest", query="a=b")
    assert answer.header("Content-Type") == "text/plain; charset=utf-8"
    lines = answer.text.splitlines()
    assert all(re.fullmatch(r"[A-Z_]+: (['\"]).*\1", line) for line in lines)
    assert lines[:3] == ["CONTENT_LENGTH: '0'", "REQUEST_METHOD: 'GET'", "REQUEST_URI: '/scgitest?a=b'"]
    assert {
        "SCRIPT_NAME: '/scgitest'",
        "QUERY_STRING: 'a=b'",
        "SCGI: '1'",
        'HTTP_X_QUOTES: "it\'s"',
        "HTTP_X_BYTE: 'é\\x01'",
    } <= set(lines)


def test_a_request_of_the_two_required_variables_gets_the_page(launch: Any) -> None:
    port = free_port()
    launch("-m", "scgi.scgi_server", str(port), address=f"127.0.0.1:{port}")
    answer = scgi_request(f"127.0.0.1:{port}", b"24:CONTENT_LENGTH\x000\x00SCGI\x001\x00,")
    assert answer.text == "CONTENT_LENGTH: '0'\nSCGI: '1'\n"


def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, lines = told("scgi_server.py", str(port), cwd=PACKAGE)
    assert status != 0
    (line,) = lines
    assert line.startswith(f"scgi: cannot listen on 127.0.0.1:{port}: the address is in use")


@pytest.mark.parametrize(
    "arguments", [["x"], ["-1"], ["65536"], ["9" * 5000], ["٤٠٠٠"], ["4000", "4001"], ["--help"], [""]]
)
def test_a_bad_argument_is_told_the_usage(arguments: list[str]) -> None:
    status, lines = told("scgi_server.py", *arguments, cwd=PACKAGE)
    assert status != 0
    assert lines == ["usage: scgi_server.py [PORT]  (a number up to 65535, by default 4000)"]


# The article's programs, behind a web server


def page(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_the_clock_behind_nginx(launch: Any, nginx: Any) -> None:
    port = free_port()
    launch(EXAMPLES / "clock.py", str(port), address=f"127.0.0.1:{port}")
    status, text = page(nginx(to=f"127.0.0.1:{port}").url)
    assert status == 200
    assert re.fullmatch(r"\w+ \w+ [ \d]\d \d\d:\d\d:\d\d \d{4}\n", text)


def test_the_pizza_behind_nginx_with_its_arguments_and_without(launch: Any, nginx: Any) -> None:
    port = free_port()
    process = launch(EXAMPLES / "pizza.py", str(port), address=f"127.0.0.1:{port}")
    url = nginx(to=f"127.0.0.1:{port}", mount="/order").url + "/order"
    for query, error in (("", "ValueError"), ("?pizza=hawaii", "KeyError: 'drink'")):
        status, text = page(url + query)
        assert status == 500
        assert "Error:" not in text and "Traceback" not in text
        wait_until(lambda error=error: error in process.log())
        assert "    | Traceback (most recent call last):" in process.log()
        status, text = page(url + "?pizza=hawaii&drink=beer")
        assert status == 200
        assert "One hawaii and one beer, coming up." in text


# Programs as people write them

MANY_WAYS = """
import functools, os, socket, sys
from scgi import scgi_server
from scgi.scgi_server import SCGIHandler, SCGIServer

class Hello(SCGIHandler):
    def __init__(self, parent_fd, greeting="hello"):
        super().__init__(parent_fd)
        self.greeting = greeting

    def produce(self, env, bodysize, input, output):
        output.write("Content-Type: text/plain\\n\\n" + self.greeting)

class Own(SCGIServer):
    def __init__(self, *args, **kwargs):
        SCGIServer.__init__(self, *args, **kwargs)

    def get_listening_socket(self):
        s = socket.socket(socket.AF_UNIX)
        s.bind("socket")
        return s

    def serve(self):
        scgi_server.log("starting")
        SCGIServer.serve(self)

way, port = sys.argv[1], int(sys.argv[2])
if way == "factory":
    SCGIServer(functools.partial(Hello, greeting="hello from a partial"), port=port).serve()
elif way == "lambda":
    SCGIServer(handler_class=lambda fd: Hello(fd, "hello from a lambda"), port=port).serve()
elif way == "own socket":
    Own(Hello).serve()
    print("serve has returned", file=sys.stderr)
"""


@pytest.mark.parametrize("way", ["factory", "lambda"])
def test_handler_class_may_be_anything_that_makes_a_handler(launch: Any, tmp_path: Path, way: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(MANY_WAYS)
    port = free_port()
    launch(program, way, str(port), address=f"127.0.0.1:{port}")
    assert scgi_request(f"127.0.0.1:{port}").text.startswith("hello from a ")


def test_get_listening_socket_may_be_overridden(launch: Any, tmp_path: Path, short_tmp: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(MANY_WAYS)
    process = launch(program, "own socket", "0", cwd=short_tmp)
    address = f"unix:{short_tmp}/socket"
    wait_until((short_tmp / "socket").exists)
    wait_until(lambda: "serving Hello" in process.log())
    assert scgi_request(address).text == "hello"
    assert process.stop() == 0
    assert process.log().splitlines()[0].endswith("] starting")
    assert process.log().splitlines()[-1] == "serve has returned"


# What is refused


class Serving(SCGIHandler):
    def serve(self) -> None:
        pass


class Producing(SCGIHandler):
    def produce(self, env: dict[str, str], bodysize: int, input: Any, output: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [
        (Serving, "Serving overrides serve(): here the server's workers accept requests themselves; override handle_"),
        (Producing(0), "expected a subclass of SCGIHandler, found Producing <.*>; give the class itself"),
        (dict, "expected a subclass of SCGIHandler, found the class dict"),
        ("Producing", "expected a subclass of SCGIHandler, found str 'Producing'"),
    ],
)
def test_a_handler_that_could_not_run_as_meant_gets_a_sentence(handler: Any, sentence: str) -> None:
    with pytest.raises(AppLoadError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        SCGIServer(handler, port=free_port()).serve()


def test_an_override_of_the_servers_machinery_gets_a_sentence() -> None:
    class Spawning(SCGIServer):
        def spawn_child(self, conn: Any = None) -> None:
            pass

    class Delegating(SCGIServer):
        def delegate_request(self, conn: Any) -> None:
            pass

    with pytest.raises(ConfigError, match=r"Spawning overrides spawn_child\(\): .* in the handler's __init__\(\)"):
        Spawning(port=free_port()).serve()
    with pytest.raises(ConfigError, match=r"Delegating overrides delegate_request\(\)"):
        Delegating(port=free_port()).serve()
    with pytest.raises(ConfigError, match="the pool starts children itself"):
        SCGIServer().spawn_child()
    with pytest.raises(MisuseError, match="Override handle_connection"):
        SCGIHandler(0).serve()


def test_less_than_one_child_gets_a_sentence() -> None:
    with pytest.raises(ConfigError, match="max_children: expected at least 1, got 0"):
        SCGIServer(max_children=0).serve()


@pytest.mark.parametrize(
    ("call", "serve"),
    [
        ("SCGIServer.serve()", lambda: SCGIServer(port=free_port()).serve()),
        ("SCGIServer.serve_on_socket()", lambda: SCGIServer().serve_on_socket(None)),
        ("scgi.serve()", lambda: scgi.serve(print, listen="127.0.0.1:0")),
    ],
)
def test_outside_of_the_main_thread_nothing_is_served(call: str, serve: Any) -> None:
    with ThreadPoolExecutor() as threads, pytest.raises(ScgiError) as refused:
        threads.submit(serve).result()
    expected = f"{call} was called in a thread: call it in the main thread, the only one that signals reach"
    assert str(refused.value) == expected


def test_scgi_serve_refuses_a_file_that_serves_itself(tmp_path: Path) -> None:
    program = "from scgi.scgi_server import SCGIHandler, SCGIServer\nSCGIServer(SCGIHandler, port=0).serve()\n"
    (tmp_path / "article.py").write_text(program)
    status, lines = told("-m", "scgi", "serve", "article.py", "--listen", f"127.0.0.1:{free_port()}", cwd=tmp_path)
    assert status == ExitCode.APP_UNLOADABLE
    line = only_complaint(lines)
    assert line.startswith("scgi: article.py calls SCGIServer.serve() while it is being loaded: put the call under ")


WITHOUT_FORK = """
import os, select, signal, socket, sys
missing = {os: "fork sched_getaffinity writev sendfile", signal: "SIGHUP SIGCHLD SIGURG SIGUSR1 SIGWINCH pthread_kill",
           socket: "AF_UNIX send_fds recv_fds", select: "poll epoll"}
for module, names in missing.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
sys.modules.update(dict.fromkeys(["fcntl", "pwd", "grp", "resource"]))
"""


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import scgi; scgi.serve('app.py')", "scgi.serve"),
        ("from scgi import serve", "scgi.serve"),
        ("import scgi.scgi_server", "scgi.scgi_server"),
        ("import scgi, scgi.passfd, scgi.util, scgi.systemd_socket, scgi.protocol, scgi.client.exchange", ""),
    ],
)
def test_where_there_is_no_fork_what_serves_says_so_and_the_rest_can_be_imported(code: str, what: str) -> None:
    status, lines = told("-c", WITHOUT_FORK + code)
    assert (status == 0) is (what == "")
    sentence = f"{what} needs fork, which this system does not have; run it on Linux, or in WSL"
    assert lines[-1:] == ([f"scgi.errors.ScgiError: {sentence}"] if what else [])


def test_produce_cgilike_is_refused_together_with_threads(tmp_path: Path) -> None:
    refuse_unrunnable(Producing, threads=2)
    with pytest.raises(AppLoadError, match="cannot run with --threads above 1"):
        refuse_unrunnable(SCGIHandler, threads=2)
    listen = ("--listen", f"127.0.0.1:{free_port()}")
    status, lines = told("-m", "scgi", "serve", "scgi.scgi_server:SCGIHandler", "--threads", "2", *listen, cwd=tmp_path)
    assert status != 0
    assert "cannot run with --threads above 1" in only_complaint(lines)


def test_two_threads_never_share_the_dressed_up_process() -> None:
    refused: list[str] = []

    def other() -> None:
        try:
            SCGIHandler(0).produce({}, 0, io.BytesIO(), io.BytesIO())
        except MisuseError as error:
            refused.append(str(error))

    with cgi_process({}, io.BytesIO(), io.BytesIO()):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    (sentence,) = refused
    assert "cannot be used together with threads" in sentence


def test_what_may_enter_the_environment() -> None:
    harmless = {"REQUEST_METHOD": "GET", "HTTP_X": "y", "SCGI": "1", "PATH_INFO": "/", "HTTPS": "on"}
    harmful = dict.fromkeys(["PATH", "IFS", "BASH_ENV", "ENV", "LD_PRELOAD", "PYTHONPATH", "SCGI_APP", "HOME"], "x")
    harmful |= dict.fromkeys(["HTTP_PROXY", "http_proxy", "Https_Proxy", "ALL_PROXY", "no_proxy"], "x")
    assert cgi_variables({**harmless, **harmful, "HTTP_NUL": "a\0b"}) == harmless


# A handler alone, as a program's own tests use it


def test_a_handler_answers_on_any_socket() -> None:
    class Bytes(SCGIHandler):
        def produce(self, env: dict[str, str], bodysize: int, input: Any, output: Any) -> None:
            output.write(env["NAME"].encode() + input.read(bodysize))

    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(netstring(b"CONTENT_LENGTH\x004\x00SCGI\x001\x00NAME\x00value\x00") + b"body")
        Bytes(0).handle_connection(theirs)
        theirs.close()
        assert ours.recv(100) == b"valuebody"


def test_produce_cgilike_writes_to_any_file() -> None:
    output = io.BytesIO()
    SCGIHandler(0).produce({"NAME": "välue"}, 0, io.BytesIO(), output)
    assert output.getvalue().decode() == "Content-Type: text/plain; charset=utf-8\n\nNAME: 'välue'\n"
    assert not output.closed


def test_what_outlives_its_request_sends_nothing() -> None:
    class Response(io.BytesIO):
        begun = False

    ours, theirs = socket.socketpair()
    with ours, theirs:
        response = Response()
        connection = Connection(theirs.fileno(), b"", io.BytesIO(), response)  # type: ignore[arg-type]
        file = connection.makefile("wb")
        file.write(b"held by the file")
        connection.give_back()
        file.close()
        assert response.getvalue() == b""
