"""SCRIPT_NAME and PATH_INFO behind every web server whose requests were captured."""

from urllib.parse import unquote

import pytest

from captures_index import BY_NAME, CAPTURES, Capture
from scgi.apps.paths import parse_mount, split

CAFE = "/caf\xc3\xa9"  # /café: UTF-8 seen as Latin-1


def after(environ: dict[str, str], mount: str | None = None) -> tuple[str, str]:
    environ = dict(environ)
    split(environ, mount)
    return environ["SCRIPT_NAME"], environ["PATH_INFO"]


def captured(name: str, mount: str | None = None) -> tuple[str, str]:
    return after(BY_NAME[name].environ, mount)


# --- as the web servers split it, without --mount ---------------------------------------------------

AS_CONFIGURED = {
    # nginx, stock scgi_params: neither is sent
    "nginx-get-noquery": ("", "/"),
    "nginx-get": ("", "/foo/bar"),
    "nginx-pct": ("", "/a b/c/d/\xe2\x82\xac"),
    "nginx-pct-latin1": ("", "/caf\xe9"),
    "nginx-pct-lf": ("", "/a\nb\r"),
    "nginx-pct-percent": ("", "/a%b%2F"),
    "nginx-pct-question": ("", "/a?b#c"),
    "nginx-dblslash": ("", "/a/b/"),
    "nginx-dotdot": ("", "/a/c"),
    "nginx-absuri": ("", "/abs"),
    "nginx-raw-noparams": ("", "/"),
    # nginx with the two variables set by the recipe
    "nginx-prefix-exact": ("/prefix", ""),
    "nginx-prefix-slash": ("/prefix", "/"),
    "nginx-prefix": ("/prefix", "/a/b"),
    "prodnginx-prefix-exact": ("/prefix", ""),
    "prodnginx-prefix": ("/prefix", "/a b/c"),
    "prodnginx-root": ("", "/foo x" + CAFE),
    # Apache, ProxyPass: all in SCRIPT_NAME
    "apache-get-noquery": ("", "/"),
    "apache-get": ("", "/foo/bar"),
    "apache-pct-latin1": ("", "/caf\xe9"),
    "apache-pct-lf": ("", "/a\nb\r"),
    "apache-pct-percent": ("", "/a%b%2F"),
    "apache-quote": ("", '/a"b<c>'),
    "apache-semicolon": ("", "/a;p=1/b;q"),
    "apache-absuri": ("", "/abs"),
    "apache-connect": ("", "/"),
    "apache-unix": ("/unix", "/x"),
    "apache-v6": ("/v6", "/x"),
    "apache-prefix-exact": ("/prefix", ""),
    "apache-prefix-slash": ("/prefix", "/"),
    "apache-prefix": ("/prefix", "/a/b"),
    "apache-prefixfoo": ("", "/prefixfoo/a"),
    # Apache, the variable proxy-scgi-pathinfo: PATH_INFO encoded, SCRIPT_NAME too long
    "apache-pi2": ("/pi2", "/a b/c/e"),
    "apache-pfxenv": ("/pfxenv", "/a b/c"),
    # Apache, SetHandler on an existing file: right
    "prodapache-prefix-exact": ("/prefix", ""),
    "prodapache-prefix-slash": ("/prefix", "/"),
    "prodapache-prefix": ("/prefix", "/a b/c"),
    "prodapache-root": ("", "/foo x" + CAFE),
    # mod_scgi: right with SCGIMount, all in SCRIPT_NAME with SCGIServer in a <Location>
    "modscgi-prefix-exact": ("/prefix", ""),
    "modscgi-prefix-slash": ("/prefix", "/"),
    "modscgi-prefix": ("/prefix", "/a/b"),
    "modscgi-prefixfoo": ("", "/prefixfoo/a"),
    "modscgi-absuri": ("", "/abs"),
    "modscgi-connect": ("", "/"),
    "modscgi-loc": ("", "/loc/a b/c"),
    # lighttpd: right; leaves an empty PATH_INFO out
    "lighttpd-get": ("", "/foo/bar"),
    "lighttpd-pct": ("", "/a b/c/d/\xe2\x82\xac"),
    "lighttpd-pct-bad": ("", "/a%zzb"),
    "lighttpd-prefix-exact": ("/prefix", ""),
    "lighttpd-prefix-slash": ("/prefix", "/"),
    "lighttpd-prefix": ("/prefix", "/a/b"),
    "prodlighttpd-prefix-exact": ("/prefix", ""),
    "prodlighttpd-root": ("", "/foo x" + CAFE),
    # CGI
    "cgi2scgi-post": ("/cgi-bin/app", "/x y"),
}


