"""Processes that the application forks: none answers, accepts, or keeps what is the worker's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from conftest import Serve
from support import Process, is_alive, is_listening, scgi_request, wait_until

PAGES = Path(__file__).parent / "fork_pages.py"
WAYS = [("app", ()), ("app", ("--threads", "2")), ("Handler", ()), ("Lent", ())]


def serve(scgi_serve: Serve, name: str, *options: str, listen: str = "") -> Process:
    return scgi_serve(f"{PAGES}:{name}", "--min-workers", "1", "--max-workers", "1", *options, listen=listen)


@pytest.mark.parametrize(("name", "options"), WAYS)
@pytest.mark.parametrize(
    ("path", "status", "line"),
    [
        ("/comes_back", 0, "came back from it and ends"),
        ("/exits", 7, ""),
        ("/fails", 1, "| ZeroDivisionError"),
        ("/ends_well", 9, ""),
    ],
)
def test_a_forked_process_that_comes_out_of_the_application_ends_without_a_second_answer(
    scgi_serve: Serve, tmp_path: Path, name: str, options: tuple[str, ...], path: str, status: int, line: str
) -> None:
    access = tmp_path / "access"
    server = serve(scgi_serve, name, "--access-log", str(access), *options)
    worker = int(scgi_request(server.address, path="/pid").text)
    child, ended = map(int, scgi_request(server.address, path=path).text.split())
    assert ended == status
    assert scgi_request(server.address, path="/pid").text == str(worker)
    assert line in server.log()
    assert ("WARNING" in server.log() or "ERROR" in server.log()) == bool(line)
    wait_until(lambda: len(access.read_text().splitlines()) >= 3)
    assert access.read_text().count(path) == 1
    assert server.workers() == [worker] and not is_alive(child)


def test_a_process_that_is_forked_after_a_complete_answer_leaves_no_line_in_the_access_log(
    scgi_serve: Serve, tmp_path: Path
) -> None:
    access = tmp_path / "access"
    server = serve(scgi_serve, "streamed", "--access-log", str(access))
    for _ in range(2):
        assert scgi_request(server.address, path="/comes_back").text == "all"
    wait_until(lambda: len(access.read_text().splitlines()) >= 2)
    assert len(access.read_text().splitlines()) == 2
    assert server.log().count("came back from it and ends") == 2


@pytest.mark.parametrize(("name", "options"), WAYS)
@pytest.mark.parametrize("several", [False, True])
def test_a_helper_that_runs_on_keeps_neither_the_connection_nor_the_listener(
    scgi_serve: Serve, short_tmp: Path, name: str, options: tuple[str, ...], several: bool
) -> None:
    more = ("--listen", f"unix:{short_tmp}/s") * several
    server = serve(scgi_serve, name, *options, *more)
    helper = int(scgi_request(server.address, path="/helper").text)  # reads to the end of file
    try:
        assert int(scgi_request(server.address, path="/pid").text) != helper
        assert server.stop() == 0
        assert is_alive(helper)
        assert not is_listening(server.address)
        again = serve(scgi_serve, name, *more, listen=server.address)
        assert scgi_request(again.address, path="/pid").status == 200
    finally:
        os.kill(helper, signal.SIGTERM)
        wait_until(lambda: not is_alive(helper), what="the helper to end by TERM")


def test_a_process_of_multiprocessing_works_and_can_be_terminated(scgi_serve: Serve) -> None:
    server = serve(scgi_serve, "app")
    assert scgi_request(server.address, path="/multi").text == f"True {-signal.SIGTERM}"
