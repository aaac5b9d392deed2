"""Which server is asked, who may say so, and who may not: the request."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgi2scgi.program import Run, environment, run
from cgi2scgi.sites import busybox, cgi_apache, install
from gateway.toys import Upstream
from support import free_port, raw_exchange, short_folder

BY_HAND = {name: value for name, value in environment().items() if name != "GATEWAY_INTERFACE"}


@pytest.fixture
def other() -> Iterator[Upstream]:
    """A server that must not be asked."""
    server = Upstream(f"127.0.0.1:{free_port()}")
    yield server
    server.close()
    server.settle()
    assert server.last is None


def script(folder: Path, text: str, name: str = "app.cgi") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def refusal(done: Run) -> str:
    """The sentence in the log, if this is a refusal to serve as it is set up."""
    assert (done.status, done.exit_status) == (500, 0)
    assert done.body == b"500 Internal Server Error\nThe way to the application server is not set up.\n"
    assert done.log.startswith("cgi2scgi: 500: ") and done.log.count("\n") == 1
    return done.log.removeprefix("cgi2scgi: 500: ").strip()


# -- who says so -------------------------------------------------------------------------------------------------------


def test_the_environment_names_it(program: Path, upstream: Upstream) -> None:
    assert run(program, {**environment(), "SCGI_SERVER": upstream.address}).body == b"hello"


def test_a_file_beside_the_program_names_it(program: Path, upstream: Upstream, tmp_path: Path) -> None:
    place = install(program, tmp_path, settings=f"# the shop\n\n  server\t{upstream.address}  \ntimeout 5\n")
    assert run(place / "app", environment()).body == b"hello"
    assert run(["./app"], environment(), cwd=place).body == b"hello"


def test_each_name_of_the_program_has_a_file_of_its_own(program: Path, upstream: Upstream, tmp_path: Path) -> None:
    (tmp_path / "shop").symlink_to(program)
    (tmp_path / "shop.conf").write_text(f"server {upstream.address}")
    assert run(tmp_path / "shop", environment()).body == b"hello"


def test_a_script_that_it_is_the_interpreter_of_names_it(program: Path, upstream: Upstream, tmp_path: Path) -> None:
    one_line = script(tmp_path, f"#!{program} {upstream.address}\n")
    several = script(tmp_path, f"#! {program}\nserver {upstream.address}\ntimeout 5\n", "several")
    assert run(one_line, environment()).body == b"hello"
    assert run(several, environment()).body == b"hello"


def test_by_hand_an_argument_names_it_before_the_environment(
    program: Path, upstream: Upstream, other: Upstream
) -> None:
    assert run([program, upstream.address], {**BY_HAND, "SCGI_SERVER": other.address}).body == b"hello"


def test_the_environment_counts_before_the_file(
    program: Path, upstream: Upstream, other: Upstream, tmp_path: Path
) -> None:
    place = install(program, tmp_path, settings=f"server {other.address}\n")
    assert run(place / "app", {**environment(), "SCGI_SERVER": upstream.address}).body == b"hello"
    (place / "app.conf").write_text(f"server {upstream.address}\n")
    assert run(place / "app", {**environment(), "SCGI_SERVER": ""}).body == b"hello"


def test_nobody_is_asked_if_nobody_is_named(program: Path) -> None:
    said = refusal(run(program, environment()))
    assert said.startswith(f'no server is named: set SCGI_SERVER, or write "server ADDRESS" to {program}.conf')


def test_by_hand_it_says_what_it_is_for(program: Path) -> None:
    for words in ([program], [program, "--help"], [program, "4000", "more"]):
        done = run(words, BY_HAND if "more" in words else {})
        assert (done.exit_status, done.output) == (2, b"") and "REQUEST_METHOD=GET" in done.log


# -- who does not ------------------------------------------------------------------------------------------------------


def test_arguments_do_not_count_below_a_web_server(
    program: Path, upstream: Upstream, other: Upstream, tmp_path: Path
) -> None:
    place = install(program, tmp_path, settings=f"server {upstream.address}\n")
    for words in ([other.address], ["--server=" + other.address], [other.address, f"{place}/app"]):
        assert run([place / "app", *words], environment()).body == b"hello"
        found = refusal(run([program, *words], environment()))
        assert "arguments do not count here, since they may come from a query" in found


def test_a_query_does_not_name_a_script(program: Path, other: Upstream, tmp_path: Path) -> None:
    private = script(tmp_path, f"#!{program} {other.address}\n", "private")
    assert "no server is named" in refusal(run([program, private], environment()))
    variables = {**environment(), "SCRIPT_FILENAME": str(private), "PATH_TRANSLATED": str(private)}
    assert "no server is named" in refusal(run([program, private], variables))


def test_no_variable_of_a_request_names_it(program: Path, upstream: Upstream, other: Upstream) -> None:
    given = {"HTTP_SCGI_SERVER": other.address, "QUERY_STRING": f"SCGI_SERVER={other.address}"}
    given |= {"REDIRECT_SCGI_SERVER": other.address, "CGI_SCGI_SERVER": other.address, "PATH_INFO": other.address}
    assert run(program, {**environment(), **given, "SCGI_SERVER": upstream.address}).body == b"hello"
    assert "no server is named" in refusal(run(program, {**environment(), **given}))


@pytest.mark.parametrize("kind", ["cgid", "cgi", "busybox"])
def test_a_query_without_an_equals_sign_chooses_no_server(
    program: Path, upstream: Upstream, other: Upstream, kind: str
) -> None:
    def get(address: str, path: str) -> bytes:
        request = f"GET /cgi-bin/{path}?{other.address} HTTP/1.0\r\nHost: localhost\r\n\r\n"
        return raw_exchange(address, request.encode())

    with short_folder() as folder:
        place = install(program, folder, settings=f"server {upstream.address}\n")
        install(program, folder, "bare")
        script(place, f"#!{program} {upstream.address}\n", "script")
        if kind == "busybox":
            with busybox(place) as server:
                found = [get(server.address, name) for name in ("app", "script", "bare")]
        else:
            with cgi_apache(place, kind) as front:
                found = [get(f"127.0.0.1:{front.port}", name) for name in ("app", "script", "bare")]
    assert found[0].endswith(b"hello") and found[1].endswith(b"hello") and b" 500 " in found[2]
    assert upstream.last is not None and upstream.last.variables["QUERY_STRING"] == other.address


def test_a_file_that_everybody_may_write_to_is_refused(program: Path, other: Upstream, tmp_path: Path) -> None:
    place = install(program, tmp_path, settings=f"server {other.address}\n")
    (place / "app.conf").chmod(0o646)
    assert refusal(run(place / "app", environment())).endswith("app.conf: everybody may write to it (chmod o-w)")


# -- what is wrong with it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server 4000\nport 1\n", ":2: expected server, timeout, connect-timeout or pass"),
        ("timeout\n", ":1: expected a whole number of seconds, 1 to 86400"),
        ("timeout 0\n", ":1: expected a whole number of seconds, 1 to 86400"),
        ("timeout 1.5\n", ":1: expected a whole number of seconds, 1 to 86400"),
        ("#\n\nconnect-timeout 99999999999999999999\n", ":3: expected a whole number of seconds, 1 to 86400"),
        ("server " + "x" * 2000, ":1: more than 1022 bytes in the line"),
        ("\x7fELF\0\1\2", ":1: expected server, timeout, connect-timeout or pass"),
    ],
)
def test_a_mistake_in_the_file_is_named_by_its_line(program: Path, tmp_path: Path, text: str, said: str) -> None:
    place = install(program, tmp_path, settings=text)
    assert refusal(run(place / "app", environment())) == f"{place}/app.conf{said}"


def test_a_file_that_is_none_is_refused(program: Path, tmp_path: Path) -> None:
    place = install(program, tmp_path)
    os.mkfifo(place / "app.conf")
    assert refusal(run(place / "app", environment())).endswith("app.conf is not a file")
    (place / "app.conf").unlink()
    (place / "app.conf").mkdir()
    assert refusal(run(place / "app", environment())).endswith("app.conf is not a file")


@pytest.mark.parametrize("name", ["SCGI_TIMEOUT", "SCGI_CONNECT_TIMEOUT"])
def test_a_mistake_in_the_environment_is_named(program: Path, name: str) -> None:
    given = {**environment(), "SCGI_SERVER": "4000", name: "soon"}
    assert refusal(run(program, given)) == f"{name}: expected a whole number of seconds, 1 to 86400"


# -- where it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{port}", ":{port}", "127.0.0.1:{port}", "localhost:{port}"])
def test_a_port_is_one_of_this_machine(program: Path, upstream: Upstream, form: str) -> None:
    port = upstream.address.rpartition(":")[2]
    assert run(program, {**environment(), "SCGI_SERVER": form.format(port=port)}).body == b"hello"


def test_ipv6_stands_in_brackets(program: Path) -> None:
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError:
            pytest.skip("there is no IPv6 here")
        listener.listen()
        address = f"[::1]:{listener.getsockname()[1]}"
        done = run(program, {**environment(), "SCGI_SERVER": address, "SCGI_TIMEOUT": "1"})
    assert (done.status, done.log) == (504, f"cgi2scgi: 504: {address} did not go on within 1 s\n")


@pytest.mark.parametrize("form", ["unix:{}", "{}"])
def test_a_unix_socket_is_a_path(program: Path, form: str) -> None:
    with short_folder() as folder:
        server = Upstream(f"unix:{folder}/s")
        done = run(program, {**environment(), "SCGI_SERVER": form.format(f"{folder}/s")})
        server.close()
        server.settle()
    assert done.body == b"hello"


@pytest.mark.parametrize(
    "address",
    ["0", "x", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:+1", "::1:4000", "[::1]", "[:1",
     "127.0.0.1:4000 # here", "[]:1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(program: Path, address: str) -> None:
    found = refusal(run(program, {**environment(), "SCGI_SERVER": address}))
    assert found == "server: expected a port (4000), HOST:PORT, [IPV6]:PORT, unix:PATH or a path"


@pytest.mark.parametrize("path", ["unix:", "/" + "x" * 107])
def test_a_path_that_no_socket_can_have_is_refused(program: Path, path: str) -> None:
    found = refusal(run(program, {**environment(), "SCGI_SERVER": path}))
    assert found == "server: a unix socket's path has 1 to 107 bytes"


# -- when it is not there ----------------------------------------------------------------------------------------------


def test_nobody_there_is_a_503(program: Path, tmp_path: Path) -> None:
    for address, reason in (
        (f"127.0.0.1:{free_port()}", "Connection refused"),
        (f"unix:{tmp_path}/s", "No such file or directory"),
    ):
        done = run(program, {**environment(), "SCGI_SERVER": address})
        assert (done.status, done.exit_status, done.seconds < 5) == (503, 0, True)
        assert done.log == f"cgi2scgi: 503: cannot connect to {address}: {reason}\n"
        assert done.body == b"503 Service Unavailable\nThe application server cannot be reached.\n"


def test_a_name_that_nobody_has_is_a_503(program: Path) -> None:
    done = run(program, {**environment(), "SCGI_SERVER": "nobody.invalid:4000"})
    assert done.status == 503 and done.log.startswith("cgi2scgi: 503: cannot connect to nobody.invalid:4000: ")


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_full_queue_is_a_503_within_the_time_for_connecting(program: Path, kind: str) -> None:
    with short_folder() as folder:
        family, where = (socket.AF_UNIX, f"{folder}/s") if kind == "unix" else (socket.AF_INET, ("127.0.0.1", 0))
        with socket.socket(family) as listener:
            listener.bind(where)
            listener.listen(0)
            name = listener.getsockname()
            address = name if isinstance(name, str) else f"127.0.0.1:{name[1]}"
            waiting = [socket.socket(family) for _ in range(3)]
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(name)
            given = {"SCGI_SERVER": address, "SCGI_CONNECT_TIMEOUT": "1", "SCGI_TIMEOUT": "20"}
            began = time.monotonic()
            done = run(program, {**environment(), **given})
            assert time.monotonic() - began < 8
            for sock in waiting:
                sock.close()
    assert done.status == 503
    assert done.log == f"cgi2scgi: 503: cannot connect to {address}: Connection timed out\n"


def test_head_gets_a_refusal_without_a_body(program: Path) -> None:
    done = run(program, {**environment("HEAD"), "SCGI_SERVER": f"127.0.0.1:{free_port()}"})
    assert (done.status, done.body, done.head["content-length"]) == (503, b"", "66")
