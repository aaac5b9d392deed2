"""HTTP heads as variables: what is passed on, and what no client can forge."""

from __future__ import annotations

from typing import Any

import pytest

from scgi.gateway.request import BadRequest, read_request


def scope(*headers: tuple[str, str], **changed: Any) -> dict[str, Any]:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    plain = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "raw_path": b"/a%20b/c",
        "query_string": b"",
        "headers": raw,
        "client": ("203.0.113.9", 40000),
        "server": ("192.0.2.1", 8000),
    }
    return {**plain, **changed}


def variables(*headers: tuple[str, str], **changed: Any) -> dict[str, str]:
    found = read_request(scope(*headers, **changed)).variables
    assert len(dict(found)) == len(found)
    return dict(found)


def test_a_request_has_the_variables_of_rfc_3875() -> None:
    headers = [("host", "example.org:8000"), ("content-type", "text/plain"), ("content-length", "3")]
    request = read_request(scope(*headers, method="POST", query_string=b"x=%20&y"))
    assert request.length == 3
    assert request.variables == [
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_URI", "/a%20b/c?x=%20&y"),
        ("QUERY_STRING", "x=%20&y"),
        ("CONTENT_TYPE", "text/plain"),
        ("DOCUMENT_URI", "/a b/c"),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/a b/c"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", "scgi-gateway"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "192.0.2.1"),
        ("SERVER_PORT", "8000"),
        ("REMOTE_ADDR", "203.0.113.9"),
        ("REMOTE_PORT", "40000"),
        ("REQUEST_SCHEME", "http"),
        ("HTTP_HOST", "example.org:8000"),
    ]


def test_over_tls_https_is_on() -> None:
    found = variables(scheme="https")
    assert (found["HTTPS"], found["REQUEST_SCHEME"]) == ("on", "https")
    assert "HTTPS" not in variables()


def test_ipv6_addresses_stand_in_brackets_only_as_a_name() -> None:
    found = variables(server=("::1", 8000), client=("::1", 40000))
    assert (found["SERVER_NAME"], found["REMOTE_ADDR"]) == ("[::1]", "::1")


def test_on_a_unix_socket_name_and_port_are_there_all_the_same() -> None:
    found = variables(server=("/run/http.sock", None), client=None)
    assert (found["SERVER_NAME"], found["SERVER_PORT"], found["REMOTE_ADDR"]) == ("localhost", "80", "unix:")


DECEIVING = """x_under x.dot x~tilde proxy proxy-authorization proxy-connection connection keep-alive te
    trailer transfer-encoding upgrade expect content-length content-type http_host remote_addr"""


@pytest.mark.parametrize("name", DECEIVING.split())
def test_a_header_that_could_deceive_is_not_passed_on(name: str) -> None:
    value = "chunked" if name == "transfer-encoding" else "7"
    assert not [found for found in variables((name, value)) if found.startswith("HTTP_")]


@pytest.mark.parametrize("name", ["scgi", "https", "remote-user", "script-name", "path-info", "server-port"])
def test_a_client_cannot_set_a_variable_that_is_not_http(name: str) -> None:
    before = variables()
    after = variables((name, "evil"))
    assert after.pop("HTTP_" + name.upper().replace("-", "_")) == "evil"
    assert after == before


def test_headers_that_connection_names_are_not_passed_on_except_host() -> None:
    headers = [("host", "h"), ("connection", "close, X-Secret ,host"), ("x-secret", "1"), ("x-open", "2")]
    found = variables(*headers)
    assert {name for name in found if name.startswith("HTTP_")} == {"HTTP_HOST", "HTTP_X_OPEN"}


def test_repeated_headers_are_joined_and_cookies_by_a_semicolon() -> None:
    headers = [("x-multi", "a"), ("cookie", "a=1"), ("x-multi", "b"), ("cookie", "b=2")]
    found = variables(*headers)
    assert (found["HTTP_X_MULTI"], found["HTTP_COOKIE"]) == ("a, b", "a=1; b=2")


def test_the_request_id_is_passed_on() -> None:
    assert variables(("x-request-id", "abc-1"))["HTTP_X_REQUEST_ID"] == "abc-1"


def test_values_keep_their_bytes() -> None:
    assert variables(("x-name", "J\xf6rg"))["HTTP_X_NAME"] == "J\xf6rg"
    assert variables(raw_path=b"/%E9%0A%C3%A9")["PATH_INFO"] == "/\xe9\n\xc3\xa9"


def test_a_whole_url_as_target_gives_host_and_path() -> None:
    found = variables(("host", "example.org"), raw_path=b"http://example.org/x", query_string=b"q")
    assert (found["HTTP_HOST"], found["REQUEST_URI"], found["PATH_INFO"]) == ("example.org", "/x?q", "/x")
    assert variables(raw_path=b"http://example.org")["PATH_INFO"] == "/"
    assert variables(raw_path=b"http://example.org")["HTTP_HOST"] == "example.org"


def test_the_length_of_a_chunked_body_is_not_known_yet() -> None:
    assert read_request(scope(("transfer-encoding", "Chunked"))).length is None
    assert read_request(scope()).length == 0
    assert read_request(scope(("content-length", "4"), ("content-length", "4"))).length == 4


REFUSED: dict[str, tuple[dict[str, Any], list[tuple[str, str]]]] = {
    "NUL in the path": ({"raw_path": b"/a%00b"}, []),
    "a broken escape": ({"raw_path": b"/a%zz"}, []),
    "a cut escape": ({"raw_path": b"/a%2"}, []),
    "a fragment": ({"raw_path": b"/a#b"}, []),
    "a fragment in the query": ({"query_string": b"a#b"}, []),
    "a target that is no path": ({"raw_path": b"*", "method": "OPTIONS"}, []),
    "an empty target": ({"raw_path": b""}, []),
    "two hosts": ({}, [("host", "a"), ("host", "b")]),
    "a host that is none": ({}, [("host", "a/b")]),
    "a host with a user": ({}, [("host", "root@a")]),
    "a target that contradicts the host": ({"raw_path": b"http://a/"}, [("host", "b")]),
    "a target with a user": ({"raw_path": b"http://root@a/"}, []),
    "a line break in a value": ({}, [("x-a", "a\r\nX-B: b")]),
    "lengths that differ": ({}, [("content-length", "1"), ("content-length", "2")]),
    "a length that is no number": ({}, [("content-length", "+1")]),
    "a length and chunks": ({}, [("content-length", "1"), ("transfer-encoding", "chunked")]),
    "chunks in HTTP/1.0": ({"http_version": "1.0"}, [("transfer-encoding", "chunked")]),
    "content types that differ": ({}, [("content-type", "a/b"), ("content-type", "c/d")]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_invalid_or_contradicts_itself_is_refused(name: str) -> None:
    changed, headers = REFUSED[name]
    with pytest.raises(BadRequest) as caught:
        read_request(scope(*headers, **changed))
    assert caught.value.status == 400


def test_other_transfer_codings_and_proxy_requests_have_their_own_status() -> None:
    with pytest.raises(BadRequest) as caught:
        read_request(scope(("transfer-encoding", "gzip, chunked")))
    assert caught.value.status == 501
    with pytest.raises(BadRequest) as caught:
        read_request(scope(method="CONNECT", raw_path=b"example.org:443"))
    assert caught.value.status == 405
