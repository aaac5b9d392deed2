"""The test machinery itself, held to what it promises; its SCGI server is a toy that shares no code."""

from __future__ import annotations

import http.server
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import (
    Chromium,
    Reset,
    build_request,
    children_of,
    free_port,
    is_alive,
    is_listening,
    raw_exchange,
    require_program,
    resident_bytes,
    scgi_request,
    wait_until,
)


def toy_server(listener: socket.socket) -> None:
    """Answer each request with its variables and body; ends when the listener is shut down."""
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer, peer.makefile("rb") as stream:
            digits = b""
            while not digits.endswith(b":"):
                digits += stream.read(1)
            block = stream.read(int(digits[:-1]) + 1)
            if not block.endswith(b","):
                continue
            items = block[:-2].decode("latin-1").split("\0")
            variables = dict(zip(items[::2], items[1::2], strict=True))
            body = stream.read(int(variables["CONTENT_LENGTH"]))
            page = "".join(f"{name}={value}\n" for name, value in variables.items()).encode() + body
            peer.sendall(b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n" + page)


@pytest.fixture(params=["tcp", "unix"])
def toy(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX if request.param == "unix" else socket.AF_INET) as listener:
        if request.param == "unix":
            address = f"unix:{short_tmp}/toy.sock"
            listener.bind(f"{short_tmp}/toy.sock")
            (short_tmp / "toy.sock").chmod(0o660)
        else:
            port = free_port()
            address = f"127.0.0.1:{port}"
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
        assert not is_listening(address)
        listener.listen()
        thread = threading.Thread(target=toy_server, args=(listener,))
        thread.start()
        yield address
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_the_client_understands_an_answer_however_the_request_is_split(toy: str) -> None:
    whole = scgi_request(toy, {"X": "ä"}, b"body", method="POST", path="/p", query="a=1")
    assert (whole.status, whole.reason, whole.header("content-type")) == (200, "OK", "text/plain")
    assert whole.body.startswith(b"CONTENT_LENGTH=4\nREQUEST_METHOD=POST\nREQUEST_URI=/p?a=1\n")
    assert whole.body.endswith(b"body")
    for split in (1, 7, [3, 10]):
        again = scgi_request(toy, {"X": "ä"}, b"body", method="POST", path="/p", query="a=1", split=split, pause=0)
        assert again == whole


def test_a_request_nobody_answers_ends_at_its_deadline(toy: str) -> None:
    with pytest.raises(TimeoutError):
        raw_exchange(toy, build_request()[:-1], within=0.3)


def test_a_reset_hands_over_what_came_before(short_tmp: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_and_reset() -> None:
            peer, _ = listener.accept()
            peer.sendall(b"half")
            peer.recv(4)
            peer.close()  # with unread bytes: a reset

        thread = threading.Thread(target=answer_and_reset)
        thread.start()
        with pytest.raises(Reset) as caught:
            raw_exchange(f"127.0.0.1:{listener.getsockname()[1]}", b"1234" * 1000)
        assert caught.value.received in (b"", b"half")
        thread.join()


@pytest.mark.parametrize("front_name", ["nginx", "apache", "lighttpd"])
def test_each_front_forwards_to_the_address_it_is_given(
    front_name: str, toy: str, request: pytest.FixtureRequest
) -> None:
    start_front = request.getfixturevalue(front_name)
    for mount, path, expected in (("/", "/a/b", "/a/b"), ("/mnt", "/mnt/a", "/a")):
        front = start_front(to=toy, mount=mount)
        with urllib.request.urlopen(front.url + path + "?q=1", data=b"uploaded", timeout=10) as answer:
            page = answer.read().decode()
        assert f"\nPATH_INFO={expected}\n" in page, page
        assert f"\nSCRIPT_NAME={'' if mount == '/' else mount}\n" in page, page
        assert "QUERY_STRING=q=1" in page
        assert page.endswith("uploaded")


def test_a_program_that_ends_at_its_start_shows_its_log(launch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "bad.py").write_text("raise SystemExit('no such thing')")
    with pytest.raises(pytest.fail.Exception, match="no such thing"):
        launch(tmp_path / "bad.py", address=f"127.0.0.1:{free_port()}")


def test_processes_are_seen_counted_and_stopped(launch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "parent.py").write_text(
        "import os, signal\n"
        "if os.fork() == 0: os.setsid(); signal.pause()\n"
        "signal.signal(signal.SIGHUP, lambda *_: print('hup', flush=True))\n"
        "while True: signal.pause()\n"
    )
    process = launch(tmp_path / "parent.py")
    [child] = wait_until(process.children, what="the child")
    assert children_of(process.pid) == process.descendants() == [child]
    assert is_alive(child) and resident_bytes(child) > 1_000_000
    wait_until(lambda: process.signal(signal.SIGHUP) or "hup" in process.log(), what="the signal's effect")
    assert process.stop() == -signal.SIGTERM
    assert process.survivors() == [child]  # although it left the session
    with pytest.raises(pytest.fail.Exception, match="in vain"):
        process.assert_nothing_left(within=0.1)
    wait_until(lambda: not is_alive(child), what="the end of what was left")


def test_a_missing_program_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        require_program("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        require_program("no-such-program")


class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.reply(
            f"<title>at {self.path}</title><h1>Hello</h1><a href=/next>on</a>"
            "<form method=post enctype=multipart/form-data><input name=who><input type=file name=f>"
            "<button>send</button></form>"
        )

    def do_POST(self) -> None:
        self.reply("<pre>" + self.rfile.read(int(self.headers["Content-Length"])).decode() + "</pre>")

    def reply(self, page: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_browser_opens_follows_fills_uploads_and_takes_pictures(chromium: Chromium) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            chromium.open(f"http://127.0.0.1:{site.server_port}/first")
            assert (chromium.title, chromium.text("h1")) == ("at /first", "Hello")
            chromium.follow("a")
            assert chromium.url.endswith("/next")
            (chromium.folder / "note.txt").write_text("in the file")
            chromium.fill("input[name=who]", "Ada")
            chromium.choose_file("input[type=file]", chromium.folder / "note.txt")
            chromium.follow("button")
            page = chromium.text("pre")
            assert "Ada" in page and "note.txt" in page and "in the file" in page
            chromium.screenshot(chromium.folder / "page.png")
            assert (chromium.folder / "page.png").read_bytes().startswith(b"\x89PNG")
        finally:
            site.shutdown()
            thread.join()
