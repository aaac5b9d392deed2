"""The server's process id in a file: whole or not at all, nobody else's, and gone with the server.

The folder may be the application's user's: nothing that was put there is opened, waited for or followed.
Imports `errors`.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from scgi.errors import ConfigError


@contextlib.contextmanager
def pid_file(path: str) -> Iterator[None]:
    """Our process id in a file, for as long as this runs; "" is none. Raises `ConfigError`."""
    if not path:
        yield
        return
    if (pid := _server_named_in(path)) is not None:
        raise ConfigError(f"pid-file: {path} names process {pid}, a server that is running; choose another file")
    temporary = f"{path}.{os.getpid()}"
    try:
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.write(file, f"{os.getpid()}\n".encode())
            made = os.fstat(file)
        finally:
            os.close(file)
        os.rename(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise ConfigError(f"pid-file: cannot write {path}: {error.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
                os.unlink(path)


def _server_named_in(path: str) -> int | None:
    """The process that the file names, if that lives and is a server of ours; a number may long be another's."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(file, 32).strip() if stat.S_ISREG(os.fstat(file).st_mode) else b""
    except OSError:
        return None
    finally:
        os.close(file)
    if not text.isdigit() or int(text) == os.getpid():
        return None
    with contextlib.suppress(OSError, ValueError, OverflowError):
        if b"scgi" in Path(f"/proc/{int(text)}/cmdline").read_bytes():
            return int(text)
    return None
