"""The pages of the demonstration, called as a WSGI server calls them."""

import hashlib
import io
import os
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
MARKUP = '<b>"hé"&\''


def wire(text: str) -> str:
    return text.encode().decode("latin-1")


class Answer:
    def __init__(self, status: str, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        self.text = body.decode("utf-8")


class Demo:
    def __init__(self) -> None:
        self.module: dict[str, Any] = runpy.run_path(str(EXAMPLES / "demo.py"))

    def get(self, path: str, body: bytes = b"", **variables: str) -> Answer:
        path, _, query = path.partition("?")
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REMOTE_ADDR": "192.0.2.7",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            **variables,
        }
        setup_testing_defaults(environ)
        started: list[Any] = []
        application: Callable[..., Any] = validator(self.module["application"])
        result = application(environ, lambda *args: started.extend(args))
        try:
            content = b"".join(result)
        finally:
            result.close()
        headers = dict(started[1])
        assert headers["Content-Length"] == str(len(content))
        return Answer(started[0], headers, content)

    def post(self, body: bytes, boundary: str = "BOUNDARY") -> Answer:
        kind = f"multipart/form-data; boundary={boundary}"
        return self.get("/form", body, REQUEST_METHOD="POST", CONTENT_TYPE=kind)


@pytest.fixture
def demo() -> Demo:
    return Demo()