@pytest.mark.parametrize(("name", "expected"), AS_CONFIGURED.items(), ids=list(AS_CONFIGURED))
def test_the_split_of_each_web_server_is_understood(name: str, expected: tuple[str, str]) -> None:
    assert captured(name) == expected


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda c: c.name)
def test_both_variables_are_always_there_and_well_formed(capture: Capture) -> None:
    for mount in (None, "", "/prefix", "/a"):
        script, path = after(capture.environ, mount)
        assert script == "" or (script[0] == "/" != script[-1])
        assert path[:1] == "/" or (path == "" and script)


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda c: c.name)
def test_together_they_are_the_path_that_was_asked_for(capture: Capture) -> None:
    environ = capture.environ
    if "REQUEST_URI" not in environ or capture.case == "connect" or capture.name == "nginx-prefixfoo":
        return  # nothing to compare with; no path asked for; a prefix that the captured configuration doubled
    expected = unquote(environ["REQUEST_URI"].split("?")[0], "latin-1").removeprefix("http://evil.example")
    for untidy, tidied in ("//a///b//", "/a/b/"), ("/./b/..", ""), ("//e", "/e"):
        expected = expected.replace(untidy, tidied)
    for mount in (None, "", "/prefix", "/a"):
        assert "".join(after(environ, mount)) == expected


# --- with --mount ----------------------------------------------------------------------------------

FRONTS = ("nginx", "nginxhead", "apache", "modscgi", "lighttpd", "lighttpdhead")


@pytest.mark.parametrize("front", FRONTS)
def test_a_mount_gives_the_same_split_behind_every_web_server(front: str) -> None:
    assert captured(f"{front}-prefix-exact", "/prefix") == ("/prefix", "")
    assert captured(f"{front}-prefix-slash", "/prefix") == ("/prefix", "/")
    assert captured(f"{front}-prefix", "/prefix") == ("/prefix", "/a/b")
    assert captured(f"{front}-prefix", "") == ("", "/prefix/a/b")
    assert captured(f"{front}-slashpfx", "/slashpfx") == ("/slashpfx", "/a b/c")
    assert captured(f"{front}-pi2", "/pi2") == ("/pi2", "/a b/c/e")
    assert captured(f"{front}-get-noquery", "") == captured(f"{front}-get-noquery", "/") == ("", "/")


@pytest.mark.parametrize("front", FRONTS)
def test_a_mount_ends_where_a_segment_ends(front: str) -> None:
    assert captured(f"{front}-prefixfoo", "/prefix") == ("", "/prefixfoo/a")


def test_a_mount_is_written_as_people_write_it() -> None:
    for text in ("", "/"):
        assert parse_mount(text) == ""
    for text in ("/app", "/app/", "app"):
        assert parse_mount(text) == "/app"
    assert parse_mount("/café") == CAFE
    assert after({"DOCUMENT_URI": CAFE + "/x"}, parse_mount("/café/")) == (CAFE, "/x")


def test_lighttpd_mounted_at_the_root_without_its_fix_is_right_with_a_mount() -> None:
    environ = {"SCRIPT_NAME": "/first", "PATH_INFO": "/second", "SCRIPT_FILENAME": "/var/www/first"}
    assert after(environ) == ("/first", "/second")
    assert after(environ, "") == ("", "/first/second")


