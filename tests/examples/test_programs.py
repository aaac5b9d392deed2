"""The short programs, without a server: what they write for one request."""

import io
import runpy
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def produced(program: str, handler: str, query: str) -> str:
    """What the program's handler writes. `produce` needs nothing of the object it belongs to."""
    produce: Any = runpy.run_path(str(EXAMPLES / program))[handler].produce
    output = io.StringIO(newline="")
    produce(None, {"QUERY_STRING": query}, 0, io.BytesIO(), output)
    return output.getvalue()


def test_the_clock_tells_the_time() -> None:
    page = produced("clock.py", "Clock", "")
    assert page.startswith("Content-Type: text/plain\r\n\r\n")
    assert page.count(":") == 3  # the header's and the time's


def test_the_pizzeria_takes_an_order() -> None:
    assert "One hawaii and one beer" in produced("pizza.py", "Pizzeria", "pizza=hawaii&drink=beer")


@pytest.mark.parametrize(("query", "error"), [("", ValueError), ("pizza=hawaii", KeyError)])
def test_the_pizzeria_fails_without_one(query: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        produced("pizza.py", "Pizzeria", query)


def test_hello_is_a_wsgi_application() -> None:
    application: Any = runpy.run_path(str(EXAMPLES / "hello.py"))["application"]
    started: list[Any] = []
    assert b"process" in b"".join(application({}, lambda *args: started.extend(args)))
    assert started[0] == "200 OK"
