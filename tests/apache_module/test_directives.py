"""Each directive: where it may stand, what sections inherit, and the sentence that says what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from apache_module.asking import ask
from gateway.toys import Conversation, Upstream
from support import short_folder
from support.apache_module import Apache, refusal, serving

ADDRESSES = ["4000", ":4000", "127.0.0.1:4000", "localhost:4000", "[::1]:4000", "unix:/run/a.sock", "/run/a.sock"]
SERVER, LOCATION, FOLDER = "%s", "<Location /x>\n%s\n</Location>", "<Directory />\n%s\n</Directory>"
HOST = "<VirtualHost *:1>\n%s\n</VirtualHost>"
FILES, MATCH = '<Files "x">\n%s\n</Files>', '<LocationMatch "^/x">\n%s\n</LocationMatch>'
IF = '<Location /x>\n<If "true">\n%s\n</If>\n</Location>'
EVERYWHERE = [SERVER, HOST, LOCATION, MATCH, FOLDER, FILES, IF]
CONTEXTS = {
    "SCGIMount /x 4000": [SERVER, HOST],
    "SCGIServer 4000": EVERYWHERE,
    "SCGIHandler On": [LOCATION, MATCH, FOLDER, FILES, IF],
    "SCGIServerTimeout 5": EVERYWHERE,
    "SCGIConnectTimeout 5": EVERYWHERE,
    "SCGISendfile /tmp": EVERYWHERE,
}


@pytest.mark.parametrize("directive", CONTEXTS)
def test_a_directive_stands_where_the_page_says_and_nowhere_else(directive: str) -> None:
    for context in EVERYWHERE:
        said = refusal(context % directive)
        if context in CONTEXTS[directive]:
            assert said == "", context
        else:
            assert "not allowed" in said and directive.split()[0] in said, context


def test_every_form_of_an_address_is_accepted() -> None:
    assert refusal(f"SCGIMount /x {' '.join(ADDRESSES)}\nSCGIServer {' '.join(ADDRESSES)}") == ""


WRONG = {
    "SCGIServer": "SCGI01",
    "SCGIServer nonsense": "SCGI01: nonsense is not the address of a server",
    "SCGIServer 127.0.0.1:0": "SCGI01",
    "SCGIServer 127.0.0.1:65536": "SCGI01",
    "SCGIServer 127.0.0.1:+5": "SCGI01",
    "SCGIServer 127.0.0.1:": "SCGI01",
    "SCGIServer ::1:4000": "SCGI01: ::1:4000 is not the address of a server: an IPv6 address stands in brackets",
    "SCGIServer [::1:4000": "SCGI01",
    "SCGIServer []:4000": "SCGI01",
    "SCGIServer [:4000": "SCGI01",
    "SCGIServer unix:run/a": "SCGI01: unix:run/a is not the address of a server: the path of a unix socket begins",
    f"SCGIServer unix:/{'x' * 107}": "at most 107 bytes",
    "SCGIServer 4000 nonsense": "SCGI01: nonsense",
    "SCGIServer nobody.invalid:4000": "SCGI04: the host nobody.invalid is not known",
    "SCGIMount": "SCGI02",
    "SCGIMount shop 4000": "SCGI02: SCGIMount: the path to mount at begins with a slash",
    "SCGIMount /x 4000\nSCGIMount /x/ 4001": "SCGI03: SCGIMount: /x/ is mounted already",
    "SCGIMount /x nonsense": "SCGI01: nonsense",
    "SCGIServerTimeout 0": "SCGI05: SCGIServerTimeout: expected a number of seconds, greater than 0, got 0",
    "SCGIServerTimeout -1": "SCGI05",
    "SCGIServerTimeout soon": "SCGI05: SCGIServerTimeout: expected a number of seconds, greater than 0, got soon",
    "SCGIServerTimeout 5s": "SCGI05",
    "SCGIServerTimeout inf": "SCGI05",
    "SCGIServerTimeout 0x5": "SCGI05",
    "SCGIConnectTimeout 1e99": "SCGI05: SCGIConnectTimeout",
    "SCGISendfile yes": "SCGI06: SCGISendfile: expected Off, or the whole path of a folder, got yes",
    "SCGISendfile On": "SCGI06",
    "SCGISendfile /is/not/there": "SCGI06",
    "<Location /x>\nSCGIHandler Maybe\n</Location>": "SCGIHandler must be On or Off",
}


@pytest.mark.parametrize("config", WRONG)
def test_what_is_wrong_is_said_in_a_sentence_with_a_code(config: str) -> None:
    said = refusal(config)
    assert WRONG[config] in said, said
    assert "line " in said  # Apache adds where


def test_the_article_s_default_address_needs_no_words() -> None:
    assert refusal("SCGIMount /scgitest\n<Location /scgitest>\nSCGIHandler On\n</Location>") == ""


# -- which request goes where -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def other() -> Iterator[Upstream]:
    """A second server, which says so."""
    with short_folder() as folder:
        folder.chmod(0o755)
        other = Upstream(f"unix:{folder}/other")
        Path(f"{folder}/other").chmod(0o777)
        other.answer = lambda talk: talk.answer(b"other")
        yield other
        other.close()
        other.settle()


@pytest.fixture(scope="module")
def web(server: Upstream, other: Upstream) -> Iterator[Apache]:
    config = f"""
