"""Quixote's demonstration on its own SCGI server, which imports the reference's names, and as a WSGI application."""

from __future__ import annotations

import pytest

from recipes.conftest import StartRecipe
from recipes.visitor import Visitor


@pytest.mark.parametrize("form", ["Its own server", "As a WSGI application"])
def test_the_demonstration_is_served(recipe: StartRecipe, form: str) -> None:
    quixote = recipe("quixote")
    quixote.run()
    quixote.run(form)
    quixote.run("Behind nginx")
    visitor = Visitor(quixote.web["nginx"])
    first = visitor.get("/")
    assert first.status == 200 and "Quixote Demo" in first.text
    assert visitor.get("/simple").text == "<html><body>Hello!</body></html>"
    dumped = visitor.get("/dumpreq?name=Zo%C3%AB")
    assert dumped.status == 200 and "HTTPRequest Object" in dumped.text and "name=Zo%C3%AB" in dumped.text
    assert visitor.get("/nosuch").status == 404
