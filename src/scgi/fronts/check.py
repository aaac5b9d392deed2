"""Asks a running web server for pages that our own probe answers, and judges what arrived at both ends.

A point is one thing that applications rely on. What is found is `ok`, a `problem` with the line to change, or a
`limit`: as this web server is, and no line of it will change that. Imports `net`, `errors`.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from scgi.fronts.advice import Advice, recognise
from scgi.fronts.probe import FIRST, HEADER, LOCATION, LONG, SECOND, Probe, Sighting

_PATIENCE: Final = 10.0  # seconds that the web server may be silent, beside what is asked of the probe
_A_MOMENT: Final = 0.3  # between the halves of an upload
_BODY: Final = bytes(range(256)) * 1024
_STRANGER: Final = "scgi-check.invalid"
_PORTS: Final = {"http": 80, "https": 443}
_SENT_BY_ALL: Final = ("SCGI", "REQUEST_METHOD", "SERVER_PROTOCOL", "SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR")
_NOBODY: Final = {
    404: "the web server has nothing at this path: is it mounted there, and is that configuration loaded?",
    502: "the web server cannot connect to the probe: it has another address, or may not",
    503: "the web server cannot connect to the probe: it has another address, may not, or waits before it tries again",
}

Point = tuple[str, str]  # its name, and what is wrong with it or ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where to ask, and what has to work there."""

    scheme: str
    host: str
    port: int
    mount: str  # "" or "/shop"
    max_body: int
    stream: bool = False
    timeout: int = 0  # seconds of silence; 0: not tried

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.mount or '/'}"


@dataclass(frozen=True, slots=True)
class Finding:
    point: str
    state: str  # "ok", "problem", "limit"
    sentence: str = ""
    line: str = ""


@dataclass
class _Answer:
    """What the client got. Status 0: nothing, and `reason` says why."""

    status: int = 0
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.status} {self.reason}" if self.status else self.reason


