"""The watcher in a process of its own, as `--reload` runs it, and files that are really changed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scgi.errors import ConfigError, MissingExtra
from scgi.supervisor.watcher import folders_to_watch, look, require_watchfiles
from support import Process, wait_until

# Writes a line for each call of `changed`.
PROGRAM = """
import sys
from pathlib import Path
from scgi import log
from scgi.supervisor.watcher import watch_files

log.setup()
print("begins", flush=True)
sys.exit(watch_files([Path(folder) for folder in sys.argv[1:]], lambda paths: print("changed", *paths, flush=True)))
"""


class Watcher:
    def __init__(self, process: Process) -> None:
        self.process = process
        self._read = 0
        wait_until(lambda: "begins" in process.log(), what="the watcher's start")

    def calls(self) -> list[set[str]]:
        """What `changed` was called with so far."""
        lines = self.process.log().splitlines()
        return [{Path(path).name for path in line.split()[1:]} for line in lines if line.startswith("changed ")]

    def tells(self, *names: str) -> bool:
        """Whether all of these were told since the last time that this was true."""
        calls = self.calls()
        found = set().union(*calls[self._read :])
        if found >= set(names):
            self._read = len(calls)
            return True
        return False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "hello.py").write_text("old")
    return folder


@pytest.fixture
def watch(launch: Callable[..., Process]) -> Iterator[Callable[..., Watcher]]:
    if not importlib.util.find_spec("watchfiles"):
        pytest.fail("watchfiles is not installed: pip install 'scgi-server[reload]'")
    running = []

    def watch(*folders: Path, **options: object) -> Watcher:
        watcher = Watcher(launch("-c", PROGRAM, *folders, **options))
        running.append(watcher.process)
        return watcher

    yield watch
    for process in running:
        if process.running():
            assert process.stop() == -signal.SIGTERM


def settle(watcher: Watcher, folder: Path) -> None:
    """Until the watch is set up, and a change is told."""

    def told() -> bool:
        (folder / "settled.py").write_text(str(time.monotonic()))
        return watcher.tells("settled.py")

    wait_until(told, what="the first change to be told")


def test_a_change_is_told_that_came_before_the_watch_was_set_up(launch: Callable[..., Process], folder: Path) -> None:
    while_it_begins = f"""
import watchfiles
watch = watchfiles.watch
def late(*places, **options):
    Path({str(folder / "hello.py")!r}).write_text("new")
    watchfiles.watch = watch
    return watch(*places, **options)
watchfiles.watch = late
"""
    begins = "log.setup()"
    watcher = Watcher(launch("-c", PROGRAM.replace(begins, begins + while_it_begins), folder))
    wait_until(lambda: watcher.tells("hello.py"))


def test_a_change_is_told_that_came_since_an_earlier_look(launch: Callable[..., Process], folder: Path) -> None:
    changes_first = f"""
from scgi.supervisor import watcher
since = watcher.look([Path(folder) for folder in sys.argv[1:]])
Path({str(folder / "hello.py")!r}).write_text("new")
def watch_files(folders, changed):
    return watcher.watch_files(folders, changed, since)
