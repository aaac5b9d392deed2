"""`scgi config check` behind real web servers: what `scgi config` prints is right, and each mistake is found."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interop.webservers import NAMES, configured, printed, web_server
from scgi.fronts.check import Check, Finding, Wanted
from scgi.fronts.probe import Probe
from scgi.net.address import parse_address
from support import Front, free_port, require_program

MEGABYTE = 1 << 20


def command(*options: str, **environ: str) -> tuple[int, list[str]]:
    """Exit status and lines of the real command."""
    words = [sys.executable, "-m", "scgi", "config", "check", *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env={**os.environ, **environ})
    return done.returncode, (done.stdout + done.stderr).splitlines()


def findings(web: Front, upstream: str, mount: str = "", max_body: int = MEGABYTE, **wanted: Any) -> dict[str, Finding]:
    asked = Wanted("http", "127.0.0.1", web.port, mount, max_body, **wanted)
    with Probe(parse_address(upstream), silence=max(0, asked.timeout - 0.5)) as probe:
        return {found.point: found for found in Check(asked, probe).findings()}


def problems(found: dict[str, Finding]) -> dict[str, str]:
    return {point: one.line for point, one in found.items() if one.state == "problem"}


@pytest.mark.parametrize(("mount", "place"), [("/", "unix"), ("/shop", "tcp")])
@pytest.mark.parametrize("front", NAMES)
def test_all_is_well_with_what_scgi_config_prints(front: str, mount: str, place: str, short_tmp: Path) -> None:
    upstream = f"unix:{short_tmp}/s" if place == "unix" else f"127.0.0.1:{free_port()}"
    with web_server(front, f"--mount={mount}", f"--upstream={upstream}", "--stream", "--timeout=3") as web:
        status, lines = command(
            f"--front={web.url}{mount}", f"--upstream={upstream}", "--stream", "--max-body=100m", "--timeout=2"
        )
    assert (status, lines[-1]) == (0, "all is well"), "\n".join(lines)
    states = dict(re.match(r"(\w+) +([^:]*)", line).groups()[::-1] for line in lines[:-1])  # type: ignore[union-attr, misc]
    assert len(states) > 14
    limits = {
        "nginx": {"uploads as they come"},
        "apache": {"chunked body"},
        "lighttpd": {"SERVER_NAME", "uploads as they come"},
        "mod_scgi": set(),
    }
    assert {point for point, state in states.items() if state == "limit"} == limits[front]


STOCK = """
location {mount} {{
  include scgi_params;
  scgi_buffer_size 4k; scgi_buffers 8 4k; scgi_busy_buffers_size 8k;
  client_max_body_size 512k;
  scgi_read_timeout 1s;
  scgi_pass {to};
}}
"""


def test_what_is_wrong_with_a_stock_nginx_is_named_with_the_line_to_change(nginx: Callable[..., Front]) -> None:
    upstream = f"127.0.0.1:{free_port()}"
    web = nginx(config=STOCK.format(mount="/shop", to=upstream))
    found = findings(web, upstream, "/shop", timeout=2, stream=True)
    wrong = problems(found)
    assert wrong.keys() >= {"SCRIPT_NAME", "neighbours", "HTTP_PROXY", "body limit", "answer's head", "timeout"}
    assert "scgi_param SCRIPT_NAME /shop;" in wrong["SCRIPT_NAME"]
    assert "and PATH_INFO '/a b/cé', got none and none" in found["SCRIPT_NAME"].sentence
    assert wrong["HTTP_PROXY"] == 'scgi_param HTTP_PROXY "";'
    assert wrong["body limit"] == "client_max_body_size 1048576;"
    assert wrong["answer's head"].startswith("scgi_buffer_size 16k;")
    assert wrong["timeout"] == "scgi_read_timeout 2s;"
    assert "scgi_buffering off;" in wrong["answers as they come"]
    assert found["body limit"].sentence == "a body of 1,048,576 bytes gets 413 Request Entity Too Large"


def test_an_nginx_that_drops_the_port_of_the_host_is_told_so(nginx: Callable[..., Front]) -> None:
    upstream = f"127.0.0.1:{free_port()}"
    mine = 'location / { scgi_param SCGI 1; scgi_param HTTP_HOST $host; scgi_param SCRIPT_NAME ""; scgi_pass %s; }'
    found = findings(nginx(config=mine % upstream), upstream)
    assert "got '127.0.0.1'" in found["HTTP_HOST"].sentence and "map $http_host" in found["HTTP_HOST"].line
    assert found["protocol"].sentence.startswith("not sent: REQUEST_METHOD, SERVER_PROTOCOL")
    assert "include scgi_params" in found["protocol"].line
    assert "REQUEST_URI" in problems(found)


def test_an_nginx_that_sends_a_wrong_content_length_is_told_so(nginx: Callable[..., Front]) -> None:
    upstream = f"127.0.0.1:{free_port()}"
    found = findings(nginx(to=upstream, extra="scgi_request_buffering off;"), upstream)
    if found["request body"].state == "ok":
        pytest.skip("this nginx does not have that fault any more")
    assert "scgi_request_buffering on;" in found["request body"].line


@pytest.mark.parametrize("pathinfo", [False, True])
def test_what_is_wrong_with_proxypass_is_named_with_the_line_to_change(
    apache: Callable[..., Front], pathinfo: bool
) -> None:
    upstream = f"127.0.0.1:{free_port()}"
    config = f'ProxyPass "/shop" "scgi://{upstream}/" timeout=1\nUseCanonicalName Off\nLimitRequestBody 1000'
    if pathinfo:
        config += "\nSetEnvIf Request_URI . proxy-scgi-pathinfo"
    found = findings(apache(config=config), upstream, "/shop", timeout=2)
    assert problems(found).keys() >= {
        "SCRIPT_NAME", "SERVER_NAME", "Authorization", "body limit", "Location", "timeout"
    }  # fmt: skip
    assert found["chunked body"].state == "limit" and "411" in found["chunked body"].sentence
    assert found["SERVER_NAME"].line == "UseCanonicalName On" and found["Authorization"].line == "CGIPassAuth On"
    assert found["Location"].line == "ProxySCGIInternalRedirect Off"
    assert "AliasMatch" in found["SCRIPT_NAME"].line


WRONG_LIGHTTPD = [
    (
        'scgi.server = ( "/shop/" => (( "host" => "127.0.0.1", "port" => {port}, "check-local" => "disable" )) )',
        "/shop",
    ),
    ('scgi.server = ( "/shop" => (( "host" => "127.0.0.1", "port" => {port}, "check-local" => "disable" )) )', "/shop"),
    ('scgi.server = ( "/" => (( "host" => "127.0.0.1", "port" => {port}, "check-local" => "disable" )) )', ""),
]


@pytest.mark.parametrize(("config", "mount"), WRONG_LIGHTTPD)
def test_what_is_wrong_with_a_lighttpd_is_named_with_the_line_to_change(
    lighttpd: Callable[..., Front], config: str, mount: str
) -> None:
    port = free_port()
    found = findings(lighttpd(config=config.format(port=port)), f"127.0.0.1:{port}", mount)
    point = "neighbours" if config.startswith('scgi.server = ( "/shop" ') else "SCRIPT_NAME"
    assert problems(found).keys() == {point}, found
    assert "scgi.server = " in found[point].line


def test_over_tls_the_application_is_told_so_and_the_certificate_counts(short_tmp: Path) -> None:
    key, certificate = short_tmp / "key", short_tmp / "certificate"
    words = f"req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=a -addext subjectAltName=IP:127.0.0.1 -keyout {key}"
    subprocess.run([require_program("openssl"), *words.split(), "-out", certificate], check=True, capture_output=True)
    port, upstream = free_port(), f"unix:{short_tmp}/s"
    text = printed("nginx", f"--listen=127.0.0.1:{port}", f"--upstream={upstream}")
    tls = f"listen 127.0.0.1:{port} ssl; ssl_certificate {certificate}; ssl_certificate_key {key};"
    with configured("nginx", text.replace(f"listen 127.0.0.1:{port};", tls), port):
        options = (f"--front=https://127.0.0.1:{port}/", f"--upstream={upstream}")
        status, lines = command(*options, SSL_CERT_FILE=str(certificate))
        assert (status, lines[-1]) == (0, "all is well") and "ok       HTTPS" in lines, lines
        status, lines = command(*options)
        assert status == 1 and "certificate verify failed" in lines[0]


def test_a_web_server_that_does_not_reach_the_probe_is_told_why(
    nginx: Callable[..., Front], lighttpd: Callable[..., Front]
) -> None:
    upstream, other = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    web = nginx(to=other)
    [found] = findings(web, upstream).values()
    assert (found.state, found.point) == ("problem", "forwarding")
    assert "gets 502 Bad Gateway, and nothing reaches the probe; the web server cannot connect" in found.sentence
    [found] = findings(nginx(config=f"location / {{ proxy_pass http://{upstream}; }}"), upstream).values()
    assert "no SCGI request" in found.sentence and "speak HTTP or FastCGI" in found.sentence
    [found] = findings(lighttpd(to=upstream, extra='$HTTP["url"] =^ "/" { scgi.server = () }'), upstream).values()
    assert "404" in found.sentence and "is it mounted there" in found.sentence


def test_nobody_at_the_front_is_a_problem_and_a_wrong_option_a_matter_of_usage() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    status, lines = command(f"--front={nobody}", f"--upstream=127.0.0.1:{free_port()}")
    assert status == 1 and lines[0] == f"problem  forwarding: {nobody}/: [Errno 111] Connection refused"
    assert command("--front=ftp://x", "--upstream=systemd", "--mount=a") == (
        2,
        [
            "scgi: --front: expected a URL such as http://localhost:8080/shop, got 'ftp://x'",
            "scgi: --mount: expected a path such as /shop, of letters, digits and . _ ~ @ + - (or /), got 'a'",
            "scgi: --upstream: expected HOST:PORT or unix:PATH, got 'systemd'",
        ],
    )
    status, lines = command("--front=http://localhost/shop", "--mount=/blog")
    assert (status, lines) == (2, ["scgi: --mount: expected either this or a path in --front, got /shop there"])


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_an_address_where_a_server_listens_is_left_alone(kind: str, short_tmp: Path) -> None:
    with socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET) as taken:
        taken.bind(str(short_tmp / "s") if kind == "unix" else ("127.0.0.1", 0))
        taken.listen()
        upstream = f"unix:{short_tmp}/s" if kind == "unix" else f"127.0.0.1:{taken.getsockname()[1]}"
        status, lines = command(f"--upstream={upstream}")
    assert status == 1 and lines[0].startswith(f"scgi: cannot listen on {upstream}: ")
    assert "stop what listens there (with systemd: its socket too)" in lines[-1]


def test_whoever_else_is_sent_to_the_probe_is_told_to_come_later(nginx: Callable[..., Front], short_tmp: Path) -> None:
    import http.client

    upstream = f"unix:{short_tmp}/s"
    web = nginx(to=upstream)
    with Probe(parse_address(upstream)):
        assert os.stat(short_tmp / "s").st_mode & 0o777 == 0o666
        connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=10)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert (response.status, response.getheader("retry-after")) == (503, "60")
        connection.close()
    assert not (short_tmp / "s").exists()
