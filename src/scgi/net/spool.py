"""Bytes that wait for somebody slow: a little in memory, more in a file without a name. Imports nothing of ours."""

from __future__ import annotations

import os
import tempfile
from typing import Final

Buffer = bytes | bytearray | memoryview

IN_MEMORY: Final = 65536


def nameless_file() -> int:
    """A new file that is gone when its last descriptor is closed. OSError if there is no place for it."""
    try:
        with tempfile.TemporaryFile(buffering=0) as file:
            return os.dup(file.fileno())
    except FileNotFoundError:  # no folder for temporary files, in a chroot jail say
        if not hasattr(os, "memfd_create"):
            raise
        return os.memfd_create("spool")


class Spool:
    """Grows at its end, by `append`. `data` is all of it, unless `file` is a descriptor: then that is."""

    __slots__ = ("data", "file", "size")

    def __init__(self, data: Buffer = b"", file: int = -1, size: int = 0) -> None:
        """A file that is given is this object's from now on; `size` says how much of it counts."""
        self.data = bytearray(data)
        self.file = file
        self.size = size if file >= 0 else len(self.data)

    def append(self, more: Buffer) -> None:
        """OSError if the disk is full: then nothing has changed."""
        if self.file < 0 and self.size + len(more) <= IN_MEMORY:
            self.data += more
        elif self.file >= 0:
            write_at(self.file, more, self.size)
        else:
            file = nameless_file()
            try:
                write_at(file, self.data, 0)
                write_at(file, more, self.size)
            except BaseException:
                os.close(file)
                raise
            self.file, self.data = file, bytearray()
        self.size += len(more)

    def read(self, start: int, count: int) -> bytes:
        """At most so many bytes from there."""
        if self.file < 0:
            return bytes(memoryview(self.data)[start : start + count])
        return os.pread(self.file, min(count, self.size - start), start)

    def close(self) -> None:
        """Let go of all of it; it is empty then."""
        if self.file >= 0:
            os.close(self.file)
        self.data, self.file, self.size = bytearray(), -1, 0


def write_at(file: int, data: Buffer, offset: int) -> None:
    """Write all of it there."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        offset += written
        view = view[written:]
