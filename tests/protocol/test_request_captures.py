"""What real web servers sent, judged by rules that are written down here a second time, in the plainest way."""

from __future__ import annotations

import string

import pytest

from captures_index import BY_NAME, CAPTURES, FOLDER, Capture
from protocol.ways_in import MORE, at_once, verdict, with_tail
from scgi.protocol.request import parse_head

NAME = set(string.ascii_letters + string.digits + "_.-")
WITHHELD = {"HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"}
WITHOUT_SCGI = {"nginx-raw-noparams", "nginxhead-raw-noparams"}


def what_an_application_gets(capture: Capture) -> dict[str, str]:
    expected: dict[str, str] = {}
    for name, value in capture.variables:
        if name.startswith("HTTP_") and (name in WITHHELD or not set(name) <= NAME):
            continue
        if name in expected:
            assert name.startswith("HTTP_")
            expected[name] += ("; " if name == "HTTP_COOKIE" else ", ") + value
        else:
            expected[name] = value
    expected["CONTENT_LENGTH"] = expected["CONTENT_LENGTH"] or "0"
    return expected


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda c: c.name)
def test_each_captured_request_gives_what_its_row_says_however_it_is_split(capture: Capture) -> None:
    require_scgi = capture.name not in WITHOUT_SCGI
    found = verdict(capture.data, require_scgi=require_scgi)
    assert dict(found.variables) == what_an_application_gets(capture)
    assert found.content_length == int(capture.content_length or 0)
    assert found.rest == capture.body
    with_tail(found, capture.data, require_scgi=require_scgi)


@pytest.mark.parametrize("name", sorted(WITHOUT_SCGI))
def test_nginx_without_scgi_params_is_refused_unless_asked_for(name: str) -> None:
    data = BY_NAME[name].data
    found = verdict(data)
    assert (found.code, found.status) == ("scgi-missing", 400)
    with_tail(found, data)


@pytest.mark.parametrize("name", ["apache-get", "nginx-post", "lighttpd-get", "nginx-raw-noparams"])
def test_every_beginning_of_a_captured_request_asks_for_more(name: str) -> None:
    data = BY_NAME[name].data
    head = parse_head(data, require_scgi=False)
    assert head is not None
    assert all(at_once(data[:size], require_scgi=False) == MORE for size in range(head.end))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("rtorrent-*.req.bin")), ids=lambda p: p.name)
def test_the_clients_of_rtorrent_are_understood(path) -> None:  # type: ignore[no-untyped-def]
    found = verdict(path.read_bytes())
    assert found.content_length == len(found.rest) > 0