"""
    begins = "log.setup()"
    watcher = Watcher(launch("-c", PROGRAM.replace(begins, begins + changes_first), folder))
    wait_until(lambda: watcher.tells("hello.py"))
    settle(watcher, folder)


def test_changed_new_renamed_and_removed_files_are_told(watch: Callable[..., Watcher], folder: Path) -> None:
    watcher = watch(folder)
    settle(watcher, folder)
    (folder / "hello.py").write_text("new")
    wait_until(lambda: watcher.tells("hello.py"))
    (folder / "pages").mkdir()
    (folder / "pages/index.py").write_text("")
    wait_until(lambda: watcher.tells("index.py"))
    (folder / "pages/index.py").rename(folder / "pages/front.py")
    wait_until(lambda: watcher.tells("front.py"))
    (folder / "hello.py").unlink()
    wait_until(lambda: watcher.tells("hello.py"))


def test_a_wsgi_file_is_code_too(watch: Callable[..., Watcher], folder: Path) -> None:
    watcher = watch(folder)
    settle(watcher, folder)
    (folder / "site.wsgi").write_text("application = None")
    wait_until(lambda: watcher.tells("site.wsgi"), 10, "site.wsgi to be told")


def test_an_editor_that_replaces_the_file_has_changed_it(watch: Callable[..., Watcher], folder: Path) -> None:
    watcher = watch(folder)
    settle(watcher, folder)
    (folder / ".hello.py.tmp").write_text("new")
    os.replace(folder / ".hello.py.tmp", folder / "hello.py")
    wait_until(lambda: watcher.tells("hello.py"))


def test_only_the_applications_own_python_files_count(watch: Callable[..., Watcher], folder: Path) -> None:
    places = ["__pycache__", ".git", ".venv/lib", "node_modules/x", "env/lib/python3.11/site-packages/flask"]
    for place in places:
        (folder / place).mkdir(parents=True)
    watcher = watch(folder)
    settle(watcher, folder)
    for place in places:
        (folder / place / "aside.py").write_text("new")
    for name in ("page.html", "data.json", "hello.pyc", "hello.py~", ".#hello.py", "log"):
        (folder / name).write_text("new")
    (folder / "hello.py").write_text("new")
    wait_until(lambda: watcher.tells("hello.py"))
    assert set().union(*watcher.calls()) == {"settled.py", "hello.py"}


def test_a_folder_that_is_watched_may_itself_be_hidden(watch: Callable[..., Watcher], tmp_path: Path) -> None:
    folder = tmp_path / ".local/site-packages/app"
    folder.mkdir(parents=True)
    watcher = watch(folder)
    settle(watcher, folder)


def test_a_folder_that_may_not_be_read_does_not_stop_the_watch_of_others(
    launch: Callable[..., Process], short_tmp: Path
) -> None:
    for name in ("data", "pages"):
        (short_tmp / name).mkdir()
    os.chmod(short_tmp / "data", 0)
    # Root may read everything, so it becomes nobody; once all is imported, for that may be where nobody can read.
    drop = "import os, platform, watchfiles\nif os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    watcher = Watcher(launch("-c", PROGRAM.replace("log.setup()", drop), short_tmp))
    settle(watcher, short_tmp / "pages")


def test_a_folder_that_is_made_anew_is_watched_again(watch: Callable[..., Watcher], folder: Path) -> None:
    (folder / "pages").mkdir()
    watcher = watch(folder)
    settle(watcher, folder / "pages")
    shutil.rmtree(folder / "pages")
    (folder / "pages").mkdir()
    settle(watcher, folder / "pages")
    (folder / "pages").rename(folder / "elsewhere")
    settle(watcher, folder / "elsewhere")


def test_links_to_folders_are_followed_and_those_that_lead_back_do_no_harm(
    watch: Callable[..., Watcher], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/back").symlink_to(folder)
    (folder / "library").symlink_to(tmp_path / "library")
    (folder / "again").symlink_to(folder)
    (folder / "nowhere").symlink_to(tmp_path / "missing")
    watcher = watch(folder)
    settle(watcher, tmp_path / "library")


def test_a_folder_inside_of_another_is_watched_even_if_it_is_hidden_there(
    watch: Callable[..., Watcher], folder: Path
) -> None:
    for name in (".parts", "lib"):
        (folder / name).mkdir()
    watcher = watch(*folders_to_watch(str(folder), "hello", (".parts", "lib")))
    settle(watcher, folder / ".parts")
    settle(watcher, folder / "lib")


def test_what_changes_together_is_told_together(watch: Callable[..., Watcher], folder: Path) -> None:
    watcher = watch(folder)
    settle(watcher, folder)
    before = len(watcher.calls())
    for number in range(200):
        (folder / f"part{number}.py").write_text("new")
    wait_until(lambda: watcher.tells(*(f"part{number}.py" for number in range(200))))
    assert len(watcher.calls()) - before <= 3


def test_term_ends_it_at_once(watch: Callable[..., Watcher], folder: Path) -> None:
    watcher = watch(folder)
    assert watcher.process.stop(within=0.5) == -signal.SIGTERM


def test_a_folder_that_is_not_there_is_one_line_in_the_log(launch: Callable[..., Process], tmp_path: Path) -> None:
    process = launch("-c", PROGRAM, tmp_path / "gone")
    assert process.wait() == 1
    _, line = process.log().splitlines()
    assert f"cannot watch {tmp_path / 'gone'}: [Errno 2] No such file" in line


def test_a_system_without_watches_left_is_one_line_that_says_what_to_do(
    launch: Callable[..., Process], folder: Path
) -> None:
    limit = "echo 1 > /proc/sys/user/max_inotify_watches"
    command = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    if subprocess.run([*command, limit], capture_output=True).returncode:
        pytest.skip("this system lets nobody make a user namespace with limits of its own")
    (folder / "pages").mkdir()
    in_namespace = f"import os, sys; os.execvp({command[0]!r}, {command!r} + sys.argv[1:])"
    run = f'{limit}; exec "$0" -c "$1" "$2"'
    process = launch("-c", in_namespace, run, sys.executable, PROGRAM, folder)
    assert process.wait() == 1
    _, line = process.log().splitlines()
    assert "watch limit reached. Raise fs.inotify.max_user_watches with sysctl." in line


# Where to look


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("srv/lib", "other/deep", "apps"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "srv")
    return tmp_path


@pytest.mark.parametrize(
    ("chdir", "app", "pythonpath", "found"),
    [
        ("", "hello:app", (), ["srv"]),
        ("../other", "hello:app", (), ["other"]),
        ("", "../apps/hello.py", (), ["apps", "srv"]),
        ("", "../apps/hello.py:application", (), ["apps", "srv"]),
        ("", "../apps/hello.wsgi", (), ["apps", "srv"]),
        ("../other", "deep/hello.py", (), ["other", "other/deep"]),
        ("", "hello", ("lib",), ["srv", "srv/lib"]),
        ("", "hello", ("../other/deep", "../other"), ["other", "other/deep", "srv"]),
        ("", "hello", ("../missing",), ["srv"]),
        ("../other", "hello", ("deep", "../srv"), ["other", "other/deep", "srv"]),
    ],
)
def test_the_folders_that_an_application_comes_from(
    tree: Path, chdir: str, app: str, pythonpath: tuple[str, ...], found: list[str]
) -> None:
    assert folders_to_watch(chdir, app, pythonpath) == [tree / name for name in found]


def test_a_folder_under_two_names_is_watched_once(tree: Path) -> None:
    (tree / "alias").symlink_to(tree / "srv")
    assert folders_to_watch("../alias", "hello", ("../srv",)) == [tree / "srv"]


def test_a_folder_with_everything_below_it_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scgi.supervisor.watcher._MOST", 20)
    for number in range(20):
        (folder / str(number)).mkdir()
        (folder / ".venv" / str(number)).mkdir(parents=True)  # these do not count
    with pytest.raises(ConfigError, match=f"more than 20 folders below {folder}; start in the application's own, or"):
        look([folder])
    (folder / "0").rmdir()
    assert len(look([folder])[0]) == 20


def test_without_watchfiles_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(MissingExtra, match=r"--reload needs an optional part: pip install 'scgi-server\[reload\]'"):
        require_watchfiles()


def test_the_library_is_not_imported_before_it_is_used() -> None:
    code = (
        "import sys; from scgi.supervisor.watcher import require_watchfiles; require_watchfiles();"
        "print('watchfiles' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