SCGIServerTimeout 20
SCGIMount /shop {server.address}
SCGIMount /shop/garden/deep {server.address}
SCGIMount /shop/garden {other.address}
SCGIMount /trailing/ {server.address}
SCGIMount //double//slash {server.address}
<Location /shop/static>
  SCGIHandler Off
</Location>
<Location /shop/static/again>
  SCGIHandler On
</Location>
<Location /shop/moved>
  SCGIServer {other.address}
</Location>
<Location /on>
  SCGIServer {server.address}
  SCGIHandler On
</Location>
<Location /server-alone>
  SCGIServer {other.address}
</Location>
<Location /server-alone/off>
  SCGIHandler Off
</Location>
<LocationMatch "^/match/[a-z]+">
  SCGIServer {server.address}
  SCGIHandler On
</LocationMatch>
Alias /folder "${{PAGES}}"
<Directory "${{PAGES}}">
  <Files "*.app">
    SCGIServer {server.address}
    SCGIHandler On
  </Files>
</Directory>
<Location /quick>
  SCGIServer {server.address}
  SCGIServerTimeout 0.2
</Location>
<Location /quick/patient>
  SCGIServerTimeout 20
</Location>
<Location /by-name>
  SetHandler scgi-handler
  SCGIServer {server.address}
</Location>
SCGIMount /default
<Location /default>
  SCGIServer {other.address}
</Location>
<VirtualHost *>
  ServerName localhost
</VirtualHost>
<VirtualHost *>
  ServerName second
  SCGIMount /shop {other.address}
  SCGIMount /own {other.address}
</VirtualHost>
<VirtualHost *>
  ServerName third
  SCGIServer {other.address}
  SCGIServerTimeout 0.2
  SCGIMount /bare
  SCGIMount /with {server.address}
