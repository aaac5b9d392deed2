"""Recipes: real applications, set up as a page of docs/how-to says, behind real web servers (`make test-apps`).

::

    def test_it_answers(recipe):
        trac = recipe("trac")              # docs/how-to/trac.md, in an environment of requirements/trac.txt
        trac.run()                         # the page up to its first heading: the application is there
        trac.run("As a WSGI application")  # that section: it is served, behind the web servers shown there
        for web in trac.web.values(): ...

A page for which there is a test_NAME.py here is run by that and not by tests/house.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from recipes.environments import REQUIREMENTS, environment
from recipes.recipe import Recipe
from support import short_folder

StartRecipe = Callable[[str], Recipe]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test of an application waits until that is installed."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture
def recipe(tmp_path: Path) -> Iterator[StartRecipe]:
    """Without a file of requirements the page runs in the environment of the tests."""
    started: list[Recipe] = []
    with ExitStack() as stack:

        def start(name: str) -> Recipe:
            made = environment(name) if (REQUIREMENTS / f"{name}.txt").exists() else None
            folder = tmp_path / f"recipe-{len(started)}"
            folder.mkdir()
            machine = stack.enter_context(short_folder())
            started.append(Recipe(name, folder, machine, made, stack))
            return started[-1]

        try:
            yield start
            for one in started:
                print(f"--- log of the servers of {one.name} ---\n{one.log()}")
                one.stop()
        finally:
            for one in started:
                for server in one.servers:
                    server.kill()
                    print(f"--- log of {server.name} ---\n{server.log()}")
