"""A process that the application forks is not the worker: it neither answers, nor accepts, nor writes its slots.

It has all of the worker's descriptors and memory. A helper that stays beside the worker must not keep a connection
open that the worker closes, nor the listener after the server's end; one that comes back out of the application must
not go on as a second worker. All is done at the fork itself (`os.register_at_fork`): nothing costs a request anything.

Imports `net`, `errors`, `log` and its neighbour `standard`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Iterable
from typing import NoReturn

from scgi.errors import ProtocolError
from scgi.net.stream import PeerGone
from scgi.workers.standard import flush_standard_streams

log = logging.getLogger("scgi.worker")


def cover(sockets: Iterable[int], dead: int) -> None:
    """Put `dead` over these descriptors, and over all others of the same sockets."""
    mine = set(sockets)
    identities = {identity for descriptor in mine if (identity := _identity(descriptor))}
    with contextlib.suppress(OSError):  # no /proc
        mine |= {int(name) for name in os.listdir("/dev/fd") if _identity(int(name)) in identities}
    for descriptor in mine:
        with contextlib.suppress(OSError):
            os.dup2(dead, descriptor, inheritable=False)


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Of a socket: all epolls, for one, share an inode."""
    try:
        facts = os.fstat(descriptor)
    except OSError:
        return None
    return (facts.st_dev, facts.st_ino) if stat.S_ISSOCK(facts.st_mode) else None


def end(error: BaseException | None) -> NoReturn:
    """Such a process has come back out of the application, by this error perhaps. Exit functions are the worker's."""
    status = 1
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is None or isinstance(error, (PeerGone, ProtocolError)):  # what it would have answered does not matter
        log.warning("a process that the application has forked came back from it and ends; it should use os._exit()")
        status = 0
    else:
        log.error("a process that the application has forked failed", exc_info=error)
    flush_standard_streams()
    os._exit(status & 0xFF)
