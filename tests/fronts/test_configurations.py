"""What `scgi config nginx` and its like print: whole configurations, taken by the real programs, and no injection."""

from __future__ import annotations

import configparser
import http.client
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from interop.webservers import NAMES, web_server
from scgi.fronts import site, systemd
from scgi.fronts.site import Site
from scgi.net.address import parse_address
from support import Front, Process, find_program, free_port, require_program, start

EXAMPLES = Path(__file__).parents[2] / "examples/systemd"

APP = """
import sys, time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(float(environ["QUERY_STRING"]))
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{sys.argv[-1]} {environ['SCRIPT_NAME']} {environ['PATH_INFO']}".encode()]
"""


def config(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scgi", "config", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def told(*arguments: str) -> list[str]:
    done = config(*arguments)
    assert (done.returncode, done.stdout) == (2, ""), done
    return [line.removeprefix("scgi: ") for line in done.stderr.splitlines()]


def get(web: Front, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@contextmanager
def serving(folder: Path, *addresses: str) -> Iterator[Process]:
    (folder / "app.py").write_text(APP)
    listen = [f"--listen={address}" for address in addresses]
    command = [sys.executable, "-m", "scgi", "serve", *listen, folder / "app.py"]
    server = start(command, log_file=folder / "log", address=addresses[0])
    try:
        yield server
        server.stop()
        server.assert_nothing_left()
    finally:
        server.kill()


# -- what a person may write -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["/a b", "/a;b", "/a{", "/$a", "/a\nb", '/"', "/a'b", "a", "", "/../etc", "//", "/a%20b", "/a#b", "/ü"]
)
@pytest.mark.parametrize("front", NAMES)
def test_a_mount_that_could_end_a_word_is_refused_with_a_sentence(front: str, value: str) -> None:
    with pytest.raises(ValueError, match="expected a path such as /shop, of letters, digits and"):
        site.parse_mount(value)
    if value == "/a;b":
        [line] = told(front, f"--mount={value}")
        assert line.startswith("--mount: expected a path such as /shop")


@pytest.mark.parametrize("value", ["a b", "a;", "a\n", "-a", "$a", "a{b}", "A", "", "ä"])
def test_a_name_or_host_name_that_could_end_a_word_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="expected a name of small letters"):
        site.parse_name(value)
    if value != "A":
        with pytest.raises(ValueError, match="expected a host name"):
            site.parse_server_name(value)


def test_all_that_is_wrong_is_said_at_once_with_status_2() -> None:
    lines = told(
        "nginx", "--static=x", "--mount=/a b", "--upstream=systemd", "--listen=a", "--timeout=0", "--max-body=x"
    )
    assert [line.partition(": ")[0] for line in lines] == [
        "--mount", "--upstream", "--static", "--max-body", "--timeout", "--listen"
    ]  # fmt: skip
    assert told("nginx", "--upstream=4000", "--upstream=4000") == [
        "--upstream: expected each address once, got 127.0.0.1:4000 twice"
    ]
    assert told("apache", "--static=/a=/srv", "--mount=/a/b") == [
        "--mount: /a/b lies below --static /a/, where only files are"
    ]
    assert told("lighttpd", "--upstream=127.0.0.1:0") == [
        "--upstream: expected HOST:PORT or unix:PATH, got '127.0.0.1:0'"
    ]


def test_a_misspelt_web_server_gets_a_suggestion_and_an_application_none() -> None:
    assert told("ngnix")[0] == "there is no 'scgi config ngnix'; did you mean 'nginx'?"
    assert config("lightpd:app").returncode == 0  # an application's name
    assert "nginx     Print a configuration for nginx." in config("--help").stdout
    assert config("nginx", "--help").stdout.startswith("Usage: scgi config nginx [OPTIONS]")


ODD = ["a b", "a;b", "a{b}", "a'b", "#a", 'a"b', "a\\b", "a$b", "a$(b)", "${a}", "a%20b", "a|b", "ü"]


