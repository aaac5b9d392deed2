"""prctl(2), which Python does not have: what a process asks Linux for itself. Elsewhere it is None. Imports nothing."""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_GET_NO_NEW_PRIVS: Final = 39


def _find() -> Any:
    if sys.platform != "linux":
        return None
    try:
        found = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None
    found.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    return found


prctl: Final[Any] = _find()
