"""What applications rely on holds behind each real web server, over unix sockets and TCP.

The configurations are those of `scgi config`. Where a web server has ways of its own the test says so, so that a change
of theirs is noticed.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import socket
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from interop.sites import HOW_TO, PAGES, PLACES, Site, open_site, wishes
from interop.webservers import web_server
from support import free_port, wait_until

BODY = bytes(range(256)) * 400


def environ_of(site: Site, path: str, **options: Any) -> dict[str, str]:
    response, body = site.ask(path, **options)
    assert response.status == 200, body
    return dict(json.loads(body))


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_each_method_arrives_with_its_body(site: Site, method: str) -> None:
    body = BODY if method in ("POST", "PUT", "PATCH") else None
    response, answer = site.ask("/echo", method, body)
    assert (response.status, response.getheader("x-method")) == (200, method)
    assert answer.decode() == f"{len(body or b'')} {hashlib.sha256(body or b'').hexdigest()}"


def test_head_has_the_headers_and_no_body(site: Site) -> None:
    response, answer = site.ask("/echo", "HEAD")
    assert (response.status, response.getheader("x-method"), answer) == (200, "HEAD", b"")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_wsgiref_validate_finds_no_fault(site: Site, method: str) -> None:
    response, answer = site.ask("/valid", method, b"a=1" if method == "POST" else None, {"Content-Type": "text/x"})
    assert (response.status, answer) == (200, b"a=1" if method == "POST" else b"")


def test_status_reason_and_headers_arrive(site: Site) -> None:
    response, answer = site.ask("/headers")
    assert (response.status, answer) == (404, b"nothing")
    assert response.reason == ("Not Found" if site.front == "lighttpd" else "Nothing Here")
    assert response.headers.get_all("set-cookie") == ["a=1; Path=/", "b=2"]
    assert response.getheader("x-own") == "caf\xe9" and response.getheader("etag") == '"1"'


def test_a_head_of_12_kb_arrives(site: Site) -> None:
    response, answer = site.ask("/cookie")
    assert (response.status, answer) == (200, b"large head") and len(response.getheader("x-own-2") or "") == 4000


@pytest.mark.parametrize("target", ["/there", "http://example.org/there?a=1"])
def test_a_redirect_goes_to_the_client(site: Site, target: str) -> None:
    response, answer = site.ask(f"/redirect?{target}")
    assert (response.status, answer) == (302, b"elsewhere")
    location = response.getheader("location") or ""
    assert location == target or location == f"http://127.0.0.1:{site.web.port}{target}"
    response, answer = site.ask("/created")
    assert (response.status, answer) == (201, b"made")


def test_204_and_304_have_no_body(site: Site) -> None:
    for path, status in (("/empty", 204), ("/unchanged", 304)):
        response, answer = site.ask(path)
        assert (response.status, answer) == (status, b"")


def test_an_exception_is_a_500_with_the_requests_id_and_a_traceback_in_the_log(site: Site) -> None:
    response, answer = site.ask("/fail")
    assert response.status == 500
    found = re.fullmatch(r"500 Internal Server Error\nRequest (\S+)\n", answer.decode())
    assert found
    pattern = (
        rf"\[request {found[1]}\]: ValueError: for the log while answering GET {site.mount}/fail\n    \| Traceback"
    )
    wait_until(lambda: re.search(pattern, site.server.log()), what="the traceback")
    if site.front == "nginx":
        assert re.fullmatch("[0-9a-f]{32}", found[1])  # nginx's $request_id


# What is asked for, and PATH_INFO.
PATHS = [
    ("/", "/"),
    ("/environ", "/environ"),
    ("/environ/", "/environ/"),
    ("/environ/a/b.c;d=e", "/environ/a/b.c;d=e"),
    ("/environ/a%20b/c", "/environ/a b/c"),
    ("/environ/%C3%A9", "/environ/\xc3\xa9"),
    ("/environ/%E9", "/environ/\xe9"),
    ("/environ/%3F%23%26+", "/environ/?#&+"),
    ("/environ/100%25", "/environ/100%"),
    ("/environ/100%2525", "/environ/100%25"),
    ("/environ/a%2Fb", "/environ/a/b"),
    ("/environ//a///b//", "/environ/a/b/"),
    ("/environ/a/../b/./c", "/environ/b/c"),
]


@pytest.mark.parametrize(("target", "path"), PATHS)
def test_script_name_and_path_info_are_right(site: Site, target: str, path: str) -> None:
    seen = environ_of(site, target + "?q=%20%2F&x=a+b")
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == (site.mount, path)
    assert seen["QUERY_STRING"] == "q=%20%2F&x=a+b"
    assert seen["REQUEST_URI"] == site.mount + target + "?q=%20%2F&x=a+b"


def test_the_mount_alone_has_no_path_info_and_its_namesakes_are_not_below_it() -> None:
    for place in PLACES:
        if not place.endswith("shop"):
            continue
        with open_site(place) as site:
            seen = environ_of(site, "")
            assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/shop", ""), place
            assert site.ask("ping")[0].status == 404, place


def test_the_cgi_variables_are_those_of_the_request(site: Site) -> None:
    own = {"X-Own": "yes", "Cookie": "a=1; b=2", "Authorization": "Basic eDp5", "Proxy": "http://evil/"}
    seen = environ_of(site, "/environ", method="GET", headers=own)
    assert (seen["HTTP_X_OWN"], seen["HTTP_COOKIE"], seen["HTTP_AUTHORIZATION"]) == ("yes", "a=1; b=2", "Basic eDp5")
    assert "HTTP_PROXY" not in seen
    assert seen["REMOTE_ADDR"] == "127.0.0.1" and seen["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert seen["wsgi.url_scheme"] == "http" and seen["CONTENT_LENGTH"] == "0"
    assert seen["SERVER_NAME"] and seen["SERVER_PORT"]


def test_repeated_headers_are_joined(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.web.port), 10) as peer:
        peer.sendall(
            f"GET {site.mount}/environ HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
            "X-Multi: a\r\nX-Multi: b\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n".encode()
        )
        answer = http.client.HTTPResponse(peer)
        answer.begin()
        seen = json.loads(answer.read())
        answer.close()
    assert seen["HTTP_X_MULTI"] == "a, b"
    assert seen["HTTP_COOKIE"] == ("a=1, b=2" if site.front == "apache" else "a=1; b=2")  # Apache has joined it


def test_a_chunked_upload_arrives_whole_or_is_refused_by_the_web_server(site: Site) -> None:
    before = site.server.log()
    response, answer = site.ask("/echo", "POST", iter([BODY, b"more"]))  # which makes it chunked
    if site.front == "apache":
        assert response.status == 411
        # It has connected, and closed without a byte: nothing that anybody need hear of.
        assert site.ask("/echo")[0].status == 200
        assert not re.search("WARNING|ERROR", site.server.log()[len(before) :])
        return
    assert answer.decode() == f"{len(BODY) + 4} {hashlib.sha256(BODY + b'more').hexdigest()}"


def test_a_413_is_delivered_although_50_mb_are_not_read(site: Site) -> None:
    response, answer = site.ask("/too_large", "POST", bytes(50_000_000))
    assert (response.status, answer) == (413, b"not read")
    assert site.ask("/echo")[0].status == 200


def test_blocks_reach_the_client_as_they_come(site: Site) -> None:
    fact = uuid.uuid4().hex
    connection = http.client.HTTPConnection("127.0.0.1", site.web.port, timeout=20)
    connection.request("GET", f"{site.mount}/stream?{fact}")
    response = connection.getresponse()
    assert response.read(5) == b"first"
    (site.facts / fact).touch()
    assert response.read() == b"second"
    connection.close()


def test_the_server_logged_no_error_but_that_of_the_application(site: Site) -> None:
    lines = [line for line in site.server.log().splitlines() if re.search(" (WARNING|ERROR) ", line)]
    assert [line for line in lines if "ValueError: for the log" not in line] == []


MOUNTED_BY_NOBODY = """
location / {{
  include scgi_params;
  scgi_pass {to};
}}
"""


@pytest.mark.parametrize(
    ("options", "target", "split"),
    [
        ([], "/environ/a%20b", ("", "/environ/a b")),
        (["--mount=/shop"], "/shop/environ/a%20b", ("/shop", "/environ/a b")),
        (["--mount=/shop"], "/shop", ("/shop", "")),
    ],
)
def test_the_path_is_split_where_nginx_sends_neither_half(
    scgi_serve: Any, nginx: Any, tmp_path: Path, options: list[str], target: str, split: tuple[str, str]
) -> None:
    server = scgi_serve(PAGES, f"--env=FACTS={tmp_path}", *options)
    web = nginx(config=MOUNTED_BY_NOBODY.format(to=server.address))
    seen = httpx.get(web.url + target).json()
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == split


@pytest.mark.parametrize("place", PLACES)
def test_without_a_server_the_web_server_says_what_the_documentation_says(place: str, short_tmp: Path) -> None:
    front, _, kind = place.partition("-")
    address = f"unix:{short_tmp}/s" if kind == "unix-root" else f"127.0.0.1:{free_port()}"
    reason = "No such file or directory" if kind == "unix-root" else "Connection refused"
    with web_server(front, *wishes(kind, address)) as web:
        status = httpx.get(web.url + "/shop/").status_code
        wait_until(lambda: reason in web.log(), what="the reason in its log")
    assert status == (502 if front == "nginx" else 503)
    page = (HOW_TO / f"{front.replace('mod_scgi', 'apache')}.md").read_text()
    assert re.search(rf"\| {status} \|.*{reason}.* \| the server does not run", page)
