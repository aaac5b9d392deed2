"""Without fork there is no pool: said in one sentence, before an import fails for want of a signal or a system call.

Imports `errors`.
"""

from __future__ import annotations

import os

from scgi.errors import ScgiError


def require_fork(what: str) -> None:
    """Raises `ScgiError` where processes cannot fork, as on Windows."""
    if not hasattr(os, "fork"):
        raise ScgiError(f"{what} needs fork, which this system does not have; run it on Linux, or in WSL")
