"""Flask behind nginx: uploads with and without a length, large ones, and an answer that comes in pieces."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator

import pytest

from recipes.conftest import StartRecipe
from recipes.visitor import Visitor

MB = 1 << 20


@pytest.fixture
def site(recipe: StartRecipe) -> str:
    flask = recipe("flask")
    flask.run()
    flask.run("Behind nginx")
    return flask.web["nginx"] + "/shop"


@pytest.mark.parametrize("chunked", [True, False])
def test_two_hundred_megabytes_arrive_whole(site: str, chunked: bool) -> None:
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for number in range(200):
            piece = number.to_bytes(2, "big") * (MB // 2)
            digest.update(piece)
            yield piece

    host, _, mount = site.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(host, timeout=60)
    headers = {} if chunked else {"Content-Length": str(200 * MB)}
    connection.request("POST", f"/{mount}/upload", pieces(), headers)
    answer = connection.getresponse()
    assert (answer.status, answer.read().decode()) == (200, f"{200 * MB} {digest.hexdigest()}\n")
    connection.close()


def test_an_answer_in_pieces_arrives_whole(site: str) -> None:
    answer = Visitor(site).get("/numbers")
    assert answer.status == 200
    assert answer.text.split() == [str(number) for number in range(100_000)]
    assert answer.headers["Content-Length"] is None


def test_what_is_not_there_is_flask_s_own_404(site: str) -> None:
    answer = Visitor(site).get("/nothing")
    assert answer.status == 404 and "<title>404 Not Found</title>" in answer.text
