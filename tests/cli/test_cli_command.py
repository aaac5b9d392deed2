"""The command as a person meets it: what it prints, and its exit status."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import scgi
from scgi.cli import main as cli
from scgi.errors import AppLoadError, ConfigError, ExitCode, ListenError, MissingExtra, ScgiError


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SCGI_")}
    return subprocess.run(
        [sys.executable, "-m", "scgi", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**kept, **environ},
    )


def told(*arguments: str, **environ: str) -> tuple[int, list[str]]:
    """Exit status and lines of standard error; nothing may be on standard output, and no traceback."""
    done = command(*arguments, **environ)
    assert done.stdout == "" and "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()


def test_version_names_the_project_and_python() -> None:
    done = command("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"scgi-server {scgi.__version__} (CPython 3.")


def test_help_names_every_command_and_imports_none() -> None:
    assert all(name in command("--help").stdout for name in cli.COMMANDS)
    program = (
        "import sys; from scgi.cli.main import run; run(['--help']);"
        "print([name for name in sys.modules if name.startswith(('scgi.config', 'scgi.gateway', 'asyncio'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_each_command_has_help_that_says_what_the_overview_says(name: str) -> None:
    done = command(name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: scgi {name} [OPTIONS]")


def test_help_of_serve_lists_every_option_by_section() -> None:
    lines = command("serve", "--help").stdout.splitlines()
    from scgi.config.settings import ROWS, SECTIONS

    assert [line[:-1] for line in lines if line[:-1] in SECTIONS] == list(SECTIONS)
    text = "\n".join(lines)
    assert all(row.option in text for row in ROWS)


def test_a_misspelt_command_gets_a_suggestion() -> None:
    assert told("serv") == (
        ExitCode.USAGE,
        ["scgi: there is no command 'serv'; did you mean 'serve'?", "scgi: try 'scgi --help'"],
    )
    assert told("xyzzy") == (ExitCode.USAGE, ["scgi: there is no command 'xyzzy'", "scgi: try 'scgi --help'"])


def test_a_misspelt_option_gets_a_suggestion() -> None:
    status, lines = told("serve", "--max-worker", "3", "app:app")
    assert status == ExitCode.USAGE
    assert "--max-workers" in lines[0]
    assert lines[1:] == ["scgi: try 'scgi serve --help'"]


def test_serve_without_an_application_says_how_to_name_one() -> None:
    status, lines = told("serve")
    assert status == ExitCode.USAGE
    assert lines[0] == (
        "scgi: no application to serve: name one, as in 'scgi serve module:attribute' or 'scgi serve file.py', "
        "or programs: 'scgi serve --cgi cgi-bin'"
    )


def test_a_bad_value_on_the_command_line_is_a_matter_of_usage() -> None:
    assert told("serve", "app:app", "--max-workers", "many", "--idle-timeout", "0") == (
        ExitCode.USAGE,
        [
            "scgi: --max-workers: expected a whole number of at least 1, got 'many'",
            "scgi: --idle-timeout: expected a time of more than 0 seconds (30, 1.5, 30s, 2m), got '0'",
        ],
    )


def test_a_bad_value_elsewhere_is_a_matter_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "scgi.toml").write_text("app = 'app:app'\nthread = 1\n")
    file = str(tmp_path / "scgi.toml")
    assert told("serve", "--config", file, SCGI_BACKLOG="x") == (
        ExitCode.CONFIG,
        [
            f"scgi: {file}:2: thread: there is no such setting; did you mean threads?",
            "scgi: SCGI_BACKLOG: expected a whole number of at least 1, got 'x'",
        ],
    )


def test_config_prints_effective_settings_and_where_each_comes_from(tmp_path: Path) -> None:
    (tmp_path / "scgi.toml").write_text("threads = 2\n")
    file = str(tmp_path / "scgi.toml")
    done = command("config", "app:app", "--config", file, "--no-require-scgi", SCGI_BACKLOG="9")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert 'app = "app:app" # command line' in lines
    assert f"threads = 2 # {file}:1" in lines
    assert "backlog = 9 # SCGI_BACKLOG" in lines
    assert "require-scgi = false # command line" in lines
    assert "min-workers = 1 # default" in lines


def test_config_prints_the_reference_page() -> None:
    page = Path(__file__).parents[2] / "docs/reference/settings.md"
    assert command("config", "--reference").stdout == page.read_text()


# -- errors and exit statuses, without a process of their own ----------------------------------------


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException | int]]:
    """A subcommand `serve` that raises, or returns, what is put into the list."""
    outcome: list[BaseException | int] = []

    @click.command()
    def serve() -> int:
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    monkeypatch.setitem(sys.modules, "scgi.cli.serve", types.SimpleNamespace(serve=serve))
    yield outcome


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (ConfigError("wrong", source="scgi.toml:7"), ExitCode.CONFIG, ["scgi: scgi.toml:7: wrong"]),
        (ConfigError("", problems=("one", "two")), ExitCode.CONFIG, ["scgi: one", "scgi: two"]),
        (AppLoadError("app.py cannot be loaded"), ExitCode.APP_UNLOADABLE, ["scgi: app.py cannot be loaded"]),
        (
            AppLoadError("app.py raised", traceback="Traceback:\n  theirs\n"),
            ExitCode.APP_UNLOADABLE,
            ["Traceback:", "  theirs", "scgi: app.py raised"],
        ),
        (ListenError("the address is in use"), ExitCode.BOOT_FAILED, ["scgi: the address is in use"]),
        (
            MissingExtra("http", "the gateway"),
            ExitCode.CONFIG,
            ["scgi: the gateway needs an optional part: pip install 'scgi-server[http]'"],
        ),
        (ScgiError("so it is"), ExitCode.FAILED, ["scgi: so it is"]),
        (click.ClickException("so click says"), ExitCode.FAILED, ["scgi: so click says"]),
    ],
)
def test_an_error_of_ours_is_a_line_or_a_few_and_an_exit_status(
    failing: list[BaseException | int],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    status: int,
    lines: list[str],
) -> None:
    failing.append(error)
    assert cli.run(["serve"]) == status
    assert capsys.readouterr().err.splitlines() == lines


def test_ctrl_c_is_130_and_no_word(failing: list[BaseException | int], capsys: pytest.CaptureFixture[str]) -> None:
    failing.append(KeyboardInterrupt())
    assert cli.run(["serve"]) == 130
    assert capsys.readouterr().err.strip() == ""


def test_the_status_of_the_server_is_that_of_the_command(failing: list[BaseException | int]) -> None:
    failing.append(3)
    with pytest.raises(SystemExit) as caught:
        sys.argv, before = ["scgi", "serve"], sys.argv
        try:
            cli.main()
        finally:
            sys.argv = before
    assert caught.value.code == 3


def test_without_fork_serve_says_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(os, "fork")
    assert cli.run(["serve", "app:app"]) == ExitCode.FAILED
    assert capsys.readouterr().err == (
        "scgi: serve needs fork, which this system does not have; run it on Linux, or in WSL\n"
    )


# -- the reference's own distribution beside ours -----------------------------------------------------


@pytest.fixture
def neighbour(monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if `scgi` 2.2 were installed in our folder."""
    folder = Path(scgi.__file__).parent.parent
    other = types.SimpleNamespace(version="2.2", locate_file=lambda name: folder / name)
    real = importlib.metadata.distribution
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: other if name == "scgi" else real(name))
    return folder / "scgi"


def test_serve_refuses_to_run_mixed_with_the_references_files(
    neighbour: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["serve", "app:app"]) == ExitCode.FAILED
    assert capsys.readouterr().err == (
        f"scgi: the package 'scgi' 2.2 is installed in the same folder as 'scgi-server' ({neighbour}), and their files"
        " are mixed; run: pip uninstall -y scgi scgi-server && pip install scgi-server\n"
    )


@pytest.mark.parametrize("arguments", [["--version"], ["config"]])
def test_other_commands_warn_and_go_on(
    neighbour: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert cli.run(arguments) == ExitCode.OK
    printed = capsys.readouterr()
    assert printed.out
    assert printed.err.startswith("scgi: warning: the package 'scgi' 2.2 is installed in the same folder")
    assert len(printed.err.splitlines()) == 1


def test_a_reference_in_another_folder_is_nobodys_business(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scgi").mkdir()
    for locate in (lambda name: tmp_path / name, lambda name: tmp_path / "gone"):
        other = types.SimpleNamespace(version="2.2", locate_file=locate)
        monkeypatch.setattr(importlib.metadata, "distribution", lambda name, other=other: other)
        assert cli.run(["--version"]) == 0
        assert capsys.readouterr().err == ""
