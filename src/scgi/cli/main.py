"""The command itself: finds the subcommand, and turns every error of ours into lines and an exit status.

Subcommands are imported when they are called, so that `scgi --help` and `scgi --version` are quick. This is
the only file that exits the process. It imports `errors`, `log` and, by name, the other files of `cli`.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from scgi.errors import AppLoadError, ConfigError, ExitCode, ListenError, MissingExtra, ScgiError, StartFailed

COMMANDS: Final = {
    "serve": "Serve an application to a web server.",
    "status": "Show what a running server does.",
    "stacks": "Show where the workers of a running server are.",
    "reload": "Have a running server load the application anew.",
    "stop": "Stop a running server.",
    "gateway": "Answer HTTP by asking an SCGI server.",
    "bench": "Load an SCGI server, and say how it did.",
    "config": "Print the settings that would hold, and where each comes from.",
}
INTERRUPTED: Final = 130  # what shells say of a program that Ctrl-C ended


class Commands(click.Group):
    """Subcommands by name: `name` is the attribute `name` of the module scgi.cli.`name`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        found = getattr(importlib.import_module(f"scgi.cli.{name}"), name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"there is no command {name!r}{hint}", ctx)
        return super().resolve_command(ctx, args)


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        import platform

        import scgi

        _warn_if_mixed()
        python = f"{platform.python_implementation()} {platform.python_version()}"
        click.echo(f"scgi-server {getattr(scgi, '__version__', 'unknown')} ({python})")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version and Python's.",
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """An SCGI server: a pool of workers that answers what a web server forwards."""
    if ctx.invoked_subcommand != "serve":  # which refuses
        _warn_if_mixed()


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status. Whatever is wrong is on standard error when it returns."""
    try:
        status: Any = command.main(arguments, prog_name="scgi", standalone_mode=False)
    except click.UsageError as error:
        _say(error.format_message())
        if error.ctx is not None:
            _say(f"try '{error.ctx.command_path} --help'")
        return ExitCode.USAGE
    except click.ClickException as error:
        _say(error.format_message())
        return ExitCode.FAILED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except ScgiError as error:
        return _report(error)
    return status if isinstance(status, int) else ExitCode.OK


def main() -> NoReturn:
    sys.exit(run())


def _report(error: ScgiError) -> int:
    if traceback := getattr(error, "traceback", ""):  # of the application's own code
        from scgi.log import escape

        for line in traceback.splitlines():
            click.echo(escape(line), err=True)
    for sentence in error.problems if isinstance(error, ConfigError) else [str(error)]:
        _say(sentence)
    return _status(error)


def _status(error: ScgiError) -> int:
    match error:
        case ConfigError():
            return ExitCode.USAGE if error.source == "command line" else ExitCode.CONFIG
        case AppLoadError():
            return ExitCode.APP_UNLOADABLE
        case StartFailed():
            return error.status
        case ListenError():
            return ExitCode.BOOT_FAILED
        case MissingExtra():
            return ExitCode.CONFIG
    return int(getattr(error, "status", ExitCode.FAILED))  # a server that could not start knows its own


def _warn_if_mixed() -> None:
    from scgi.cli.neighbour import mixed_folder

    if sentence := mixed_folder():
        _say(f"warning: {sentence}")


def _say(sentence: str) -> None:
    click.echo(f"scgi: {sentence}", err=True)