</VirtualHost>
"""
    with short_folder() as pages:
        (pages / "page.app").write_text("not shown\n")
        (pages / "page.txt").write_text("a file\n")
        with serving(config.replace("${PAGES}", str(pages))) as web:
            yield web


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/shop", b"hello"),
        ("/shop/", b"hello"),
        ("/shopping", None),
        ("/sho", None),
        ("/Shop", None),
        ("/shop/garden", b"other"),
        ("/shop/garden/x", b"other"),
        ("/shop/gardening", b"hello"),
        ("/shop/garden/deep/x", b"hello"),
        ("/trailing", b"hello"),
        ("/trailing/x", b"hello"),
        ("/trailingx", None),
        ("/double/slash/x", b"hello"),
        ("/shop/static", None),
        ("/shop/static/x", None),
        ("/shop/static/again", b"hello"),
        ("/shop/moved", b"other"),
        ("/on/x", b"hello"),
        ("/server-alone/x", b"other"),
        ("/server-alone/off", None),
        ("/match/abc", b"hello"),
        ("/match/123", None),
        ("/folder/page.app", b"hello"),
        ("/folder/page.txt", b"a file\n"),
        ("/folder/none.app", b"hello"),
        ("/by-name", b"hello"),
        ("/default", b"other"),
        ("/static.txt", b"a file\n"),
        ("/", None),
    ],
)
def test_the_longest_mount_wins_at_a_slash_and_sections_say_more(
    web: Apache, upstream: Upstream, target: str, body: bytes | None
) -> None:
    answer = ask(web, target)
    if body is None:
        assert answer.status in (403, 404) and b"hello" not in answer.body and b"other" not in answer.body
    else:
        assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize(
    ("host", "target", "body"),
    [
        ("localhost", "/shop", b"hello"),
        ("localhost", "/own", None),
        ("second", "/shop", b"other"),
        ("second", "/own", b"other"),
        ("second", "/shop/garden/deep", b"hello"),
        ("third", "/bare", b"other"),
        ("third", "/with", b"hello"),
        ("third", "/shop", b"hello"),
    ],
)
def test_a_virtual_host_has_the_mounts_of_the_main_server_and_its_own(
    web: Apache, upstream: Upstream, host: str, target: str, body: bytes | None
) -> None:
    answer = ask(web, target, host=host)
    assert (answer.status, answer.body) == (200, body) if body else answer.status == 404


@pytest.mark.parametrize(
    ("target", "script", "path"),
    [("/on", "/on", ""), ("/on/a%20b", "/on", "/a b"), ("/match/abc/d", "/match/abc/d", "")],
)
def test_without_a_mount_script_name_is_the_plain_location(
    web: Apache, upstream: Upstream, target: str, script: str, path: str
) -> None:
    assert ask(web, target).status == 200 and upstream.last
    found = upstream.last.variables
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == (script, path)


def test_the_innermost_section_s_timeout_holds(web: Apache, upstream: Upstream) -> None:
    def late(talk: Conversation) -> None:
        if talk.variables["PATH_INFO"] != "/patient":
            talk.wait_for_eof()
        else:
            talk.peer.settimeout(0.5)
            try:
                talk.wait_for_eof()  # nobody leaves
            except TimeoutError:
                talk.answer(b"at last")

    upstream.answer = late
    assert ask(web, "/quick").status == 504
    answer = ask(web, "/quick/patient")
    assert (answer.status, answer.body) == (200, b"at last")
    assert ask(web, "/with", host="third").status == 504
    assert web.codes()


def test_the_order_of_mounts_says_nothing(upstream: Upstream, other: Upstream) -> None:
    mounts = [f"SCGIMount /a/b {other.address}", f"SCGIMount / {upstream.address}", f"SCGIMount /a {upstream.address}"]
    for order in (mounts, mounts[::-1]):
        with serving("\n".join(order)) as web:
            assert [ask(web, target).body for target in ("/a/b/c", "/a/c", "/c")] == [b"other", b"hello", b"hello"]


def test_access_control_of_a_location_is_enforced_before_anybody_is_asked(server: Upstream, upstream: Upstream) -> None:
    config = f"""
SCGIMount /scgitest {server.address}
<Location /scgitest>
  SCGIHandler On
  Require ip 192.0.2.1
</Location>
<Location /scgitest/open>
  Require all granted
</Location>
"""
    with serving(config, modules=["authz_host"]) as web:
        assert ask(web, "/scgitest").status == 403 and upstream.last is None
        assert ask(web, "/scgitest/closed").status == 403 and upstream.last is None
        assert ask(web, "/scgitest/open").status == 200
