"""The server's process id in a file: locked while it runs, nobody else's, and gone with the server.

The folder may be the application's user's: nothing that was put there is followed, waited for, or written over unless
it is a pid file. The lock is a record lock (fcntl(2)), which no child inherits. Imports `errors`.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from typing import Final

from scgi.errors import ConfigError

_CONTENT: Final = re.compile(rb"\s*[0-9]{0,20}\s*\Z")


@contextlib.contextmanager
def pid_file(path: str) -> Iterator[tuple[int, ...]]:
    """Our process id in a file, for as long as this runs; "" is none. Raises `ConfigError`.

    Gives the descriptors that no child may keep: it could write there.
    """
    if not path:
        yield ()
        return
    new = not os.path.lexists(path)
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"pid-file: cannot write {path}: {error.strerror}") from None
    try:
        _refuse_other_files(file, path)
        try:
            text = f"{os.getpid()}\n".encode()
            os.pwrite(file, text, 0)
            os.ftruncate(file, len(text))
        except OSError as error:
            if new:
                os.unlink(path)
            raise ConfigError(f"pid-file: cannot write {path}: {error.strerror}") from None
        try:
            yield (file,)
        finally:
            _remove(file, path)
    finally:
        os.close(file)


def _refuse_other_files(file: int, path: str) -> None:
    """Only what is a pid file is written to, and only if no server that runs has it."""
    import fcntl

    found = os.pread(file, 64, 0) if stat.S_ISREG(os.fstat(file).st_mode) else b"?"
    if not _CONTENT.match(found):
        raise ConfigError(f"pid-file: {path} is there, and no pid file; it was left alone")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = found.decode().strip()
        raise ConfigError(f"pid-file: {path} is that of a server that runs, process {pid}; choose another") from None


def _remove(file: int, path: str) -> None:
    """At the end; if it still is what it was."""
    with contextlib.suppress(OSError):
        there, ours = os.lstat(path), os.fstat(file)
        if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            os.unlink(path)
