"""What the README shows is run as it stands there."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from typing import Any

from support import free_port, is_listening, wait_until

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language: str) -> str:
    """The first block of code in that language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found, f"README.md has no block of {language}"
    return found[1]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_the_application_answers_as_shown(scgi_serve: Any, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(block("python"))
    http = f"127.0.0.1:{free_port()}"
    scgi_serve("hello.py", "--http", http, cwd=tmp_path)
    wait_until(lambda: is_listening(http), what="the HTTP front")
    assert "One pizza hawaii, coming up.\n" in README
    assert get(f"http://{http}/?pizza=hawaii") == "One pizza hawaii, coming up.\n"


def test_the_nginx_lines_forward_to_it(scgi_serve: Any, nginx: Any, tmp_path: Path, short_tmp: Path) -> None:
    (tmp_path / "hello.py").write_text(block("python"))
    address = f"unix:{short_tmp}/hello.sock"
    scgi_serve("hello.py", listen=address, cwd=tmp_path)
    lines = block("nginx")
    assert "unix:/run/hello/hello.sock" in lines
    front = nginx(config=lines.replace("unix:/run/hello/hello.sock", address))
    assert get(f"{front.url}/?pizza=hawaii") == "One pizza hawaii, coming up.\n"
