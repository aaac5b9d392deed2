"""What is written down about settings is what they are."""

from __future__ import annotations

from pathlib import Path

from scgi.config.reference import effective, page
from scgi.config.settings import Settings, load

PAGE = Path(__file__).parents[2] / "docs/reference/settings.md"


def test_the_reference_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run: scgi config --reference > docs/reference/settings.md"


def test_effective_settings_read_back_as_the_same_settings(tmp_path: Path) -> None:
    given: dict[str, object] = {
        "app": "module:app",
        "listen": ("4001", "unix:/run/x y.sock", "[::1]:4002"),
        "http": "8000",
        "mount": "/",
        "env": ("A=1", 'B="\\ \x7f\té'),
        "pythonpath": (str(tmp_path),),
        "idle_timeout": "1.5",
        "graceful_timeout": "1000000h",
        "max_body": "1000",
        "max_header": "3k",
        "socket_mode": "0007",
        "require_scgi": False,
        "min_workers": "1234567",
        "log_file": str(tmp_path / "a.log"),
    }
    for options in (given, {}):
        settings = load(options, {})
        file = tmp_path / "scgi.toml"
        file.write_text(effective(settings))
        again = load({"config": str(file)}, {})
        assert again == Settings(**{**vars(settings), "config": str(file)})


def test_effective_settings_say_where_each_came_from() -> None:
    lines = effective(load({"threads": "2"}, {"SCGI_BACKLOG": "9"})).splitlines()
    assert [line.split() for line in lines if line.startswith(("threads", "backlog", "min-", "# mount"))] == [
        ["#", "mount:", "as", "the", "web", "server", "says", "#", "default"],
        ["backlog", "=", "9", "#", "SCGI_BACKLOG"],
        ["min-workers", "=", "1", "#", "default"],
        ["threads", "=", "2", "#", "command", "line"],
    ]
