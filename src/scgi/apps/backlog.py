"""What the peer of an answer has not taken yet. Imports `net`."""

from __future__ import annotations

from collections.abc import Sequence

from scgi.net.handover import Errand, Parcel
from scgi.net.spool import IN_MEMORY, Spool
from scgi.net.stream import Buffer, PeerGone, await_room, send_file_now, send_now

_MOST = 1 << 30  # bytes; whoever has produced more waits for the peer


class Backlog:
    """Bytes, and after them perhaps a piece of an open file, in the order in which they are to go out on `fd`."""

    __slots__ = ("_fd", "_file", "_sent", "_spool")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._spool = Spool()
        self._sent = 0
        self._file = (-1, 0, 0)  # descriptor, offset, size

    def add(self, buffers: Sequence[Buffer]) -> bool:
        """Keep these too. False if there is no room for all of them; then none is kept."""
        if self._file[2] or self._spool.size > _MOST:
            return False
        try:
            self._spool.append(b"".join(buffers) if len(buffers) > 1 else buffers[0])
        except OSError:
            return False
        return True

    def add_file(self, file: int, offset: int, size: int) -> bool:
        """Keep a piece of a file that stays open until the answer is over. False if it cannot be."""
        if self._file[2] or self._spool.file >= 0:
            return False
        self._file = (file, offset, size)
        return True

    def flush(self) -> bool:
        """Send what the peer takes now; whether that was all. Raises `PeerGone`."""
        while self._sent < self._spool.size:
            block = self._spool.read(self._sent, IN_MEMORY)
            left = sum(map(len, send_now(self._fd, [block])))
            self._sent += len(block) - left
            if left:
                return False
        file, offset, size = self._file
        try:
            if send_file_now(self._fd, file, offset, size) < size:
                raise PeerGone("the file to be sent has become shorter")
        except BlockingIOError as full:
            sent = full.characters_written
            self._file = (file, offset + sent, size - sent)
            return False
        return True

    def wait(self, patience: float) -> None:
        """Send all of it. Raises `PeerGone`."""
        while not self.flush():
            await_room(self._fd, patience)

    def parcel(self, reset: bool) -> Parcel:
        """For the lobby."""
        spool = self._spool
        if spool.file < 0:
            data = bytes(memoryview(spool.data)[self._sent :])
            file, offset, size = self._file
            return Parcel(self._fd, Errand.ANSWER, data, file if size else -1, offset, size, reset=reset)
        return Parcel(
            self._fd, Errand.ANSWER, b"", spool.file, self._sent, spool.size - self._sent, reset=reset
        )  # fmt: skip

    def close(self) -> None:
        self._spool.close()
