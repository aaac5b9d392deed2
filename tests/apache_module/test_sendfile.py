"""X-Sendfile: files below one folder, when that is switched on, and nothing else on earth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from apache_module.asking import Answer, ask
from gateway.toys import Upstream
from support import short_folder
from support.apache_module import Apache, serving

CONTENT = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with short_folder() as folder:
        (folder / "files/below").mkdir(parents=True)
        (folder / "files-of-others").mkdir()
        (folder / "files/page.bin").write_bytes(CONTENT)
        (folder / "files/below/caf\xe9 a%b.txt").write_bytes(b"below")
        (folder / "files/closed").write_bytes(b"secret")
        (folder / "files/closed").chmod(0)
        for secret in ("secret", "files-of-others/secret"):
            (folder / secret).write_bytes(b"secret")
        (folder / "files/inward").symlink_to("page.bin")
        (folder / "files/outward").symlink_to("../secret")
        (folder / "files/absolute").symlink_to("/etc/passwd")
        (folder / "files/folder-outward").symlink_to("../files-of-others")
        yield folder


@pytest.fixture(scope="module")
def web(server: Upstream, folder: Path) -> Iterator[Apache]:
    config = f"""
SCGIMount /app {server.address}
SCGIMount /off {server.address}
SCGIMount /on/off {server.address}
<Location /app>
  SCGISendfile {folder}/files
</Location>
<Location /on>
  SCGISendfile {folder}/files
</Location>
<Location /on/off>
  SCGISendfile Off
</Location>
"""
    with serving(config) as web:
        yield web


def get(web: Apache, upstream: Upstream, path: str, target: str = "/app", *headers: str, method: str = "GET") -> Answer:
    lines = ["Status: 200 OK", *headers, f"X-Sendfile: {path}", "", "instead"]
    upstream.answer = lambda talk: talk.send("\r\n".join(lines).encode())
    return ask(web, target, method)


def test_a_file_below_the_folder_is_sent_with_its_length_and_the_application_s_headers(
    web: Apache, upstream: Upstream, folder: Path
) -> None:
    own = ("Content-Type: text/x", "Set-Cookie: a=1", "Content-Length: 7")
    answer = get(web, upstream, f"{folder}/files/page.bin", "/app", *own)
    assert (answer.status, answer.body, answer.whole) == (200, CONTENT, True)
    assert answer.header("content-length") == str(len(CONTENT))
    assert (answer.header("content-type"), answer.header("set-cookie")) == ("text/x", "a=1")
    assert answer.header("x-sendfile") is None


def test_names_are_taken_as_they_are(web: Apache, upstream: Upstream, folder: Path) -> None:
    assert get(web, upstream, f"{folder}/files/below/caf\xe9 a%b.txt").body == b"below"


def test_head_has_the_length_alone(web: Apache, upstream: Upstream, folder: Path) -> None:
    answer = get(web, upstream, f"{folder}/files/page.bin", method="HEAD")
    assert (answer.status, answer.body, answer.header("content-length")) == (200, b"", str(len(CONTENT)))


def test_a_link_that_stays_inside_is_followed(web: Apache, upstream: Upstream, folder: Path) -> None:
    answer = get(web, upstream, f"{folder}/files/inward")
    assert answer.body == CONTENT or answer.status in (403, 404)


@pytest.mark.parametrize(
    "path",
    [
        "{0}/secret",
        "{0}/files/../secret",
        "{0}/files/below/../../secret",
        "{0}/files/./../secret",
        "{0}/files//../secret",
        "{0}/files-of-others/secret",
        "{0}/files/outward",
        "{0}/files/absolute",
        "{0}/files/folder-outward/secret",
        "{0}/files/below/../folder-outward/secret",
        "/etc/passwd",
        "//etc/passwd",
        "/../../etc/passwd",
        "/proc/self/environ",
        "files/page.bin",
        "../secret",
        "file://{0}/secret",
        "",
        "{0}/files",
        "{0}/files/below",
        "{0}/files/below/",
        "{0}/files/closed",
        "{0}/files/none",
        "{0}/files/page.bin/",
        "{0}/files/%2e%2e/secret",
    ],
)
def test_nothing_else_can_be_had(web: Apache, upstream: Upstream, folder: Path, path: str) -> None:
    answer = get(web, upstream, path.format(folder))
    assert answer.status in (403, 404, 500, 502) and answer.whole, answer.raw
    assert b"secret" not in answer.body and b"root:" not in answer.body and b"instead" not in answer.body
    assert web.codes()


@pytest.mark.parametrize("target", ["/off", "/on/off"])
def test_switched_off_it_is_never_obeyed(web: Apache, upstream: Upstream, folder: Path, target: str) -> None:
    answer = get(web, upstream, f"{folder}/files/page.bin", target)
    assert (answer.status, answer.body) == (200, b"instead")
