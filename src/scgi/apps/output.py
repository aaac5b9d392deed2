"""What a handler writes its response to: headers, a blank line, the page, as a CGI program would.

The head is parsed and goes out as a judged one, so all rules of a response hold for handlers too. 64 KiB are held
back, so that an exception until then is still a clean 500.

Imports `errors`, `net`, `protocol` and its neighbours.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable

from scgi.apps.answer import Answer, Outcome
from scgi.errors import MalformedResponse, MisuseError
from scgi.net.stream import Buffer
from scgi.protocol.response import parse_head

HELD_BACK = 65536


class Output(io.BufferedIOBase):
    """A file that takes str (sent as UTF-8) and bytes. `flush` sends what is there, `close` all of it.

    While an exception is on its way neither sends the first byte: `finally: output.close()` is how programs end, and
    the exception is to become a 500. After the request the file is closed, whoever still holds it.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: str | Buffer) -> int:  # type: ignore[override]
        if self.closed:
            raise ValueError("the response is closed")
        self._held += data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        if len(self._held) > HELD_BACK:
            self._push()
        return len(data)

    def writelines(self, lines: Iterable[str | Buffer]) -> None:  # type: ignore[override]
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Send what is here, once the head is complete. Raises `MisuseError` if it is none."""
        if self._may_send():
            self._push()
            self._answer.flush_head()

    def close(self) -> None:
        """The page is whole: send it now."""
        if self.closed:
            return
        try:
            if self._may_send():
                self._complete()
        finally:
            self._close()

    def _close(self) -> None:
        held, self._held = self._held, bytearray()
        super().close()  # would flush
        self._held = held

    @property
    def begun(self) -> bool:
        """Bytes of the response are on the wire."""
        return self._answer.begun

    @property
    def waiting(self) -> bool:
        """The peer has not taken all of it: nobody may end this side of the connection."""
        return self._answer.waiting

    def _may_send(self) -> bool:
        return self._answer.begun or sys.exc_info()[1] is None

    def _push(self) -> None:
        if self._held and (self._answer.started or self._start()):
            held, self._held = self._held, bytearray()
            self._answer.write(held)

    def _start(self) -> bool:
        """Find the head in what was written; False if it is not complete."""
        try:
            head = parse_head(bytes(self._held[: HELD_BACK + 8]), HELD_BACK)
        except MalformedResponse as error:
            raise MisuseError(f"the handler's output has no proper head: {error}", code=error.code) from None
        if head is None:
            return False
        self._answer.start(f"{head.status} {head.reason}", head.headers)
        del self._held[: head.end]
        return True

    def _complete(self) -> None:
        if self._held and not self._answer.started and self._start():
            self._answer.set_length(len(self._held))
        self._push()

    def finish(self) -> Outcome:
        """The handler is done: send the rest. Raises `MisuseError` for what is no response."""
        self._complete()
        if self._answer.started:
            return self._answer.finish()
        if self._held:
            written = bytes(self._held[:80])
            raise MisuseError(f"the handler's output has no blank line after its headers: {written!r}", code="no-head")
        raise MisuseError("the handler ended without writing a response", code="no-response")

    def release(self) -> None:
        """The request is over: nothing more may reach its connection, not even from a late finalizer."""
        self._held.clear()
        self._close()
