"""A flup script whose import alone was changed."""

from __future__ import annotations

from pathlib import Path
from signal import SIGHUP, SIGTERM
from typing import Any

import pytest

from scgi.errors import ConfigError
from scgi.flup import WSGIServer
from support import free_port, scgi_request

SCRIPT = Path(__file__).with_name("flup_script.py")


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_the_script_serves_and_run_returns(kind: str, launch: Any) -> None:
    port = free_port()
    process = launch(SCRIPT, str(port), kind, address=f"127.0.0.1:{port}")
    answer = scgi_request(f"127.0.0.1:{port}", path="/app/page")
    assert (answer.status, answer.text) == (200, "/app|/page|hello")
    assert "minSpare has no effect here" in process.log()
    process.signal({"processes": SIGTERM, "threads": SIGHUP}[kind])
    assert process.wait() == {"processes": 3, "threads": 4}[kind]  # run() is True after HUP


def test_a_unix_socket_has_the_mode_that_umask_leaves(launch: Any, short_tmp: Path) -> None:
    where = short_tmp / "s"
    launch(SCRIPT, str(where), address=f"unix:{where}")
    assert where.stat().st_mode & 0o777 == 0o660
    assert scgi_request(f"unix:{where}", path="/app/").text == "/app|/|hello"


def test_an_unknown_argument_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="maxChildern is not an argument"):
        WSGIServer(print, maxChildern=3)  # type: ignore[arg-type]
