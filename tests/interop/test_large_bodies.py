"""Large uploads and downloads through real web servers: every byte right, the worker's memory flat."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.sites import MEGABYTE, Memory, Site, open_site
from support import wait_until

GIGABYTE = 1 << 30


@pytest.fixture
def large(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A site with one worker. nginx is told not to keep large answers on disk."""
    where = request.param
    with open_site(where, "--max-workers=1", wish=["--stream", "--max-body=1g"]) as site:
        assert site.ask("/echo", "POST", b"x" * 200_000)[0].status == 200  # what is allocated once is there
        yield site


def upload(site: Site, megabytes: int, chunked: bool) -> tuple[str, str]:
    """What the application saw of it, and what it should have seen."""
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for number in range(megabytes):
            piece = number.to_bytes(4, "big") * (MEGABYTE // 4)
            digest.update(piece)
            yield piece

    connection = http.client.HTTPConnection("127.0.0.1", site.web.port, timeout=60)
    headers = {} if chunked else {"Content-Length": str(megabytes * MEGABYTE)}
    connection.request("POST", site.mount + "/echo", pieces(), headers)
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer, f"{megabytes * MEGABYTE} {digest.hexdigest()}"


def sparse(file: Path, size: int) -> None:
    """A file that takes little room, and in which no piece is in another's place unnoticed."""
    with file.open("wb") as out:
        out.truncate(size)
        for offset in range(0, size, 16 * MEGABYTE):
            out.seek(offset + offset // 1000)
            out.write(f"at {offset}".encode())


def checksum(source: object) -> str:
    digest = hashlib.sha256()
    while piece := source.read(MEGABYTE):  # type: ignore[attr-defined]
        digest.update(piece)
    return digest.hexdigest()


@pytest.mark.parametrize("large", ["nginx-unix-root", "nginx-tcp-shop"], indirect=True)
def test_a_chunked_upload_of_200_mb_arrives_whole_in_flat_memory(large: Site) -> None:
    [worker] = large.workers()
    memory = Memory(worker)
    seen, expected = upload(large, 200, chunked=True)
    assert seen == expected
    assert memory.growth() < 10 * MEGABYTE
    assert large.workers() == [worker]


@pytest.mark.parametrize("large", ["apache-tcp-shop", "lighttpd-unix-root"], indirect=True)
def test_an_upload_of_50_mb_arrives_whole_in_flat_memory(large: Site) -> None:
    [worker] = large.workers()
    memory = Memory(worker)
    seen, expected = upload(large, 50, chunked=False)
    assert seen == expected
    assert memory.growth() < 10 * MEGABYTE


@pytest.mark.parametrize(
    ("large", "size"),
    [
        ("nginx-unix-root", GIGABYTE),
        ("nginx-tcp-shop", GIGABYTE),
        ("apache-unix-root", 100 * MEGABYTE),
        ("lighttpd-tcp-shop", 100 * MEGABYTE),
    ],
    indirect=["large"],
)
def test_a_download_with_file_wrapper_is_right_in_flat_memory(large: Site, size: int) -> None:
    file = large.facts / "large"
    sparse(file, size)
    with file.open("rb") as source:
        expected = checksum(source)
    [worker] = large.workers()
    memory = Memory(worker)
    connection = http.client.HTTPConnection("127.0.0.1", large.web.port, timeout=60)
    connection.request("GET", large.mount + "/file")
    response = connection.getresponse()
    assert response.status == 200 and response.getheader("x-pid") == str(worker)
    assert checksum(response) == expected
    connection.close()
    assert memory.growth() < 10 * MEGABYTE
    # The file is closed afterwards.
    wait_until(lambda: not open_files(worker, file), what="the file to be closed")


def open_files(pid: int, file: Path) -> list[Path]:
    return [link for link in Path(f"/proc/{pid}/fd").iterdir() if link.exists() and link.resolve() == file]
