"""What `ps` shows for a process of ours. Imports setproctitle, where it is installed."""

from __future__ import annotations

from collections.abc import Callable

_set: Callable[[str], None] | None
try:
    from setproctitle import setproctitle as _set
except ImportError:  # neither a wheel nor a compiler: processes keep the command's name
    _set = None


def set_title(text: str) -> None:
    """Show this process as ``scgi: TEXT``."""
    if _set is not None:
        _set(f"scgi: {text}")
