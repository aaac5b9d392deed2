"""Settings: where they come from, who wins, and what a person is told."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from scgi.config.settings import DEFAULT_LISTEN, ROWS, SECTIONS, Settings, default_max_workers, load
from scgi.errors import ConfigError
from scgi.net.address import Address


def problems_of(options: dict[str, object] | None = None, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(options or {}, environ or {})
    return caught.value.problems


def file_with(folder: Path, text: str) -> str:
    path = folder / "scgi.toml"
    path.write_text(text)
    return str(path)


def test_the_defaults_are_those_that_the_project_promises() -> None:
    settings = load({}, {})
    assert settings == Settings()
    assert settings.listen == (DEFAULT_LISTEN,)
    assert (settings.min_workers, settings.max_workers, settings.threads) == (1, default_max_workers(), 1)
    assert (settings.idle_timeout, settings.graceful_timeout, settings.backlog) == (30, 30, 2048)
    assert (settings.max_header, settings.max_variables, settings.max_body) == (1 << 20, 2000, 1 << 30)
    assert (settings.header_timeout, settings.body_timeout) == (10, 60)
    assert (settings.socket_mode, settings.require_scgi, settings.mount) == (0o660, True, None)


def test_every_row_has_a_section_and_a_sentence() -> None:
    assert {row.section for row in ROWS} == set(SECTIONS)
    assert all(row.help.endswith(".") and (row.metavar or row.is_flag) for row in ROWS)
    assert len(ROWS) == len(dataclasses.fields(Settings)) - 1  # all but `origins`


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = file_with(tmp_path, "min-workers = 2\nthreads = 2\nbacklog = 2\nmax-workers = 90\n")
    environ = {"SCGI_MIN_WORKERS": "3", "SCGI_THREADS": "3"}
    settings = load({"config": file, "min_workers": "4", "threads": None, "listen": ()}, environ)
    assert (settings.min_workers, settings.threads, settings.backlog) == (4, 3, 2)
    assert settings.source("min_workers") == "command line"
    assert settings.source("threads") == "SCGI_THREADS"
    assert settings.source("backlog") == f"{file}:3"
    assert settings.source("listen") == "default"


def test_lists_are_replaced_not_joined(tmp_path: Path) -> None:
    file = file_with(tmp_path, 'listen = ["4001", "4002"]\n')
    assert [str(one) for one in load({"config": file}, {}).listen] == ["127.0.0.1:4001", "127.0.0.1:4002"]
    assert [str(one) for one in load({"config": file, "listen": ("4003",)}, {}).listen] == ["127.0.0.1:4003"]


def test_the_environment_can_name_the_file(tmp_path: Path) -> None:
    file = file_with(tmp_path, "threads = 5\n")
    assert load({}, {"SCGI_CONFIG": file}).threads == 5
    other = tmp_path / "other.toml"
    other.write_text("threads = 6\n")
    assert load({"config": str(other)}, {"SCGI_CONFIG": file}).threads == 6


def test_a_file_that_nobody_named_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file_with(tmp_path, "threads = 5\n")
    monkeypatch.chdir(tmp_path)
    assert load({}, {}).threads == 1


def test_several_values_in_a_variable_are_separated_by_spaces() -> None:
    settings = load({}, {"SCGI_LISTEN": "4001 unix:/run/x.sock", "SCGI_ENV": "A=1 'B=two words'"})
    assert [str(one) for one in settings.listen] == ["127.0.0.1:4001", "unix:/run/x.sock"]
    assert settings.env == {"A": "1", "B": "two words"}
    assert problems_of({}, {"SCGI_ENV": "'A=1"}) == (
        "SCGI_ENV: expected words separated by spaces (No closing quotation)",
    )


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load({}, {"SCGI_THREADS": "", "SCGI_CONFIG": ""}) == Settings()


def test_file_keys_may_be_written_with_hyphens_or_underscores(tmp_path: Path) -> None:
    settings = load({"config": file_with(tmp_path, "max-workers = 9\nmin_workers = 3\n")}, {})
    assert (settings.min_workers, settings.max_workers) == (3, 9)
    file = file_with(tmp_path, "max-workers = 9\nmax_workers = 3\n")
    assert problems_of({"config": file}) == (f"{file}:2: max_workers: the same setting is on line 1 already",)


def test_a_table_in_the_file_is_as_good_as_a_list_for_env(tmp_path: Path) -> None:
    for text in ('env = ["A=1", "B=x=y"]', 'env = {A = "1", B = "x=y"}', '[env]\nA = 1\nB = "x=y"\n'):
        assert load({"config": file_with(tmp_path, text)}, {}).env == {"A": "1", "B": "x=y"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\n\nmax-workers = 'many'", ":3: max-workers: expected a whole number of at least 1, got 'many'"),
        ("max-workers = 2.5", ":1: max-workers: expected a whole number of at least 1, got 2.5"),
        ("max-workers = true", ":1: max-workers: expected a whole number of at least 1, got True"),
        ("# a\nmax-worker = 2", ":2: max-worker: there is no such setting; did you mean max-workers?"),
        ("[pool]\nmax-workers = 2", ":1: pool: there is no such setting"),
        ("check = true", ":1: check: this can be given on the command line only, as --check"),
        ("config = 'x'", ":1: config: this can be given on the command line only, as --config"),
        ("a = 1\nb = = 2", ":2: not valid TOML: Invalid value"),
        ("listen = []", ":1: listen: expected at least one address, got none"),
        (
            "listen = [4000, '127.0.0.1:4000']",
            ":1: listen: expected each address once, got 127.0.0.1:4000 twice",
        ),
        ("app = 7", ":1: app: expected module:attribute, module:factory() or path/to/file.py, got 7"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    file = file_with(tmp_path, text)
    found = problems_of({"config": file})
    assert len(found) == 1
    assert found[0].startswith(file + sentence)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    missing = str(tmp_path / "no.toml")
    assert problems_of({"config": missing}) == (
        f"{missing}: the settings file cannot be read: No such file or directory",
    )
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"a = '\xff'")
    assert problems_of({"config": str(binary)}) == (f"{binary}: not UTF-8 text (at byte 5)",)


def test_all_problems_are_shown_together(tmp_path: Path) -> None:
    file = file_with(tmp_path, "thread = 1\nlog-level = 'loud'\n")
    found = problems_of({"config": file, "min_workers": "many"}, {"SCGI_MAX_WORKER": "3", "SCGI_BACKLOG": "-1"})
    assert [sentence.removeprefix(file).split(" expected")[0] for sentence in found] == [
        ":1: thread: there is no such setting; did you mean threads?",
        ":2: log-level:",
        "SCGI_MAX_WORKER: there is no such setting; did you mean SCGI_MAX_WORKERS?",
        "SCGI_BACKLOG:",
        "--min-workers:",
    ]


def test_the_error_names_its_source_if_all_problems_share_it() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"threads": "x", "backlog": "y"}, {})
    assert caught.value.source == "command line"
    with pytest.raises(ConfigError) as caught:
        load({"threads": "x"}, {"SCGI_BACKLOG": "y"})
    assert caught.value.source == ""


@pytest.mark.parametrize(
    "name", ["SCGI_PORT", "SCGI_SERVICE_HOST", "SCGI_PORT_4000_TCP_ADDR", "SCGI_HTTP_PORT", "SCGI"]
)
def test_variables_that_container_platforms_set_are_left_alone(name: str) -> None:
    assert load({}, {name: "tcp://10.0.0.1:4000"}) == Settings()


@pytest.mark.parametrize("name", ["SCGI_MAX_WORKER", "SCGI_THREAD", "SCGI_LISTENS", "SCGI_APPS", "SCGI_MAXWORKERS"])
def test_a_variable_that_looks_like_a_typing_error_is_one(name: str) -> None:
    assert "there is no such setting; did you mean SCGI_" in problems_of({}, {name: "1"})[0]


def test_check_is_for_the_command_line_only() -> None:
    assert load({"check": True}, {}).check
    assert problems_of({}, {"SCGI_CHECK": "1"}) == (
        "SCGI_CHECK: this can be given on the command line only, as --check",
    )


def test_the_least_number_of_workers_cannot_exceed_the_most() -> None:
    assert problems_of({"min_workers": "5", "max_workers": "4"}) == (
        "--min-workers: expected min-workers to be at most max-workers, got 5 and 4",
    )
    assert problems_of({"max_workers": "4"}, {"SCGI_MIN_WORKERS": "5"}) == (
        "SCGI_MIN_WORKERS: expected min-workers to be at most max-workers, got 5 and 4",
    )


def test_the_computed_most_follows_the_least() -> None:
    assert load({"min_workers": "500"}, {}).max_workers == 500


def test_paths_that_cannot_work_are_refused_before_the_start(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "file"
    assert problems_of({"log_file": str(missing), "pid_file": str(tmp_path), "chdir": str(missing)}) == (
        f"--chdir: there is no folder {missing}",
        f"--log-file: the folder {missing.parent} does not exist",
        f"--pid-file: expected a file, but {tmp_path} is a folder",
    )
    assert problems_of({"pythonpath": (str(missing),)}) == (f"--pythonpath: there is no folder {missing}",)


def test_paths_start_where_the_command_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = load({"log_file": "a.log", "access_log": "-", "chdir": "lib", "pythonpath": ("lib",)}, {})
    assert settings.log_file == str(tmp_path / "a.log")
    assert settings.chdir == settings.pythonpath[0] == str(tmp_path / "lib")
    assert settings.access_log == "-"
    assert load({"log_file": "-"}, {}).log_file == ""


def test_http_needs_an_address_of_its_own() -> None:
    assert problems_of({"http": "4000"}) == (
        "--http: 127.0.0.1:4000 is for SCGI already (listen); HTTP needs one of its own",
    )
    assert problems_of({"http": "systemd"}) == (
        "--http: expected an address of its own; sockets from systemd are for SCGI",
    )
    assert load({"http": ""}, {"SCGI_HTTP": "8000"}).http is None


def test_sockets_from_systemd_are_the_default_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert load({}, {}).listen == (Address("systemd"),)
    assert load({"listen": ("4001",)}, {}).listen == (Address("tcp", "127.0.0.1", 4001),)
    monkeypatch.setenv("LISTEN_PID", "1")
    assert load({}, {}).listen == (DEFAULT_LISTEN,)


def test_keywords_take_what_python_has(tmp_path: Path) -> None:
    def app() -> None: ...

    settings = Settings.from_keywords(
        app=app,
        listen=4001,
        env={"A": 1},
        idle_timeout=2,
        socket_mode=0o600,
        log_file=tmp_path / "x",
        max_workers=None,
    )
    assert settings.app is app
    assert settings.listen == (Address("tcp", "127.0.0.1", 4001),)
    assert (settings.env, settings.idle_timeout, settings.socket_mode) == ({"A": "1"}, 2.0, 0o600)
    assert settings.log_file == str(tmp_path / "x")
    assert Settings.from_keywords(listen=["4001", Address("unix", path="/x")]).listen[1].path == "/x"


def test_keywords_may_name_a_file_and_win_over_it(tmp_path: Path) -> None:
    file = file_with(tmp_path, "threads = 2\nbacklog = 2\n")
    settings = Settings.from_keywords(config=file, threads=3)
    assert (settings.threads, settings.backlog) == (3, 2)
    assert settings.source("threads") == "keyword"


def test_keywords_do_not_look_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCGI_THREADS", "7")
    assert Settings.from_keywords().threads == 1


def test_a_misspelt_keyword_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_keywords(max_worker=3, min_workers="many", check=True)
    assert caught.value.problems == (
        "max_worker: there is no such setting; did you mean max_workers?",
        "check: there is no such setting",
        "min_workers: expected a whole number of at least 0, got 'many'",
    )
