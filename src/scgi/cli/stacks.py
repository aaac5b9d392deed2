"""`scgi stacks`: where the workers of a running server are in the application's code.

Imports `client`, `log`, `errors`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import click

from scgi.cli.running import control_of, running_server
from scgi.client.control import ask
from scgi.errors import ScgiError
from scgi.log import escape

_PATIENCE: Final = 60.0  # seconds; a worker takes half a second at most, and one is asked after the other


@click.command()
@running_server
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def stacks(as_json: bool, **options: Any) -> None:
    """Show where the workers of a running server are.

    Prints the stacks of all threads of all workers, and which requests they answer, for how long. Nobody is
    interrupted by it. ADDRESS is the first that the server listens at; where there is only one server, none is needed.
    """
    workers = []
    for message in ask(control_of(options), "stacks", _PATIENCE):
        if isinstance(message.get("worker"), dict):
            workers.append(message["worker"])
        if "done" in message:
            break
    else:
        raise ScgiError("the server ended before all its workers had answered")
    if as_json:
        click.echo(json.dumps({"workers": workers}, indent=2))
        return
    for worker in workers:
        for line in _lines(worker):
            click.echo(escape(line).encode("utf-8", "backslashreplace"))
    for number in message.get("silent") or ():
        click.echo(f"scgi: the pool of generation {escape(str(number))} does not answer", err=True)


def _lines(worker: dict[str, Any]) -> Iterator[str]:
    """One line for the worker, one for each request that it answers, then its stacks."""
    yield f"worker {worker['pid']}, generation {worker['generation']}: {worker['state']}"
    for one in worker["current"]:
        yield f"  {one['request']} for {one['age']:.1f} s ({one['id']})"
    for line in (worker["stacks"] or "no stack could be had").splitlines():
        yield f"    {line}"