class Check:
    """`findings()` come one by one; the `probe` must be listening where the web server forwards to."""

    def __init__(self, wanted: Wanted, probe: Probe) -> None:
        self._wanted, self._probe = wanted, probe

    def findings(self) -> Iterator[Finding]:
        seen, answer = self._ask("/a%20b/c%C3%A9?x=%2F&y")
        if not seen.arrived.is_set():
            yield Finding("forwarding", "problem", self._why_not(answer))
            return
        advice = Advice(recognise(dict(seen.variables), answer.headers.get("server", "")))
        yield Finding("forwarding", "ok", f"{self._wanted.url} is {advice.name}, and reaches the probe")
        mount, size = self._wanted.mount, self._wanted.max_body
        values = {"mount": mount or "/", "root": mount, "script": mount or '""', "size": size, "kib": -(-size // 1024)}
        values["seconds"] = self._wanted.timeout
        for point, wrong in self._points(seen):
            if wrong and (why := advice.limit(point)):
                yield Finding(point, "limit", f"{wrong}: {why}")
            else:
                yield Finding(point, "problem" if wrong else "ok", wrong, advice.line(point, values) if wrong else "")

    def _points(self, seen: Sighting) -> Iterator[Point]:
        yield from self._variables(seen)
        yield from self._requests()
        yield from self._answers()
        if self._wanted.timeout:
            _, answer = self._ask(answer="silence", patience=self._wanted.timeout + _PATIENCE)
            late = f"after a silence of {self._wanted.timeout} s the client got {answer}"
            yield "timeout", "" if answer.body == b"here" else late

    def _why_not(self, answer: _Answer) -> str:
        if self._probe.malformed:
            return f"what comes is no SCGI request ({self._probe.malformed}): was it told to speak HTTP or FastCGI?"
        if not answer.status:
            return f"{self._wanted.url}: {answer}"
        nobody = _NOBODY.get(answer.status, "something else answers at this path")
        return f"{self._wanted.url} gets {answer}, and nothing reaches the probe; {nobody}"

    # -- what arrives at the application ---------------------------------------------------------------------------

    def _variables(self, seen: Sighting) -> Iterator[Point]:
        names = [name for name, _ in seen.variables]
        twice = sorted({name for name in names if names.count(name) > 1 and not name.startswith("HTTP_")})
        missing = [name for name in _SENT_BY_ALL if name not in names]
        sentences = {"sent twice": twice, "not sent": missing}
        yield "protocol", "; ".join(f"{what}: {', '.join(some)}" for what, some in sentences.items() if some)
        split = self._split(seen, "/a b/c\xc3\xa9")
        if self._wanted.mount:
            split = split or self._split(self._ask("")[0], "")
            taken = self._ask("-scgi-check")[0].arrived.is_set()
            beside = f"{self._wanted.mount}-scgi-check is passed on too, which is not below the mount"
            yield "neighbours", beside if taken else ""
        yield "SCRIPT_NAME", split
        expected = (f"{self._wanted.mount}/a%20b/c%C3%A9?x=%2F&y", "x=%2F&y")
        found = (seen.get("REQUEST_URI"), seen.get("QUERY_STRING"))
        yield "REQUEST_URI", "" if found == expected else f"expected it and QUERY_STRING as {expected}, got {found}"
        host = seen.get("HTTP_HOST") or ""
        same = host.lower() == self._wanted.netloc.lower()
        yield "HTTP_HOST", "" if same else f"expected {self._wanted.netloc!r}, got {host!r}"
        other, _ = self._ask(headers={"Host": _STRANGER})
        if other.arrived.is_set():  # else another site answers to that name, as it should
            told = other.get("SERVER_NAME") == _STRANGER
            yield "SERVER_NAME", "it is whatever the client claims to have asked for" if told else ""
        leak = f"the client's header Proxy arrives as {seen.get('HTTP_PROXY')!r} (scgi serve drops it, others may not)"
        yield "HTTP_PROXY", leak if seen.get("HTTP_PROXY") else ""
        yield "Authorization", "" if seen.get("HTTP_AUTHORIZATION") else "this header does not arrive"
        if self._wanted.scheme == "https":
            secure = seen.get("HTTPS") in ("on", "1") or seen.get("REQUEST_SCHEME") == "https"
            yield "HTTPS", "" if secure else "nothing says that the request came over TLS"

    def _split(self, seen: Sighting, path: str) -> str:
        script, found = seen.get("SCRIPT_NAME"), seen.get("PATH_INFO")
        if script is not None and (script, found or "") == (self._wanted.mount, path):
            return ""
        got = f"{_shown(script)} and {_shown(found)}" if seen.arrived.is_set() else "no request"
        return f"expected SCRIPT_NAME {self._wanted.mount!r} and PATH_INFO {_shown(path)}, got {got}"

    def _requests(self) -> Iterator[Point]:
        large, answer = self._ask(headers={"X-Large": "x" * 7900})
        yield "request header", "" if large.get("HTTP_X_LARGE") else f"a header of 7,900 bytes gets {answer}"
        came = False

        def halves(seen: Sighting) -> Iterator[bytes]:
            nonlocal came
            yield _BODY[: len(_BODY) // 2]
            came = seen.arrived.wait(LONG if self._wanted.stream else _A_MOMENT)
            yield _BODY[len(_BODY) // 2 :]

        seen, answer = self._ask(body=halves, headers={"Content-Length": str(len(_BODY))})
        announced = seen.get("CONTENT_LENGTH")
        cut = f"of {len(_BODY):,} bytes {seen.body:,} arrive, with CONTENT_LENGTH {announced}; the client gets {answer}"
        yield "request body", "" if (seen.body, announced) == (len(_BODY), str(len(_BODY))) else cut
        if self._wanted.stream:
            yield "uploads as they come", "" if came else "an upload is passed on when it is complete"
        seen, answer = self._ask(body=lambda _: iter([_BODY, b"more"]))
        yield "chunked body", "" if seen.body == len(_BODY) + 4 else f"a body of unknown length gets {answer}"
        refused = self._announce(self._wanted.max_body)
        yield "body limit", refused and f"a body of {self._wanted.max_body:,} bytes gets {refused}"

    # -- what arrives at the client --------------------------------------------------------------------------------

    def _answers(self) -> Iterator[Point]:
        _, answer = self._ask(answer="large-head")
        whole = answer.headers.get("x-large-2")
        yield "answer's head", "" if whole else f"an answer with headers of 12,000 bytes becomes {answer}"
        became = []
        for status, kind in ((200, "location"), (302, "redirect")):
            _, answer = self._ask(answer=kind)
            if (answer.status, answer.headers.get("location", "")[-len(LOCATION) :]) != (status, LOCATION):
                became.append(f"status {status} with a Location becomes {answer}")
        yield "Location", ", ".join(became)
        if self._wanted.stream:
            seen, answer = self._ask(answer="halves")
            early = seen.early and answer.body == FIRST + SECOND
            yield "answers as they come", "" if early else "an answer is collected to its end"

    # -- the client ------------------------------------------------------------------------------------------------

    def _connection(self, patience: float = _PATIENCE) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._wanted.scheme == "https" else http.client.HTTPConnection
        return kind(self._wanted.host, self._wanted.port, timeout=patience)

    def _fields(self, answer: str) -> tuple[Sighting, dict[str, str]]:
        seen, word = self._probe.expect(answer)
        usual = {"Host": self._wanted.netloc, "Proxy": "http://scgi-check/", "Authorization": "Basic eDp5"}
        return seen, {**usual, "Connection": "close", HEADER: word}

    def _ask(
        self,
        path: str = "/",
        answer: str = "plain",
        *,
        headers: dict[str, str] | None = None,
        body: Callable[[Sighting], Iterator[bytes]] | None = None,
        patience: float = _PATIENCE,
    ) -> tuple[Sighting, _Answer]:
        """One request. The probe sends the second half of `halves` when it hears that the first has come."""
        seen, fields = self._fields(answer)
        connection = self._connection(patience)
        try:
            target = self._wanted.mount + path
            fields |= headers or {}
            connection.request("POST" if body else "GET", target, body(seen) if body else None, fields)
            response = connection.getresponse()
            first = response.read(len(FIRST))
            seen.go_on.set()
            names = {name.lower(): value for name, value in response.getheaders()}
            return seen, _Answer(response.status, response.reason, names, first + response.read())
        except (OSError, http.client.HTTPException) as error:
            return seen, _Answer(reason=str(error) or type(error).__name__)
        finally:
            connection.close()

    def _announce(self, size: int) -> str:
        """How a body of that size is refused before a byte of it was sent; "" if it is not."""
        _, fields = self._fields("plain")
        lines = {**fields, "Content-Length": str(size), "Expect": "100-continue"}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        connection = self._connection()
        try:
            connection.connect()
            connection.sock.sendall(f"POST {self._wanted.mount}/ HTTP/1.1\r\n{head}\r\n".encode())
            _, _, status = connection.sock.makefile("rb").readline(65536).decode("latin-1").partition(" ")
            return "" if status.startswith("100") else status.strip() or "no answer"
        except OSError as error:
            return str(error)
        finally:
            connection.close()


def _shown(text: str | None) -> str:
    return "none" if text is None else repr(text.encode("latin-1").decode("utf-8", "backslashreplace"))
