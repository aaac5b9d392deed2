"""`scgi bench`: the command, against servers of ours; tests/client/test_load.py is about what becomes of a request."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Serve
from scgi.cli.main import run
from scgi.errors import ExitCode
from support import Process, children_of, free_port, wait_until

APP = """
import time

def application(environ, start_response):
    length = len(environ["wsgi.input"].read())
    status = environ["PATH_INFO"].strip("/") or "200"
    start_response(f"{status} Said", [("Content-Type", "text/plain")])
    given = [environ.get(name) for name in ("CONTENT_TYPE", "HTTP_X_COLOUR", "SHOP")]
    return [" ".join(map(str, (environ["REQUEST_METHOD"], length, *given))).encode()]
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path / "app.py"


@pytest.fixture(params=["unix", "tcp"])
def server(request: pytest.FixtureRequest, app: Path, short_tmp: Path, scgi_serve: Serve) -> Iterator[Process]:
    yield scgi_serve(app, listen=f"unix:{short_tmp}/s" if request.param == "unix" else "")


def scgi(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scgi", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def bench(*words: str) -> dict[str, Any]:
    """What it says as JSON, with its exit status."""
    done = scgi("bench", "--json", "-", *words)
    assert done.stderr == "", done.stderr
    return {**json.loads(done.stdout), "exit status": done.returncode}


def requests_of(server: Process) -> int:
    """How many the server itself has counted."""
    counters = json.loads(scgi("status", "--json", server.address).stdout)["counters"]
    return int(counters["requests"])


def test_it_counts_what_the_server_counts(server: Process) -> None:
    found = bench("-n", "500", "-c", "8", server.address)
    assert (found["answered"], found["failed"], found["exit status"]) == (500, 0, 0)
    assert found["statuses"] == {"200": 500} and found["ok"] is True and found["failures"] == {}
    assert requests_of(server) == 500
    found = bench("-d", "0.3", "-c", "8", "--processes", "2", server.address)
    assert found["seconds"] >= 0.3 and found["answered"] > 2 and found["failed"] == 0
    assert requests_of(server) == 500 + found["answered"]


def test_the_json_has_what_the_page_says(server: Process) -> None:
    words = ("-n", "50", "--rate", "500", "--data", "abc", "--uri", "/404?a=1", "--timeout", "20s")
    found = bench(*words, server.address)
    del found["exit status"]
    expected = {
        "address": server.address, "method": "POST", "uri": "/404?a=1", "concurrency": 10, "rate": 500.0,
        "processes": 1, "ok": True, "interrupted": False, "answered": 50, "failed": 0, "unfinished": 0, "unsent": 0,
        "waited": 0, "statuses": {"404": 50}, "failures": {},
    }  # fmt: skip
    assert expected.items() <= found.items()
    page = (Path(__file__).parents[2] / "docs/reference/command-line.md").read_text()
    assert all(f"`{name}`" in page for name in found)
    assert found["seconds"] >= 0.098 and found["answered_per_second"] == pytest.approx(50 / found["seconds"])
    assert found["bytes_sent"] > 50 * 300 and found["bytes_received"] > 50 * 40 and found["cpu"] > 0
    latency = found["latency"]
    order = [latency[name] for name in ("min", "p50", "p90", "p99", "p99.9", "max")]
    assert order[0] > 0 and order == sorted(order) and latency["min"] <= latency["mean"] <= latency["max"]
    assert sum(row["requests"] for row in found["histogram"]) == 50
    assert found["histogram"][-1]["up_to"] >= latency["max"]


def test_what_is_asked_for_is_what_arrives(server: Process) -> None:
    def size_of_answer(*words: str) -> int:
        found = bench("-n", "1", *words, server.address)
        assert found["answered"] == 1
        return int(found["bytes_received"])

    least = size_of_answer() - len("GET 0  None None")
    assert size_of_answer("--method", "delete") == least + len("DELETE 0  None None")
    assert size_of_answer("--header", "x-colour: red", "--header", "X-Colour: blue") == (
        least + len("GET 0  red, blue None")
    )
    assert size_of_answer("--var", "SHOP=open", "--same") == least + len("GET 0  None open")
    assert size_of_answer("--data-size", "3m") == least + len("POST 3145728 application/octet-stream None None")
    file = Path(__file__)
    assert size_of_answer("--data", f"@{file}", "--header", "Content-Type: text/x-python") == (
        least + len(f"POST {file.stat().st_size} text/x-python None None")
    )


def test_people_get_lines_and_a_file_gets_the_same_figures(server: Process, tmp_path: Path) -> None:
    done = scgi("bench", "-n", "300", "--json", str(tmp_path / "figures"), server.address)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    figures = json.loads((tmp_path / "figures").read_text())
    assert lines[0] == f"{server.address}: GET /, 10 at a time, for {figures['seconds']:.1f} s"
    assert lines[1] == f"  300 answered, {figures['answered_per_second']:,.1f} a second: 300 of status 200"
    assert lines[2] == "  0 failed"
    assert lines[6] == "milliseconds until the answer was whole"
    assert lines[7].split() == list(figures["latency"])
    for shown, seconds in zip(lines[8].split(), figures["latency"].values(), strict=True):
        assert float(shown.replace(",", "")) == pytest.approx(seconds * 1000, rel=0.01, abs=0.001)
    bars = [line.split() for line in lines[10 : 10 + len(figures["histogram"])]]
    assert [int(bar[3]) for bar in bars] == [row["requests"] for row in figures["histogram"]]
    assert max(len(bar[4]) for bar in bars if len(bar) > 4) == 40


def test_a_status_of_500_or_more_is_an_exit_status_of_1(server: Process) -> None:
    done = scgi("bench", "-n", "3", "--uri", "/503", server.address)
    assert done.returncode == ExitCode.FAILED and "  3 answered, " in done.stdout
    assert done.stdout.splitlines()[1].endswith(": 3 of status 503")
    assert bench("-n", "3", "--uri", "/499", server.address)["exit status"] == ExitCode.OK


def test_requests_that_fail_are_told_with_their_reason_and_exit_status_1() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = scgi("bench", "-n", "2", "--timeout", "100ms", f"127.0.0.1:{silent.getsockname()[1]}")
    assert (done.returncode, done.stderr) == (ExitCode.FAILED, "")
    lines = done.stdout.splitlines()
    assert lines[1:4] == ["  0 answered, 0.0 a second", "  2 failed", "    2 timed-out: no whole answer within 0.1 s"]
    assert len(lines) == 6  # no latencies


@pytest.mark.parametrize("processes", ["1", "3"])
def test_ctrl_c_ends_it_with_the_figures_so_far(server: Process, launch: Any, processes: str) -> None:
    words = ("--duration", "1h", "--processes", processes, server.address)
    process = launch("-m", "scgi", "bench", *words)
    wait_until(lambda: requests_of(server) > 100)
    assert process.running()
    process.signal(signal.SIGINT)
    assert process.wait() == ExitCode.OK
    lines = process.log().splitlines()
    assert lines[0].startswith(f"{server.address}: GET /, 10 at a time, for ") and "  0 failed" in lines
    assert "interrupted, with " in process.log() and "Traceback" not in process.log()


def test_its_processes_end_with_it(app: Path, scgi_serve: Serve, launch: Any) -> None:
    server = scgi_serve(app)
    process = launch("-m", "scgi", "bench", "-d", "1h", "--processes", "3", server.address)
    wait_until(lambda: len(children_of(process.pid)) == 3 and requests_of(server) > 10)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.assert_nothing_left()


def test_a_rate_that_cannot_be_kept_is_told(app: Path, tmp_path: Path, scgi_serve: Serve) -> None:
    app.write_text(APP.replace("length =", "time.sleep(0.3); length ="))
    server = scgi_serve(app)
    done = scgi("bench", "-d", "0.2", "--rate", "100", "-c", "1", server.address)
    assert done.returncode == ExitCode.OK
    assert "10 at a time" not in done.stdout and "1 at a time, 100 a second, for " in done.stdout
    assert "milliseconds until the answer was whole, since they were due" in done.stdout
    assert done.stdout.endswith("\n19 were due and not begun, because as many as --concurrency allows were under way\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-c", "0", "4000"], "--concurrency: expected a whole number of at least 1, got '0'"),
        (["-n", "x", "4000"], "--requests: expected a whole number of at least 1, got 'x'"),
        (["-d", "0", "4000"], "--duration: expected a time of more than 0 seconds (30, 1.5, 30s, 2m), got '0'"),
        (["-d", "1", "-n", "1", "4000"], "--requests: expected either this or --duration, got both"),
        (["--data", "a", "--data-size", "1", "4000"], "--data-size: expected either this or --data, got both"),
        (["--data", "@/no/such", "4000"], "--data: /no/such cannot be read: No such file or directory"),
        (["--rate", "0", "4000"], "--rate: expected a number of more than 0 (100, 0.5), got '0'"),
        (["--rate", "-1", "4000"], "--rate: expected a number of more than 0 (100, 0.5), got '-1'"),
        (["--method", "G T", "4000"], "--method: expected a method such as GET, got 'G T'"),
        (["--uri", "shop", "4000"], "--uri: expected a path and query such as /shop?item=1, percent-encoded,"
         " got 'shop'"),
        (["--header", "X", "4000"], "--header: expected 'Name: value', got 'X'"),
        (["--header", "X: a\nb", "4000"], "--header: expected 'Name: value', got 'X: a\\nb'"),
        (["--header", "content-length: 1", "4000"], "--header: the length is that of --data or --data-size"),
        (["--var", "X", "4000"], "--var: expected NAME=VALUE, got 'X'"),
        (["--var", "SCGI=1", "4000"], "--var: the variable SCGI is there twice"),
        (["--processes", "11", "4000"], "--processes: expected at most --concurrency, 10, got 11"),
        (["--json", "/no/such/file", "4000"], "--json: /no/such/file cannot be written: No such file or directory"),
        (["::1:1"], "ADDRESS: expected a port (4000), HOST:PORT, [IPV6]:PORT, unix:PATH, a path, or 'systemd',"
         " got '::1:1' (an IPv6 address goes into brackets: [::1]:1)"),
        (["systemd"], "ADDRESS: expected HOST:PORT or unix:PATH, got 'systemd'"),
    ],
)  # fmt: skip
def test_a_bad_option_is_one_line(capsys: pytest.CaptureFixture[str], words: list[str], sentence: str) -> None:
    assert run(["bench", *words]) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"scgi: {sentence}\n")


def test_without_an_address_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench"]) == ExitCode.USAGE
    assert capsys.readouterr().err == "scgi: Missing argument 'ADDRESS'.\nscgi: try 'scgi bench --help'\n"


def test_a_server_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert run(["bench", str(port)]) == ExitCode.FAILED
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"scgi: no server listens at 127.0.0.1:{port}\n")


def test_figures_that_cannot_be_written_are_one_line(server: Process, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "-n", "1", "--json", "/dev/full", server.address]) == ExitCode.FAILED
    printed = capsys.readouterr()
    assert "1 answered" in printed.out
    assert printed.err == "scgi: /dev/full cannot be written: No space left on device\n"


def test_without_fork_it_says_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delattr(os, "fork")
    assert run(["bench", "4000"]) == ExitCode.FAILED
    assert capsys.readouterr().err == (
        "scgi: bench needs fork, which this system does not have; run it on Linux, or in WSL\n"
    )
