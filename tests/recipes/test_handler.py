"""A handler for the reference package in its three forms, behind nginx; `scgi serve` runs the same files."""

from __future__ import annotations

import pytest

from recipes.conftest import StartRecipe
from recipes.visitor import Visitor

FORMS = {"produce": "produce()", "cgilike": "produce_cgilike()", "connection": "handle_connection()"}


@pytest.mark.parametrize("name", FORMS)
def test_the_page_runs_and_so_does_scgi_serve(recipe: StartRecipe, name: str) -> None:
    handler = recipe("handler")
    handler.run("produce()")  # nginx is told there
    handler.stop()
    handler.run(FORMS[name])
    handler.stop()
    handler.serve(handler.local(f"scgi serve --listen 127.0.0.1:4000 {name}.py"), "")
    visitor = Visitor(handler.web["nginx"])
    long = "ü" * 100_000
    assert visitor.post("/", {"name": long}).text.endswith(f"hello name={'%C3%BC' * 100_000}\n")
    assert visitor.get("/").text.endswith("hello nobody\n")
    assert visitor.get("/", method="HEAD").body == b""
