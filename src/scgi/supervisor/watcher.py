"""Which files the application's code is in, and a wait for them to change: what `--reload` runs in a child of its own.

Only Python files count. Whatever is hidden or installed is left aside, below the folders that are watched: .git, .venv,
__pycache__, site-packages, node_modules.

Never imports the application. Imports `errors`, and watchfiles where it is used.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from scgi.errors import ExitCode, MissingExtra

log = logging.getLogger("scgi.watcher")

_ASIDE: Final = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})
_SETTLED: Final = 50  # milliseconds without a further change after which those so far are told, all at once
_LOOK: Final = 500  # milliseconds after which it is safe to say that the watch has begun


def require_watchfiles() -> None:
    """Raises `MissingExtra` where watchfiles is not installed. Does not import it."""
    if importlib.util.find_spec("watchfiles") is None:
        raise MissingExtra("reload", "--reload")


def folders_to_watch(chdir: str, app: str, pythonpath: Sequence[str]) -> list[Path]:
    """The folders that `app` is imported from, each once, none inside another."""
    base = Path(os.path.abspath(chdir or "."))
    wanted = [base, *(base / folder for folder in pythonpath)]
    place = app if app.endswith(".py") else app.rpartition(":")[0]
    if place.endswith(".py"):
        wanted.append((base / place).parent)
    folders = sorted({Path(os.path.realpath(folder)) for folder in wanted if folder.is_dir()})
    return [folder for folder in folders if not any(parent in folders for parent in folder.parents)]


def watch_files(folders: Sequence[Path], changed: Callable[[list[str]], None]) -> int:
    """Call `changed` with the paths of changed Python files, until a TERM ends the process. Returns its exit status.

    What changes together is told together. A change is told even if it came before the watch was set up, as long as it
    came after this call.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # at once, wherever the library is
    before: dict[str, int] | None = _files(folders)
    try:
        import watchfiles

        news = watchfiles.watch(
            *folders,
            watch_filter=lambda _, path: _is_code(path, folders),
            step=_SETTLED,
            rust_timeout=_LOOK,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        )
        for found in news:
            paths = {path for _, path in found}
            if before is not None:
                paths |= {path for path, _ in before.items() ^ _files(folders).items()}
                before = None
            if paths:
                changed(sorted(paths))
    except OSError as error:  # a folder that has gone; no more inotify watches
        log.error("cannot watch %s: %s", ", ".join(map(str, folders)), error)
    return ExitCode.FAILED


def _is_code(path: str, folders: Sequence[Path]) -> bool:
    """Whether a change of this file matters."""
    file = Path(path)
    below = next((file.relative_to(folder).parts for folder in folders if file.is_relative_to(folder)), file.parts)
    return file.suffix == ".py" and not any(_is_aside(part) for part in below)


def _is_aside(name: str) -> bool:
    return name.startswith(".") or name in _ASIDE


def _files(folders: Sequence[Path]) -> dict[str, int]:
    """All Python files there, and when each was changed."""
    return dict(_times(folders))


def _times(folders: Sequence[Path]) -> Iterator[tuple[str, int]]:
    for folder in folders:
        for place, below, names in os.walk(folder):
            below[:] = [name for name in below if not _is_aside(name)]
            for name in names:
                path = os.path.join(place, name)
                if _is_code(path, folders):
                    try:
                        yield path, os.stat(path).st_mtime_ns
                    except OSError:  # gone meanwhile
                        pass
