"""The requests that every web server is asked, what an application and a client see of each, and who differs, and why.

A row is a `Case`. What is expected is a dict of facts; a web server that cannot do so has other facts, and a reason:
both are tested, so that an exception is noticed when it has ceased to be one. `page.py` makes
docs/reference/web-servers.md of it, `test_table.py` runs it behind each web server, at the root and below a path, over
unix sockets and TCP, with the configurations that `scgi config` prints.

Where a row says nothing else, all that is sent arrives as it is. Facts: `method`, `path` (PATH_INFO), `below` (whether
SCRIPT_NAME is the mount), `query`, `uri` (REQUEST_URI without the mount), `headers` (all HTTP_ variables but those of
the test itself), `type`, `body`: what the application saw. `status`, `reason`, `location`, `cookies`, `length`,
`answer`: what the client got. `seen` is False where the application was not asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

FRONTS: Final = {
    "nginx": "nginx 1.22.1",
    "mod_scgi": "Apache 2.4 with mod_scgi",
    "apache": "Apache 2.4 with mod_proxy_scgi",
    "lighttpd": "lighttpd 1.4.69",
}
HOST: Final = "127.0.0.1:{port}"
BINARY: Final = bytes(range(256)) * 400


@dataclass(frozen=True)
class But:
    """What is otherwise behind one web server."""

    why: str
    facts: dict[str, Any]
    over: str = ""  # "unix": over unix sockets only


@dataclass(frozen=True)
class Case:
    name: str
    target: str = "/"  # below the mount; "{own}" begins an absolute one
    method: str = "GET"
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | None = None
    chunked: bool = False
    version: str = "1.1"
    host: str = HOST
    do: str = "show"
    facts: dict[str, Any] = field(default_factory=dict)
    but: dict[str, But] = field(default_factory=dict)
    below_a_path: bool = False  # makes sense there only

    def expected(self, front: str, place: str) -> dict[str, Any]:
        but = self.but.get(front)
        other = but.facts if but and but.over in ("", place) else {}
        if other.get("seen", self.facts.get("seen")) is False:  # who is not asked sees nothing
            return {**(self.facts if self.facts.get("seen") is False else {}), **other}
        return {"seen": True, "status": 200, **self._sent(), **self.facts, **other}

    def _sent(self) -> dict[str, Any]:
        """What an application sees of any request, if nothing happens to it on its way."""
        if self.do != "show" or self.method == "HEAD":  # without an answer that could show it
            return {}
        path, _, query = self.target.partition("?")
        headers = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers}
        headers.pop("HTTP_CONTENT_TYPE", None)
        return {
            "method": self.method,
            "below": True,
            "path": path,
            "query": query,
            "uri": self.target,
            "headers": {"HTTP_HOST": self.host, **headers} if self.host else headers,
            "body": self.body or b"",
        }


def refused(status: int) -> dict[str, Any]:
    return {"seen": False, "status": status}


def path(name: str, target: str, found: str, **but: But) -> Case:
    return Case(name, target, facts={"path": found}, but=but)


def query(name: str, target: str, found: str, **but: But) -> Case:
    return Case(name, target, facts={"query": found}, but=but)


def header(name: str, sent: list[tuple[str, str]], found: dict[str, str], **but: But) -> Case:
    return Case(name, headers=sent, facts={"headers": {"HTTP_HOST": HOST, **found}}, but=but)


def status(name: str, do: str, **facts: Any) -> Case:
    return Case(name, do=f"status {do}", facts={"answer": b"mirror", **facts})


def with_but(case: Case, **but: But) -> Case:
    case.but.update(but)
    return case


_FORM: Final = [("Content-Type", "application/x-www-form-urlencoded")]
_NO_BODY_IN_GET: Final = But("not accepted", refused(400))
_DEFAULT_HOST: Final = But("the application gets the name of the site", {"headers": {"HTTP_HOST": "localhost"}})

GROUPS: Final[dict[str, list[Case]]] = {
    "Methods and bodies": [
        Case("GET", "/a"),
        Case("HEAD: the headers, and no body", method="HEAD", facts={"answer": b"", "echoed": "HEAD"}),
        Case("POST of a form", method="POST", headers=_FORM, body=b"a=1&b=2",
             facts={"type": _FORM[0][1]}),
        Case("PUT of 100 KB, every byte", method="PUT", body=BINARY),
        Case("PATCH with a body", method="PATCH", body=b"[]"),
        Case("DELETE", method="DELETE"),
        Case("OPTIONS", method="OPTIONS"),
        Case("PROPFIND, as WebDAV has it", method="PROPFIND", headers=[("Depth", "1")], body=b"<a/>"),
        Case("a method that nobody has heard of", method="BREW",
             but={"lighttpd": But("it has a list of the methods that it accepts", refused(501))}),
        Case("GET with a body", body=b"why not", but={"lighttpd": _NO_BODY_IN_GET}),
        Case("POST without a body", method="POST", body=b""),
        Case("a body without a Content-Type", method="POST", body=b"x", facts={"type": ""}),
        Case("a body in chunks, its length unknown", method="POST", body=BINARY, chunked=True,
             but={"apache": But("it has to know the length; nothing reaches the application", refused(411))}),
        Case("Expect: 100-continue", method="POST", headers=[("Expect", "100-continue")], body=b"here",
             but={"lighttpd": But("the header is dealt with and left out", {"headers": {"HTTP_HOST": HOST}})}),
        Case("HTTP/1.0 without a Host", version="1.0", host="", but={"nginx": _DEFAULT_HOST}),
    ],
    "Paths": [
        path("the mount with a slash", "/", "/"),
        Case("the mount itself", "", facts={"path": ""}, below_a_path=True),
        Case("a neighbour that begins like the mount is not the application's", "foo", facts=refused(404),
             below_a_path=True),
        path("an encoded space", "/a%20b/c", "/a b/c"),
        path("UTF-8", "/caf%C3%A9", "/caf\xc3\xa9"),
        path("a byte that is not UTF-8", "/caf%E9", "/caf\xe9"),
        path("UTF-8 that is not encoded", "/caf\xc3\xa9", "/caf\xc3\xa9"),
        path("`%2F`, which becomes a slash", "/a%2Fb", "/a/b"),
        path("`//`, which becomes one slash", "//a///b//", "/a/b/"),
        path("dots, which are resolved", "/a/../b/./c", "/b/c"),
        path("`%3F`, `%23`, `%25`", "/a%3Fb%23c%25d", "/a?b#c%d"),
        path("`;` and `=` and `+`", "/a;b=c+d", "/a;b=c+d"),
        path("quotes and `\\`", "/a%22b'c%5Cd", "/a\"b'c\\d"),
        path("a line break", "/a%0Ab", "/a\nb",
             lighttpd=But("it accepts no control characters in a path", refused(400))),
        Case("a NUL is refused", "/a%00b", facts=refused(400),
             but=dict.fromkeys(("apache", "mod_scgi"), But("it finds no such page", refused(404)))),
        Case("a target with scheme and host", "{own}/a?b=c", facts={"path": "/a", "uri": "/a?b=c"}),
    ],
    "Queries": [
        query("none", "/q", ""),
        query("an empty one", "/q?", ""),
        query("as it was sent, not decoded", "/q?a=%20+%2F&b&&c=d=e", "a=%20+%2F&b&&c=d=e"),
        query("slashes and question marks", "/q?/a//b?c", "/a//b?c"),
        query("UTF-8 that is not encoded", "/q?caf\xc3\xa9", "caf\xc3\xa9",
              lighttpd=But("it is encoded in QUERY_STRING", {"query": "caf%C3%A9"})),
    ],
    "Headers": [
        header("repeated ones are joined", [("X-Multi", "a"), ("X-Multi", "b")], {"HTTP_X_MULTI": "a, b"}),
        header("repeated cookies are joined with `;`", [("Cookie", "a=1"), ("Cookie", "b=2")],
               {"HTTP_COOKIE": "a=1; b=2"},
               apache=But("Apache joins them with a comma, which frameworks do not expect",
                          {"headers": {"HTTP_HOST": HOST, "HTTP_COOKIE": "a=1, b=2"}})),
        header("Authorization arrives", [("Authorization", "Basic eDp5")], {"HTTP_AUTHORIZATION": "Basic eDp5"}),
        header("Proxy never arrives", [("Proxy", "http://elsewhere/")], {}),
        header("a name with `_` never arrives", [("X_Under", "a")], {},
               lighttpd=But("it is taken for the same name with `-`",
                            {"headers": {"HTTP_HOST": HOST, "HTTP_X_UNDER": "a"}})),
        header("7,900 bytes in one", [("X-Large", "x" * 7900)], {"HTTP_X_LARGE": "x" * 7900}),
        header("80 of them", [(f"X-Own-{n}", str(n)) for n in range(80)],
               {f"HTTP_X_OWN_{n}": str(n) for n in range(80)}),
        header("bytes that are not ASCII", [("X-Own", "caf\xc3\xa9 \xe9")], {"HTTP_X_OWN": "caf\xc3\xa9 \xe9"}),
        header("an empty value", [("X-Own", "")], {"HTTP_X_OWN": ""},
               lighttpd=But("the header is left out", {"headers": {"HTTP_HOST": HOST}})),
        Case("Host with capitals and another port", host="LocalHost:8080",
             facts={"headers": {"HTTP_HOST": "LocalHost:8080"}},
             but={front: But("it arrives in small letters", {"headers": {"HTTP_HOST": "localhost:8080"}})
                  for front in ("nginx", "lighttpd")}),
        Case("an upgrade to a WebSocket is a request like others, and refused as one",
             headers=[("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
                      ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")],
             do="status 426 Upgrade Required", facts={"status": 426, "answer": b"mirror"}),
    ],
    "Answers": [
        with_but(status("status and reason", "404 Nothing Here", status=404, reason="Nothing Here"),
                 lighttpd=But("the status is kept, the reason is its own", {"reason": "Not Found"})),
        status("302 with a path", "302 Found; Location: /there?a=1", status=302, location="/there?a=1"),
        status("302 with a URL", "302 Found; Location: http://example.org/there", status=302,
               location="http://example.org/there"),
        status("303 after a form", "303 See Other; Location: /done", status=303, location="/done"),
        status("201 with a Location", "201 Created; Location: /made", status=201, location="/made"),
        status("200 with a Location", "200 OK; Location: /made", status=200, location="/made"),
        status("204 has no body", "204 No Content", status=204, answer=b""),
        status("304 has no body", '304 Not Modified; ETag: "1"', status=304, answer=b""),
        status("401 and what is asked for", '401 Unauthorized; WWW-Authenticate: Basic realm="a"', status=401),
        status("500 of the application's own", "500 Internal Server Error", status=500),
        status("two cookies stay two", "200 OK; Set-Cookie: a=1; Set-Cookie: b=2", cookies=["a=1", "b=2"]),
        Case("headers of 12 KB", do="head", facts={"answer": b"mirror"}),
        Case("300 KB with a Content-Length, which is kept", do="long with",
             facts={"answer": b"x" * 300_000, "length": "300000"},
             but={"apache": But("it is dropped", {"length": None})}),
        Case("300 KB without one", do="long without", facts={"answer": b"x" * 300_000, "length": None}),
        Case("one that breaks off is not taken for whole", do="cut", facts={"answer": "cut"},
             but={"apache": But("over a unix socket it is, since the Content-Length was dropped",
                                {"answer": b"x" * 100_000}, over="unix")}),
        Case("413 for 8 MB that are not read", method="POST", body=bytes(8 << 20), do="refuse",
             facts={"status": 413, "answer": b"mirror"}),
        Case("each block goes out as it comes", do="stream", facts={"answer": b"firstsecond", "streamed": True}),
        Case("the application hears of it when the client has left", do="endless", facts={"left": True}),
    ],
}  # fmt: skip
CASES: Final = [case for cases in GROUPS.values() for case in cases]
