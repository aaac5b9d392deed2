"""`scgi gateway`: the command; what it relays is tested in tests/gateway."""

from __future__ import annotations

import http.client
import socket
from typing import Any

import pytest

from scgi.cli.main import run
from scgi.errors import ExitCode
from support import free_port


def test_it_answers_http_until_it_is_told_to_stop(launch: Any) -> None:
    port, dead = free_port(), free_port()
    process = launch(
        "-m", "scgi", "gateway", "--http", str(port), "--upstream", str(dead), "--timeout", "5s",
        address=f"127.0.0.1:{port}",
    )  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().status == 503  # nobody is there
    connection.close()
    assert f"scgi: http://127.0.0.1:{port} asks 127.0.0.1:{dead}" in process.log()
    assert process.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--http", "x"], ExitCode.USAGE, "--http: expected a port"),
        (["--timeout", "0"], ExitCode.USAGE, "--timeout: expected a time of more than 0 seconds"),
        (["--upstream", "systemd"], ExitCode.USAGE, "--upstream: expected HOST:PORT or unix:PATH, got 'systemd'"),
        (["--http", "systemd"], ExitCode.USAGE, "--http: expected HOST:PORT or unix:PATH, got 'systemd'"),
        (["--log-file", "/no/such/folder/x"], ExitCode.USAGE, "--log-file: /no/such/folder/x cannot be written: "),
    ],
)
def test_a_bad_value_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, sentence: str
) -> None:
    assert run(["gateway", *arguments]) == status
    printed = capsys.readouterr().err
    assert printed.startswith(f"scgi: {sentence}") and printed.count("\n") == 1


def test_an_address_in_use_is_one_line(launch: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = launch("-m", "scgi", "gateway", "--http", str(port))
        assert process.wait() == ExitCode.BOOT_FAILED
    assert process.log().strip() == (
        f"scgi: cannot listen on 127.0.0.1:{port}: the address is in use; stop what listens there or choose another"
    )
