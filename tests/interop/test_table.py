"""Every row of the table behind every web server, with the configurations that `scgi config` prints."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from interop.page import HOW_TO, PAGE, how_to, page
from interop.table import CASES, FRONTS, GROUPS, Case
from interop.webservers import NAMES, web_server
from support import Front, free_port, short_folder, start, wait_until

MOUNTS = {"root": "", "below": "/prefix"}
RENEW = "renew it: cd tests && python -m interop.page"
OURS = {"HTTP_X_DO", "HTTP_CONNECTION", "HTTP_X_REQUEST_ID"}  # of the test itself, and nginx's own id


@dataclass
class Mirror:
    """The application, at a unix socket and at a TCP port."""

    unix: str
    tcp: str
    facts: Path


@pytest.fixture(scope="module")
def mirror() -> Iterator[Mirror]:
    with short_folder() as folder:
        (folder / "facts").mkdir()
        mirror = Mirror(f"unix:{folder}/s", f"127.0.0.1:{free_port()}", folder / "facts")
        command = [sys.executable, "-m", "scgi", "serve", f"--env=FACTS={folder}/facts", "--min-workers=2"]
        listen = [f"--listen={mirror.unix}", f"--listen={mirror.tcp}"]
        server = start(
            [*command, *listen, Path(__file__).with_name("mirror.py")], log_file=folder / "log", address=mirror.tcp
        )
        try:
            yield mirror
            assert server.stop() == 0
            server.assert_nothing_left()
        finally:
            server.kill()
            print(f"--- log of the SCGI server ---\n{server.log()}")


@pytest.mark.parametrize("place", ["unix", "tcp"])
@pytest.mark.parametrize("mount", MOUNTS)
@pytest.mark.parametrize("front", NAMES)
def test_application_and_client_see_what_the_table_says(front: str, mount: str, place: str, mirror: Mirror) -> None:
    options = [f"--mount={MOUNTS[mount] or '/'}", f"--upstream={getattr(mirror, place)}", "--timeout=10"]
    with web_server(front, *options, "--stream") as web:
        client = Client(web, MOUNTS[mount], mirror.facts)
        wrong = [
            line
            for case in CASES
            if mount == "below" or not case.below_a_path
            for line in client.differences(case, front, place)
        ]
    assert not wrong, "\n".join(wrong)


def test_the_page_of_the_documentation_is_that_of_the_table() -> None:
    assert PAGE.read_text() == page(), RENEW


@pytest.mark.parametrize("file", HOW_TO, ids=lambda file: file.stem)
def test_the_configurations_of_the_documentation_are_those_that_are_printed(file: Path) -> None:
    assert file.read_text() == how_to(file.read_text()), RENEW


def test_no_row_is_there_twice_and_every_exception_is_one() -> None:
    for cases in GROUPS.values():
        names = [case.name for case in cases]
        assert len(set(names)) == len(names)
    assert set(NAMES) == set(FRONTS)
    for case in CASES:
        for front, but in case.but.items():
            assert case.expected(front, but.over or "tcp") != case.expected("", ""), case.name


class Client:
    """Sends the rows as bytes, and says where the facts are others."""

    def __init__(self, web: Front, mount: str, facts: Path) -> None:
        self._web, self._mount, self._facts = web, mount, facts

    def differences(self, case: Case, front: str, place: str) -> Iterator[str]:
        try:
            found = self._ask(case)
        except (OSError, http.client.HTTPException) as error:
            found = {"error": repr(error)}
        for name, fact in case.expected(front, place).items():
            fact, other = self._local(fact), found.get(name)
            if other != fact:
                yield f"{case.name}: {name}: expected {short(fact)}, found {short(other)} (of {short(found)})"

    def _local(self, fact: Any) -> Any:
        if isinstance(fact, dict):
            return {name: self._local(value) for name, value in fact.items()}
        return fact.replace("{port}", str(self._web.port)) if isinstance(fact, str) else fact

    def _bytes(self, case: Case, word: str) -> bytes:
        own = f"http://127.0.0.1:{self._web.port}{self._mount}"
        target = case.target.replace("{own}", own) if "{own}" in case.target else self._mount + case.target
        fields = [("Host", self._local(case.host))] if case.host else []
        fields += [("X-Do", f"{case.do} {word}"), *case.headers]
        if not any(name == "Connection" for name, _ in case.headers):
            fields.append(("Connection", "close"))
        body = case.body
        if case.chunked and body is not None:
            fields.append(("Transfer-Encoding", "chunked"))
            half = len(body) // 2
            body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:half], body[half:], b""))
        elif body is not None:
            fields.append(("Content-Length", str(len(body))))
        head = f"{case.method} {target or '/'} HTTP/{case.version}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
        return head.encode("latin-1") + (body or b"")

    def _ask(self, case: Case) -> dict[str, Any]:
        word = uuid.uuid4().hex
        with socket.create_connection(("127.0.0.1", self._web.port), 15) as peer:
            try:
                peer.sendall(self._bytes(case, word if case.do in ("stream", "endless") else ""))
            except OSError:
                pass  # refused before all was sent: the answer is there
            response = http.client.HTTPResponse(peer, method=case.method)
            response.begin()
            found: dict[str, Any] = {"status": response.status, "reason": response.reason}
            if case.do == "endless":
                peer.recv(1000)
                peer.close()
                response.close()
                wait_until((self._facts / word).exists, 10, f"{case.name}: the application to hear of it")
                return {**found, "seen": True, "left": True}
            found["seen"] = response.getheader("x-mirror") == "yes"
            found["echoed"] = response.getheader("x-method")
            found["cookies"] = response.headers.get_all("set-cookie")
            found["length"] = response.getheader("content-length")
            found["location"] = (response.getheader("location") or "").removeprefix(
                f"http://127.0.0.1:{self._web.port}"
            )
            if case.do == "stream":
                found["streamed"] = response.read(5) == b"first"
                (self._facts / word).touch()
                found["answer"] = b"first" + response.read()
                return found
            try:
                found["answer"] = response.read()
            except (http.client.IncompleteRead, ConnectionError):
                found["answer"] = "cut"
        if case.do == "show" and found["seen"] and found["answer"]:
            found |= self._saw(json.loads(found["answer"]))
        return found

    def _saw(self, seen: dict[str, str]) -> dict[str, Any]:
        uri = seen["REQUEST_URI"].removeprefix(f"http://127.0.0.1:{self._web.port}").removeprefix(self._mount)
        return {
            "method": seen["REQUEST_METHOD"],
            "below": seen["SCRIPT_NAME"] == self._mount,
            "path": seen["PATH_INFO"],
            "query": seen["QUERY_STRING"],
            "uri": uri,
            "type": seen.get("CONTENT_TYPE", ""),
            "body": base64.b64decode(seen["body"]),
            "headers": {name: value for name, value in seen.items() if name.startswith("HTTP_") and name not in OURS},
        }


def short(fact: object) -> str:
    text = repr(fact)
    return text if len(text) < 400 else f"{text[:200]} … {text[-100:]}"
