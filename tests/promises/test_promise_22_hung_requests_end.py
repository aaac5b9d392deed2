"""A hung application is ended at the request timeout; the client gets 504; all stacks are in the log, even where C code
held the interpreter."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from support import scgi_request, wait_until
from support.generations import workers_of
from support.room import Room
from timeouts.conftest import records

PAGES = Path(__file__).parents[1] / "timeouts" / "hung_pages.py"
SLACK = 1.0  # seconds after the timeout
KILLED = 6.0  # where the worker has to be killed


def hang(room: Room, page: str, *options: str) -> tuple[float, str]:
    """Ask a server of two workers for a page that hangs, which is answered 504: the seconds, and the log record."""
    (room.folder / "hung.py").write_bytes(PAGES.read_bytes())
    server = room.serve("hung.py", "--timeout", "2", *options, workers=2)
    before = workers_of(server)
    began = time.monotonic()
    answer = scgi_request(server.address, {"HTTP_X_REQUEST_ID": "order-22"}, path=page, within=30)
    seconds = time.monotonic() - began
    assert (answer.status, "order-22" in answer.text) == (504, True)
    assert scgi_request(server.address, path="/pid").status == 200
    end = "is killed: GET /hold" if page == "/hold" else f"RequestTimeout: .* GET {page}"
    (record,) = records(server, end)
    assert "order-22" in record and f"in {page[1:]}\n" in record
    wait_until(lambda: len(workers_of(server)) == 2)
    assert (workers_of(server) == before) == (page != "/hold")
    return seconds, record


@pytest.mark.parametrize("page", ["/spin", "/sleep", "/lock"])
def test_python_code_a_sleep_and_a_lock_are_interrupted_in_time_and_cost_no_worker(
    either_room: Room, page: str
) -> None:
    seconds, _ = hang(either_room, page)
    assert 2.0 <= seconds <= 2.0 + SLACK


def test_c_code_that_holds_the_interpreter_costs_its_worker_whose_stack_is_in_the_log(every_room: Room) -> None:
    seconds, record = hang(every_room, "/hold")
    assert 2.0 <= seconds <= 2.0 + KILLED
    assert "is killed: " in record


def test_in_a_thread_too_the_client_gets_504(either_room: Room) -> None:
    seconds, _ = hang(either_room, "/spin", "--threads", "3")
    assert 2.0 <= seconds <= 2.0 + SLACK