@pytest.mark.parametrize("front", NAMES)
def test_a_socket_at_an_odd_path_is_found_or_refused_with_a_sentence(front: str, short_tmp: Path) -> None:
    accepted, sockets = [], []
    for number, name in enumerate(ODD):
        (short_tmp / name).mkdir()
        address = f"unix:{short_tmp}/{name}/s"
        done = config(front, f"--upstream={address}", f"--mount=/m{number}")
        if done.returncode == 0:
            accepted.append(name)
            sockets.append(address)
        else:
            assert re.fullmatch(r"scgi: (--upstream: )?\w+ cannot be told of a path with .*\n", done.stderr), (
                done.stderr
            )
    assert {"a b", "a;b", "a{b}", "a'b", "ü"} <= set(accepted)
    with serving(short_tmp, f"unix:{short_tmp}/plain", *sockets):
        for address in sockets:
            with web_server(front, f"--upstream={address}", "--mount=/odd") as web:
                status, text = get(web, "/odd/a")
                assert (status, text[-7:]) == (200, "/odd /a"), (address, text)


@pytest.mark.parametrize("front", NAMES)
def test_a_line_break_in_a_path_is_refused_everywhere(front: str) -> None:
    for option in ("--upstream=unix:/a\nb", "--static=/s=/a\nb", "--upstream=unix:/a\u2028b", "--static=/s=/a\rb"):
        [line] = told(front, option)
        assert "a configuration cannot hold a path with control characters" in line


@pytest.mark.parametrize("front", NAMES)
def test_static_files_are_the_web_servers_own_and_their_folder_may_be_odd(front: str, short_tmp: Path) -> None:
    address, refused = f"127.0.0.1:{free_port()}", []
    with serving(short_tmp, address):
        for name in ODD:
            folder = short_tmp / f"s {name}"
            folder.mkdir()
            (folder / "a.txt").write_text(f"file in {name}")
            options = [f"--upstream={address}", f"--static=/shop/static={folder}", "--mount=/shop", "--mount=/"]
            done = config(front, *options)
            if done.returncode:
                assert re.fullmatch(r"scgi: (--static: )?\w+ cannot be told of a path with .*\n", done.stderr)
                refused.append(name)
                continue
            with web_server(front, *options) as web:
                assert get(web, "/shop/static/a.txt") == (200, f"file in {name}"), name
                assert get(web, "/shop/static/none")[0] == 404
                assert get(web, "/shop/staticfoo")[1].endswith("/shop /staticfoo")
                assert get(web, "/other")[1].endswith("  /other")
    assert not {"a b", "a;b", "a{b}", "a'b", "ü"} & set(refused)


# -- what comes of it --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", NAMES)
def test_of_several_upstreams_the_next_answers_when_one_is_not_there(front: str, short_tmp: Path) -> None:
    here, there, gone = f"unix:{short_tmp}/s", f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    options = [f"--upstream={one}" for one in (gone, here, there)]
    with serving(short_tmp, here, there), web_server(front, *options, "--mount=/shop") as web:
        answers = {get(web, "/shop/a", method) for method in ("GET", "POST") for _ in range(8)}
    assert {status for status, _ in answers} == {200}, answers


@pytest.mark.parametrize("front", NAMES)
def test_body_and_time_are_limited_as_asked_and_no_sooner(front: str, short_tmp: Path) -> None:
    address = f"unix:{short_tmp}/s"
    with serving(short_tmp, address), web_server(front, f"--upstream={address}", "--max-body=1m", "--timeout=1") as web:
        assert get(web, "/", "POST", bytes(1 << 20))[0] == 200
        assert get(web, "/", "POST", bytes((1 << 20) + 2000))[0] == 413
        assert get(web, "/slow?0.4")[0] == 200
        # lighttpd looks at its clocks every few seconds only.
        assert get(web, "/slow?5" if front == "lighttpd" else "/slow?2.5")[0] == 504


