"""Descriptors 0 to 2, which every program takes for standard input, output and error.

A server may be started without some of them (`2>&-`). What it opens next would get their numbers, and what anybody
prints would go to a listener. Imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import sys


def fill_standard_descriptors() -> None:
    """Open /dev/null for those that are closed. To be called before anything else is opened."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def flush_standard_streams() -> None:
    """Write what `print` still holds, if it can be: the streams may be missing, closed, or anything."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
