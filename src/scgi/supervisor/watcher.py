"""Which files the application's code is in, and a wait for them to change: what `--reload` runs in a child of its own.

Only Python files count. Whatever is hidden or installed is left aside, below the folders that are watched: .git, .venv,
__pycache__, site-packages, node_modules. What the library tells is taken as a reason to look; what has changed is what
looks different.

Never imports the application. Imports `errors`, and watchfiles where it is used.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from scgi.errors import ConfigError, ExitCode, MissingExtra, ScgiError

log = logging.getLogger("scgi.watcher")

_CODE: Final = (".py", ".wsgi")
_ASIDE: Final = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})
_SETTLED: Final = 50  # milliseconds without a further change after which those so far are told, all at once
_MOST: Final = 10_000  # folders: more are a mistake, such as the root of the file system
_BEGUN: Final = 500  # milliseconds after which it is sure that the watch has begun


def require_watchfiles() -> None:
    """Raises `MissingExtra` where watchfiles is not installed. Does not import it."""
    if importlib.util.find_spec("watchfiles") is None:
        raise MissingExtra("reload", "--reload")


def folders_to_watch(chdir: str, app: str, pythonpath: Sequence[str]) -> list[Path]:
    """The folders that `app` is imported from, each once; one inside another may be hidden there."""
    base = Path(os.path.abspath(chdir or "."))
    wanted = [base, *(base / folder for folder in pythonpath)]
    place = app if app.endswith(_CODE) else app.rpartition(":")[0]
    if place.endswith(_CODE):
        wanted.append((base / place).parent)
    return sorted({Path(os.path.realpath(folder)) for folder in wanted if folder.is_dir()})


def watch_files(folders: Sequence[Path], changed: Callable[[list[str]], None], since: Look | None = None) -> int:
    """Call `changed` with the paths of changed Python files, until a TERM ends the process. Returns its exit status.

    What changes together is told together. What differs from `since`, or from how it is at this call, is told even if
    it changed before the watch was set up.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # at once, wherever the library is
    try:
        places, files = since or look(folders)
        while True:
            for _ in _reasons(places):
                watched, known = places, files
                places, files = look(folders)
                if differing := known.items() ^ files.items():
                    changed(sorted({path for path, _ in differing}))
                if places != watched:
                    break
    except (OSError, RuntimeError, ScgiError) as error:  # RuntimeError: the library's own
        log.error("cannot watch %s: %s", ", ".join(map(str, folders)), _why(error))
    return ExitCode.FAILED


def _reasons(places: Iterable[str]) -> Iterator[None]:
    """A turn for each reason to look: when the watch has begun, and when something has changed."""
    import watchfiles

    # Folder by folder: one that may not be read, or .venv, must not stop or burden the watch of the others.
    events = watchfiles.watch(
        *places,
        recursive=False,
        watch_filter=lambda _, path: _matters(path),
        step=_SETTLED,
        rust_timeout=_BEGUN,
        yield_on_timeout=True,
    )
    try:
        for number, event in enumerate(events):
            if event or not number:
                yield
    except FileNotFoundError:  # a folder went before it could be watched
        yield


Marks = dict[str, tuple[int, ...]]  # what tells a file or folder from what it was before, by path
Look = tuple[Marks, Marks]  # at folders, and at files


def look(folders: Sequence[Path]) -> Look:
    """The folders that can hold code, and the Python files in them.

    Raises OSError if one of `folders` has gone, `ConfigError` if there are too many below it.
    """
    places: Marks = {}
    files: Marks = {}
    seen = set()
    for folder in folders:
        folder.stat()
        for place, below, names in os.walk(folder, followlinks=True):
            with contextlib.suppress(OSError):  # gone meanwhile
                identity = _mark(place)[:2]
                if identity in seen:  # by a link, perhaps one that leads back
                    below.clear()
                    continue
                seen.add(identity)
                places[place] = identity
            if len(places) > _MOST:
                raise ConfigError(
                    f"reload: there are more than {_MOST} folders below {folder}; "
                    "start in the application's own, or name it with --chdir"
                )
            below[:] = [name for name in below if not _is_aside(name)]
            for path in (os.path.join(place, name) for name in names if _is_code(name)):
                with contextlib.suppress(OSError):
                    files[path] = _mark(path)
    return places, files


def _mark(path: str) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _matters(path: str) -> bool:
    """Whether a change there is a reason to look: to a Python file or a folder, or to what was one and has gone."""
    name = os.path.basename(path)
    return _is_code(name) or not (_is_aside(name) or os.path.isfile(path))


def _is_code(name: str) -> bool:
    return name.endswith(_CODE) and not _is_aside(name)


def _is_aside(name: str) -> bool:
    return name.startswith(".") or name in _ASIDE


def _why(error: Exception) -> str:
    reason = str(error).partition(" about [")[0]
    return f"{reason} Raise fs.inotify.max_user_watches with sysctl." if "watch limit" in reason else reason
