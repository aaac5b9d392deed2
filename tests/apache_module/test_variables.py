"""What an application is told: each variable once, and nothing that a client could have slipped in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from apache_module.asking import Answer, ask, ask_tls, request, send
from gateway.toys import Upstream
from support.apache_module import Apache, serving


@pytest.fixture(scope="module")
def web(server: Upstream) -> Iterator[Apache]:
    config = f"""
AllowEncodedSlashes On
SCGIMount /app {server.address}
SCGIMount / {server.address}
<Location /app/passes>
  CGIPassAuth On
</Location>
SetEnv SHOP_COLOUR blue
SetEnv HTTP_X_FORGED yes
SetEnv REQUEST_METHOD forged
SetEnv HTTP_PROXY http://forged/
<Location /app/secret>
  AuthType Basic
  AuthName "secret"
  AuthBasicProvider anon
  Anonymous *
  Anonymous_MustGiveEmail Off
  Require valid-user
</Location>
"""
    modules = ["env", "setenvif", "auth_basic", "authn_core", "authn_anon", "authz_user"]
    with serving(config, modules=modules, tls_config="") as web:
        yield web


def seen(upstream: Upstream, answer: Answer) -> dict[str, str]:
    """The variables of the request that was made; each name is there once."""
    assert (answer.status, answer.body) == (200, b"hello"), answer.raw
    assert upstream.last
    assert len(set(upstream.last.names)) == len(upstream.last.names), upstream.last.names
    return upstream.last.variables


def test_content_length_is_first_and_scgi_second(web: Apache, upstream: Upstream) -> None:
    for answer in (ask(web, "/app"), ask(web, "/app", "POST", (), b"12345"), ask(web, "/app", "PUT", (), b"")):
        assert list(seen(upstream, answer))[:2] == ["CONTENT_LENGTH", "SCGI"]
        assert upstream.last and upstream.last.variables["SCGI"] == "1"


def test_a_get_has_the_variables_of_cgi(web: Apache, upstream: Upstream) -> None:
    found = seen(upstream, ask(web, "/app/a%20b/c?x=%20&y", "GET", [("X-One", "1")], host="example.org:8080"))
    wanted = {
        "CONTENT_LENGTH": "0",
        "SCGI": "1",
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/app/a%20b/c?x=%20&y",
        "QUERY_STRING": "x=%20&y",
        "SCRIPT_NAME": "/app",
        "PATH_INFO": "/a b/c",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "http",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "8080",
        "SERVER_ADDR": "127.0.0.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "example.org:8080",
        "HTTP_X_ONE": "1",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    assert found["SERVER_SOFTWARE"].startswith("Apache") and found["DOCUMENT_ROOT"] and found["REMOTE_PORT"].isdigit()
    assert "SERVER_ADMIN" in found
    assert not {"HTTPS", "REMOTE_USER", "AUTH_TYPE", "PATH", "HTTP_CONTENT_LENGTH", "CONTENT_TYPE"} & found.keys()


@pytest.mark.parametrize(
    ("target", "script", "path"),
    [
        ("/app", "/app", ""),
        ("/app/", "/app", "/"),
        ("/appendix", "", "/appendix"),
        ("/", "", "/"),
        ("/app//b///c", "/app", "/b/c"),
        ("/app/./b/../c", "/app", "/c"),
        ("/app/%2e%2e/b", "", "/b"),
        ("/app/a%2Fb", "/app", "/a/b"),
        ("/app/caf%C3%A9/%E9", "/app", "/caf\xc3\xa9/\xe9"),
        ("/app/a%0Ab", "/app", "/a\nb"),
        ("/%61pp/b", "/app", "/b"),
    ],
)
def test_script_name_and_path_info_are_decoded_and_split_at_a_slash(
    web: Apache, upstream: Upstream, target: str, script: str, path: str
) -> None:
    found = seen(upstream, ask(web, target))
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["REQUEST_URI"]) == (script, path, target)


def test_the_type_and_the_length_of_a_body_have_variables_of_their_own(web: Apache, upstream: Upstream) -> None:
    found = seen(upstream, ask(web, "/app", "POST", [("Content-Type", "text/x")], b"12345"))
    assert (found["CONTENT_TYPE"], found["CONTENT_LENGTH"]) == ("text/x", "5")
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"} & found.keys()


def test_a_chunked_body_has_a_length_and_no_framing(web: Apache, upstream: Upstream) -> None:
    upstream.answer = lambda talk: talk.answer(b"".join(talk.body()))
    answer = ask(web, "/app", "POST", (), b"0123456789", chunked=True)
    assert (answer.status, answer.body) == (200, b"0123456789") and upstream.last
    assert upstream.last.variables["CONTENT_LENGTH"] == "10"
    assert "HTTP_TRANSFER_ENCODING" not in upstream.last.variables


def test_httpoxy_is_dead(web: Apache, upstream: Upstream) -> None:
    for name in ("Proxy", "proxy", "PROXY"):
        found = seen(upstream, ask(web, "/app", "GET", [(name, "http://evil/")]))
        assert "HTTP_PROXY" not in found


@pytest.mark.parametrize("name", ["X_One", "Content_Length", "Remote_User", "X-Forwarded_For", "X.One", "X~One", "X!"])
def test_a_header_whose_name_could_pass_for_another_is_dropped(web: Apache, upstream: Upstream, name: str) -> None:
    found = seen(upstream, ask(web, "/app", "GET", [(name, "evil"), ("X-Good", "1")]))
    assert "evil" not in found.values() and found["HTTP_X_GOOD"] == "1"


def test_no_client_can_write_a_variable_that_is_not_a_header(web: Apache, upstream: Upstream) -> None:
    names = ["SCGI", "Script-Name", "Https", "Remote-User", "Content-Length-", "Path-Info"]
    found = seen(upstream, ask(web, "/app", "GET", [(name, "evil") for name in names]))
    assert all(name.startswith("HTTP_") for name, value in found.items() if value == "evil")


def test_repeated_headers_are_joined_and_cookies_with_a_semicolon(web: Apache, upstream: Upstream) -> None:
    sent = [("X-Multi", "a"), ("Cookie", "a=1, 2"), ("x-multi", "b"), ("cookie", "b=2"), ("Cookie", "c=3")]
    found = seen(upstream, ask(web, "/app", "GET", sent))
    assert (found["HTTP_X_MULTI"], found["HTTP_COOKIE"]) == ("a, b", "a=1, 2; b=2; c=3")


def test_authorization_is_passed_on_only_where_cgipassauth_says_so(web: Apache, upstream: Upstream) -> None:
    own = [("Authorization", "Basic eDp5")]
    assert "HTTP_AUTHORIZATION" not in seen(upstream, ask(web, "/app", "GET", own))
    assert seen(upstream, ask(web, "/app/passes", "GET", own))["HTTP_AUTHORIZATION"] == "Basic eDp5"


def test_whom_apache_has_recognized_is_the_remote_user(web: Apache, upstream: Upstream) -> None:
    assert ask(web, "/app/secret").status == 401 and upstream.last is None
    found = seen(upstream, ask(web, "/app/secret", "GET", [("Authorization", "Basic YW5uYTp4")]))
    assert (found["REMOTE_USER"], found["AUTH_TYPE"]) == ("anna", "Basic")
    assert "HTTP_AUTHORIZATION" not in found


def test_variables_of_the_administrator_are_added_and_replace_nothing(web: Apache, upstream: Upstream) -> None:
    found = seen(upstream, ask(web, "/app", "GET", [("X-Forged", "client")]))
    assert found["SHOP_COLOUR"] == "blue"
    assert (found["REQUEST_METHOD"], found["HTTP_X_FORGED"]) == ("GET", "client")
    assert "HTTP_PROXY" not in found


def test_any_bytes_of_a_value_arrive_as_they_are(web: Apache, upstream: Upstream) -> None:
    found = seen(upstream, ask(web, "/app?caf\xe9", "GET", [("X-Own", "caf\xc3\xa9 \xe9"), ("X-Empty", "")]))
    assert (found["HTTP_X_OWN"], found["HTTP_X_EMPTY"], found["QUERY_STRING"]) == ("caf\xc3\xa9 \xe9", "", "caf\xe9")


def test_a_target_with_scheme_and_host_is_a_path(web: Apache, upstream: Upstream) -> None:
    found = seen(upstream, ask(web, "http://localhost/app/b?c=d"))
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["REQUEST_URI"]) == ("/app", "/b", "/app/b?c=d")


def test_http_1_0_without_a_host_is_served(web: Apache, upstream: Upstream) -> None:
    found = seen(upstream, send(web, b"GET /app HTTP/1.0\r\n\r\n"))
    assert found["SERVER_PROTOCOL"] == "HTTP/1.0" and "HTTP_HOST" not in found
    assert found["SERVER_NAME"] == "localhost"


def test_over_tls_there_is_https_and_its_scheme(upstream: Upstream) -> None:
    mount = f"SCGIMount /app {upstream.address}"
    with serving("", tls_config=mount) as web:
        found = seen(upstream, ask_tls(web, request("/app/b")))
    assert (found["HTTPS"], found["REQUEST_SCHEME"], found["SCRIPT_NAME"]) == ("on", "https", "/app")
    assert found["SERVER_PORT"] == str(web.tls_port) or found["SERVER_PORT"] == "443"


def test_100_headers_and_one_of_7900_bytes_arrive(web: Apache, upstream: Upstream) -> None:
    own = [(f"X-Own-{number}", str(number)) for number in range(95)]
    found = seen(upstream, ask(web, "/app", "GET", [*own, ("X-Large", "x" * 7900)]))
    assert found["HTTP_X_OWN_94"] == "94" and found["HTTP_X_LARGE"] == "x" * 7900
