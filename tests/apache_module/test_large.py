"""Uploads and downloads of any size, in memory that does not grow."""

from __future__ import annotations

import http.client
import zlib
from collections.abc import Iterator

import pytest

from gateway.toys import Conversation, Upstream
from interop.sites import MEGABYTE, Memory
from support.apache_module import Apache, serving

ONE_CHILD = "StartServers 1\nServerLimit 1\nThreadsPerChild 8\nMaxRequestWorkers 8"


@pytest.fixture
def web(upstream: Upstream) -> Iterator[Apache]:
    with serving(f"SCGIMount /app {upstream.address}", limits=ONE_CHILD) as web:
        yield web


def checksum(talk: Conversation) -> None:
    found, length = 0, 0
    for piece in talk.body():
        found = zlib.crc32(piece, found)
        length += len(piece)
    talk.answer(f"{talk.variables['CONTENT_LENGTH']} {length} {found}".encode())


def upload(web: Apache, megabytes: int, chunked: bool) -> tuple[str, str]:
    """What the server saw of it, and what it should have seen."""
    found = 0

    def pieces() -> Iterator[bytes]:
        nonlocal found
        for number in range(megabytes):
            piece = number.to_bytes(4, "big") * (MEGABYTE // 4)
            found = zlib.crc32(piece, found)
            yield piece

    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=100)
    headers = {} if chunked else {"Content-Length": str(megabytes * MEGABYTE)}
    connection.request("POST", "/app", pieces(), headers)
    answer = connection.getresponse().read().decode()
    connection.close()
    size = megabytes * MEGABYTE
    return answer, f"{size} {size} {found}"


def check(web: Apache, upstream: Upstream, megabytes: int, chunked: bool) -> None:
    upstream.answer = checksum
    upload(web, 1, chunked)  # what is allocated once is there
    [child] = web.children()
    memory = Memory(child)
    seen, expected = upload(web, megabytes, chunked)
    assert seen == expected
    assert memory.growth() < 4 * MEGABYTE
    assert web.children() == [child]


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "length"])
def test_an_upload_of_200_mb_arrives_whole_in_flat_memory(web: Apache, upstream: Upstream, chunked: bool) -> None:
    check(web, upstream, 200, chunked)


@pytest.mark.alone
def test_a_chunked_upload_of_1_gib_arrives_whole_in_flat_memory(web: Apache, upstream: Upstream) -> None:
    check(web, upstream, 1024, chunked=True)


@pytest.mark.parametrize("announced", [True, False], ids=["length", "open"])
def test_a_download_of_200_mb_arrives_whole_in_flat_memory(web: Apache, upstream: Upstream, announced: bool) -> None:
    def answer(talk: Conversation) -> None:
        talk.send(f"Content-Length: {200 * MEGABYTE}\r\n\r\n".encode() if announced else b"Status: 200 OK\r\n\r\n")
        for number in range(200):
            talk.send(number.to_bytes(4, "big") * (MEGABYTE // 4))

    upstream.answer = answer
    [child] = web.children()
    memory = Memory(child)
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=100)
    connection.request("GET", "/app")
    response = connection.getresponse()
    for number in range(200):
        assert response.read(MEGABYTE) == number.to_bytes(4, "big") * (MEGABYTE // 4)
    assert response.read() == b""
    connection.close()
    assert memory.growth() < 4 * MEGABYTE


def test_a_client_that_is_slow_to_read_holds_the_server_and_not_the_memory(web: Apache, upstream: Upstream) -> None:
    sent = 0

    def answer(talk: Conversation) -> None:
        nonlocal sent
        talk.send(b"Status: 200 OK\r\n\r\n")
        talk.peer.settimeout(1)
        try:
            while sent < 64 * MEGABYTE:
                sent += talk.peer.send(bytes(65536))
        except TimeoutError:
            pass

    upstream.answer = answer
    [child] = web.children()
    memory = Memory(child)
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=100)
    connection.request("GET", "/app")
    response = connection.getresponse()
    upstream.settle()
    assert sent < 32 * MEGABYTE  # what the buffers of the kernel hold
    assert memory.growth() < 4 * MEGABYTE
    response.close()
    connection.close()