@pytest.mark.parametrize("front", NAMES)
def test_the_mounts_of_one_application_are_told_apart_longest_first(front: str, short_tmp: Path) -> None:
    address = f"unix:{short_tmp}/s"
    asked = {
        "/a/b/c": "/a/b /c",
        "/a/x": "/a /x",
        "/ab": " /ab",
        "/a": "/a ",
        "/": " /",
        "/a.b/x": "/a.b /x",
        "/aXb": " /aXb",
    }
    mounts = [f"--mount={mount}" for mount in ("/", "/a", "/a.b", "/a/b")]
    with serving(short_tmp, address), web_server(front, f"--upstream={address}", *mounts) as web:
        assert {path: get(web, path)[1].partition(" ")[2] for path in asked} == asked


@pytest.mark.parametrize("name", ["server", "http", "default", "localhost"])
@pytest.mark.parametrize("front", NAMES)
def test_a_name_that_means_something_to_the_web_server_is_no_trouble(front: str, name: str, short_tmp: Path) -> None:
    address = f"unix:{short_tmp}/s"
    options = [f"--upstream={address}", f"--name={name}", "--mount=/shop"]
    with serving(short_tmp, address), web_server(front, *options) as web:
        assert get(web, "/shop/a")[0] == 200


def test_ipv6_has_its_brackets_in_every_language() -> None:
    for front in NAMES:
        text = config(front, "--upstream=[::1]:4000").stdout
        assert ('"::1", "port" => 4000' if front == "lighttpd" else "[::1]:4000") in text, front
    assert "listen [::1]:81;" in config("nginx", "--listen=[::1]:81").stdout
    assert "<VirtualHost [::1]:81>" in config("apache", "--listen=[::1]:81").stdout


# -- systemd -----------------------------------------------------------------------------------------------------------


def parsed(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


@pytest.mark.parametrize("kind", systemd.UNITS)
def test_the_units_are_those_of_the_examples(kind: str) -> None:
    done = config("systemd", "--name=hello", "--app=hello.py", "--upstream=/run/hello.sock", f"--unit={kind}")
    assert parsed(done.stdout) == parsed((EXAMPLES / f"hello.{kind}").read_text())


def test_without_unit_both_are_printed_each_with_its_place() -> None:
    text = config("systemd", "--name=hello").stdout
    assert [line.partition(":")[0] for line in text.splitlines() if line.startswith("# /etc")] == [
        "# /etc/systemd/system/hello.socket", "# /etc/systemd/system/hello.service"
    ]  # fmt: skip


def test_systemd_reads_odd_values_back_as_they_were(tmp_path: Path) -> None:
    odd = "/srv/a b$c%d;e'f\"g"
    service = systemd.Service(
        (parse_address("unix:/run/a b%c.sock"), parse_address("4001")), app="a b$c%d.py", directory=odd
    )
    text = systemd.unit(service, "service")
    assert 'ExecStart=/usr/bin/env scgi serve "a b$$c%%d.py"' in text
    assert "WorkingDirectory=/srv/a b$c%%d;e'f\"g\n" in text
    assert "ListenStream=/run/a b%%c.sock\nListenStream=127.0.0.1:4001\n" in systemd.unit(service, "socket")
    for wrong in ("/srv/a\nb", "/srv/a ", "/srv/a\\"):
        with pytest.raises(ValueError, match="cannot"):
            systemd.unit(systemd.Service(service.upstream, directory=wrong), "service")
    if not find_program("systemd-analyze"):
        require_program("systemd-analyze")
    for kind in systemd.UNITS:
        (tmp_path / f"application.{kind}").write_text(systemd.unit(service, kind))
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "application.service")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "application.service" not in done.stderr, done.stderr


def test_a_site_has_its_defaults_from_one_place() -> None:
    plain = Site(upstream=(parse_address("4000"),))
    text = config("nginx").stdout
    assert f"listen {plain.listen.port};" in text and f"server_name {plain.server_name};" in text
    assert f"scgi_read_timeout {plain.timeout}s;" in text and "client_max_body_size 100m;" in text