# --- what no capture shows -------------------------------------------------------------------------

PROXY = "proxy:scgi://127.0.0.1:4000/"

UNCAPTURED = [
    ("nothing is sent", {}, ("", "/")),
    ("the root twice", {"SCRIPT_NAME": "/", "PATH_INFO": "/x"}, ("", "/x")),
    ("the root as SCRIPT_NAME", {"SCRIPT_NAME": "/", "PATH_INFO": ""}, ("", "/")),
    ("a slash at the end of SCRIPT_NAME", {"SCRIPT_NAME": "/app/", "PATH_INFO": "/x"}, ("/app", "/x")),
    ("the slash on the wrong side", {"SCRIPT_NAME": "/app/", "PATH_INFO": "x"}, ("/app", "/x")),
    ("the slash on the wrong side, alone", {"SCRIPT_NAME": "/app/", "PATH_INFO": ""}, ("/app", "/")),
    ("SCRIPT_NAME without a slash", {"SCRIPT_NAME": "app", "PATH_INFO": "/x"}, ("/app", "/x")),
    ("PATH_INFO alone", {"PATH_INFO": "/x"}, ("", "/x")),
    (
        "doubled slashes of a client, kept by the server",
        {"SCRIPT_NAME": "", "PATH_INFO": "//x//y"},
        ("", "//x//y"),
    ),
    ("nginx, SCRIPT_NAME set alone", {"SCRIPT_NAME": "/app", "DOCUMENT_URI": "/app/x"}, ("/app", "/x")),
    ("nginx, SCRIPT_NAME is the whole path", {"SCRIPT_NAME": "/a/x", "DOCUMENT_URI": "/a/x"}, ("", "/a/x")),
    (
        "CGI without PATH_INFO",
        {"SCRIPT_NAME": "/cgi-bin/x", "GATEWAY_INTERFACE": "CGI/1.1"},
        ("/cgi-bin/x", ""),
    ),
    ("only a target", {"REQUEST_URI": "/caf%C3%A9%0a/a%2Fb?x=/y#z"}, ("", CAFE + "\n/a/b")),
    ("only a target with raw bytes", {"REQUEST_URI": CAFE + "#frag"}, ("", CAFE)),
    ("only an absolute target", {"REQUEST_URI": "http://host:80/a%20b?x"}, ("", "/a b")),
    ("only an absolute target without path", {"REQUEST_URI": "http://host?x=/y"}, ("", "/")),
    ("only an asterisk", {"REQUEST_URI": "*"}, ("", "/")),
    (
        "Apache, proxy-scgi-pathinfo, nothing encoded, a slash too many",
        {"SCRIPT_NAME": "/x", "PATH_INFO": "//a/b", "SCRIPT_FILENAME": PROXY + "/a/b"},
        ("/x", "/a/b"),
    ),
    (
        "Apache, proxy-scgi-pathinfo, a mount that recurs below itself",
        {"SCRIPT_NAME": "/a", "PATH_INFO": "/a/b", "SCRIPT_FILENAME": PROXY + "a/b"},
        ("/a", "/a/b"),
    ),
    (
        "Apache, proxy-scgi-pathinfo, the last segment encoded",
        {"SCRIPT_NAME": "/x/y z/q r", "PATH_INFO": "/y%20z/q%20r", "SCRIPT_FILENAME": PROXY + "y%20z/q%20r"},
        ("/x", "/y z/q r"),
    ),
    (
        "Apache, SetHandler, a percent sign in the path",
        {"SCRIPT_NAME": "/x", "PATH_INFO": "/100%25", "SCRIPT_FILENAME": PROXY + "srv/real.html"},
        ("/x", "/100%25"),
    ),
]


@pytest.mark.parametrize(("environ", "expected"), [row[1:] for row in UNCAPTURED], ids=[row[0] for row in UNCAPTURED])
def test_unusual_variables_give_a_usable_split(environ: dict[str, str], expected: tuple[str, str]) -> None:
    assert after(environ) == expected
