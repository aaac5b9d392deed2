"""Reload means the new code, also where a file was changed twice within a second.

Python takes a cached module for current if its source has the same size and the same time in whole seconds. So what is
compiled from a source that is younger than that is not cached (git calls such files "racily clean"). Imports nothing of
ours.
"""

from __future__ import annotations

import contextlib
import os
import time
from importlib.machinery import SourceFileLoader
from importlib.util import source_from_cache
from typing import Any, Final

_RACY: Final = 2.0  # seconds
_write: Final[Any] = SourceFileLoader.set_data


def cache_settled_sources_only() -> None:
    """For this process, from now on."""
    SourceFileLoader.set_data = _write_if_settled  # type: ignore[assignment, method-assign]


def _write_if_settled(self: SourceFileLoader, path: str, data: bytes, **mode: int) -> None:
    with contextlib.suppress(OSError, ValueError, NotImplementedError):
        if abs(time.time() - os.stat(source_from_cache(path)).st_mtime) < _RACY:
            return
    _write(self, path, data, **mode)