def multipart(filename: str, content: bytes, note: str = "", boundary: str = "BOUNDARY") -> bytes:
    return (
        (
            f'--{boundary}\r\nContent-Disposition: form-data; name="note"\r\n\r\n{note}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        + content
        + f"\r\n--{boundary}--\r\n".encode()
    )


# --- pages -----------------------------------------------------------------------------------------


def test_the_index_shows_worker_count_and_variables(demo: Demo) -> None:
    first = demo.get("/", HTTP_USER_AGENT="Mozilla/5.0 Gecko/20100101 Firefox/140.0", HTTP_HOST="demo.test")
    assert first.status == "200 OK"
    assert f'<span id="worker">{os.getpid()}</span>' in first.text
    assert '<span id="served">1st</span>' in first.text
    for seen in ("Firefox", "192.0.2.7", "demo.test", "asks GET /", "REMOTE_ADDR"):
        assert seen in first.text
    shown = len(re.findall('<th scope="row">', first.text))
    assert f"{shown} variables came over the wire" in first.text
    assert "wsgi." not in first.text


def test_a_reload_visibly_counts_on(demo: Demo) -> None:
    seen = [re.findall('id="served">(.*?)<', demo.get("/").text)[0] for _ in range(24)]
    assert seen[:4] == ["1st", "2nd", "3rd", "4th"]
    assert seen[9:13] == ["10th", "11th", "12th", "13th"]
    assert seen[20:] == ["21st", "22nd", "23rd", "24th"]
    assert demo.get("/").headers["Cache-Control"] == "no-store"


def test_everything_a_client_sends_is_escaped(demo: Demo) -> None:
    for path in ("/", "/clock?pizza=%3Cb%3E&drink=%3Cb%3E"):
        page = demo.get(path, HTTP_USER_AGENT=wire(MARKUP), HTTP_HOST=wire(MARKUP), REMOTE_ADDR=wire(MARKUP))
        assert "&lt;b&gt;" in page.text
        assert '<b>"hé' not in page.text
        assert "<b><b>" not in page.text
    answer = demo.post(multipart("<i>é.txt", b"", note=MARKUP))
    assert "<dd>&lt;b&gt;&quot;hé&quot;&amp;&#x27;</dd>" in answer.text
    assert "<dd>&lt;i&gt;é.txt</dd>" in answer.text


def test_links_follow_the_mount(demo: Demo) -> None:
    page = demo.get("/", SCRIPT_NAME=wire("/café"))
    links = re.findall(r'href="(/[^"]*)"', page.text)
    assert len(links) > 8
    assert all(link.startswith("/caf%C3%A9/") for link in links)
    assert demo.get("", SCRIPT_NAME="/app").status == "200 OK"


def test_the_pages_load_nothing_from_elsewhere(demo: Demo) -> None:
    for path in ("/", "/clock", "/form"):
        page = demo.get(path)
        assert not re.findall(r'(?:src|href|action)="(?:https?:)?//', page.text)
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "$" not in page.text


def test_the_clock_takes_orders(demo: Demo) -> None:
    assert re.search(r"\d\d:\d\d:\d\d", demo.get("/clock").text)
    assert "One <b>hawaii</b> and one <b>beer</b>" in demo.get("/clock?pizza=hawaii&drink=beer").text


def test_the_clock_fails_without_a_drink_and_then_goes_on(demo: Demo) -> None:
    with pytest.raises(KeyError, match="drink"):
        demo.get("/clock?pizza=hawaii")
    assert demo.get("/clock?pizza=hawaii&drink=beer").status == "200 OK"


def test_the_variables_are_plain_text_one_to_a_line(demo: Demo) -> None:
    page = demo.get("/variables?<b>", HTTP_X_NAME=wire("hé"))
    assert page.headers["Content-Type"] == "text/plain; charset=utf-8"
    lines = page.text.splitlines()
    assert "QUERY_STRING: '<b>'" in lines
    assert "HTTP_X_NAME: 'hé'" in lines


def test_other_paths_are_not_found(demo: Demo) -> None:
    assert demo.get("/clock/x").status == "404 Not Found"


# --- the form ----------------------------------------------------------------------------------------


def test_an_upload_is_measured_and_hashed(demo: Demo) -> None:
    content = os.urandom(1_000_000)
    answer = demo.post(multipart("photo.jpg", content))
    assert answer.status == "200 OK"
    for seen in ("photo.jpg", "1,000,000 bytes", hashlib.sha256(content).hexdigest()):
        assert f"<dd>{seen}</dd>" in answer.text


def test_a_form_that_is_none_or_too_large_or_cut_off_is_refused(demo: Demo) -> None:
    whole = multipart("x", b"content")
    plain = demo.get("/form", b"a=1", REQUEST_METHOD="POST", CONTENT_TYPE="application/x-www-form-urlencoded")
    assert plain.status == "400 Bad Request"
    large = demo.get("/form", REQUEST_METHOD="POST", CONTENT_TYPE="x", CONTENT_LENGTH=str((64 << 20) + 1))
    assert large.status == "413 Content Too Large"
    for end in (0, 10, 60, len(whole) // 2, len(whole) - 6):
        assert demo.post(whole[:end]).status == "400 Bad Request"
    assert demo.post(b"--BOUNDARY--\r\n").status == "400 Bad Request"
    assert demo.post(b"--BOUNDARY\r\n" + b"x" * 300_000).status == "400 Bad Request"


class Trickle(io.BytesIO):
    """Gives a few bytes at a time, and remembers the largest amount it was asked for."""

    def __init__(self, data: bytes, step: int) -> None:
        super().__init__(data)
        self.step = step
        self.asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None and size >= 0
        self.asked = max(self.asked, size)
        return super().read(min(size, self.step))


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1 << 16])
def test_a_form_reads_the_same_however_it_is_cut(demo: Demo, step: int) -> None:
    content = b"\r\n--BOUND\r\n--BOUNDAR\r\n\r\n--" * 9
    body = b"preamble\r\n" + multipart('a "b; c.txt', content, note="two\r\nlines")
    stream = Trickle(body, step)
    note, file = demo.module["read_form"](stream, len(body), b"BOUNDARY")
    assert (note.name, note.filename, note.start) == ("note", "", b"two\r\nlines")
    assert (file.name, file.size, file.start) == ("file", len(content), content)
    assert file.digest.digest() == hashlib.sha256(content).digest()
    assert stream.asked <= 1 << 16


def test_a_form_is_read_no_further_than_its_length(demo: Demo) -> None:
    body = multipart("x", b"content")
    stream = io.BytesIO(body + b"more")
    assert len(demo.module["read_form"](stream, len(body), b"BOUNDARY")) == 2
    assert stream.read() == b"more"
