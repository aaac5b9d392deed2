"""An SCGI client that builds and reads bytes by itself, so that it can judge the code under test."""

from __future__ import annotations

import itertools
import selectors
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from support.addresses import connect


class Reset(ConnectionResetError):
    """The server reset the connection; ``received`` holds what came before."""

    def __init__(self, received: bytes) -> None:
        super().__init__(f"connection reset after {len(received)} bytes: {received[:200]!r}")
        self.received = received


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    raw: bytes

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case; None without one."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def text(self) -> str:
        return self.body.decode()


def netstring(block: bytes) -> bytes:
    return b"%d:%s," % (len(block), block)


def build_request(
    variables: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    *,
    method: str = "GET",
    path: str = "/",
    query: str = "",
) -> bytes:
    """What nginx would send for this request; ``variables`` come on top and win over the usual ones."""
    given = list(variables.items() if isinstance(variables, Mapping) else variables)
    usual = {
        "CONTENT_LENGTH": str(len(body)),
        "REQUEST_METHOD": method,
        "REQUEST_URI": path + ("?" + query if query else ""),
        "QUERY_STRING": query,
        "CONTENT_TYPE": "",
        "DOCUMENT_URI": path,
        "DOCUMENT_ROOT": "/usr/share/nginx/html",
        "SCGI": "1",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "http",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "SERVER_PORT": "80",
        "SERVER_NAME": "localhost",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "HTTP_HOST": "localhost",
    }
    # A usual name that is given keeps its place: CONTENT_LENGTH has to be first.
    replaced = dict(given)
    items = [(name, replaced.get(name, value)) for name, value in usual.items()]
    items += [(name, value) for name, value in given if name not in usual]
    block = b"".join(f"{name}\0{value}\0".encode("latin-1") for name, value in items)
    return netstring(block) + body


def raw_exchange(
    address: str,
    data: bytes,
    *,
    split: int | Iterable[int] | None = None,
    pause: float = 0.002,
    half_close: bool = False,
    within: float = 10,
) -> bytes:
    """Send ``data``, read to the end of file, return what came; raise TimeoutError or Reset.

    ``split`` cuts what is sent: a number is the size of each piece, several are the offsets of the cuts;
    ``pause`` is the time between pieces. Answers that come before all is sent are read meanwhile.
    """
    pieces = _pieces(data, split)
    received = bytearray()
    deadline = time.monotonic() + within
    next_send = 0.0
    with connect(address, within) as peer, selectors.DefaultSelector() as selector:
        peer.setblocking(False)
        if peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(peer, selectors.EVENT_READ)
        while True:
            now = time.monotonic()
            if now > deadline:
                raise TimeoutError(f"no end after {within:g} s; received so far: {bytes(received)!r}")
            sending = bool(pieces) and now >= next_send
            selector.modify(peer, selectors.EVENT_READ | (selectors.EVENT_WRITE if sending else 0))
            wait = min(deadline - now, next_send - now if pieces and not sending else deadline - now)
            ready = selector.select(max(0.0, wait) + 0.0005)
            events = ready[0][1] if ready else 0
            if events & selectors.EVENT_WRITE:
                try:
                    sent = peer.send(pieces[0])
                    pieces[0] = pieces[0][sent:]
                    if not pieces[0]:
                        pieces.pop(0)
                        next_send = time.monotonic() + pause
                    if not pieces and half_close:
                        peer.shutdown(socket.SHUT_WR)
                except BlockingIOError:
                    pass
                except OSError:
                    pieces.clear()  # the server reads no more; its answer may still be there
            if events & selectors.EVENT_READ:
                try:
                    chunk = peer.recv(1 << 20)
                except ConnectionResetError:
                    raise Reset(bytes(received)) from None
                if not chunk:
                    return bytes(received)
                received += chunk


def parse_response(raw: bytes) -> Response:
    """Read a CGI response; AssertionError if it has no head, or does not begin with its status."""
    head, end, body = raw.partition(b"\r\n\r\n")
    assert end, f"no response head in {raw[:300]!r}"
    headers = []
    for line in head.decode("latin-1").split("\r\n"):
        name, colon, value = line.partition(": ")
        assert colon, f"not a header: {line!r}"
        headers.append((name, value))
    assert headers[0][0] == "Status", f"the response does not begin with Status: {headers}"
    status, _, reason = headers[0][1].partition(" ")
    return Response(int(status), reason, headers[1:], body, raw)


def scgi_request(
    address: str,
    variables: Mapping[str, str] | Iterable[tuple[str, str]] | bytes = (),
    body: bytes = b"",
    *,
    method: str = "GET",
    path: str = "/",
    query: str = "",
    split: int | Iterable[int] | None = None,
    pause: float = 0.002,
    half_close: bool = False,
    within: float = 10,
) -> Response:
    """One request, one response. ``variables`` as bytes are the whole head, sent as it is."""
    if isinstance(variables, bytes):
        data = variables + body
    else:
        data = build_request(variables, body, method=method, path=path, query=query)
    raw = raw_exchange(address, data, split=split, pause=pause, half_close=half_close, within=within)
    return parse_response(raw)


def _pieces(data: bytes, split: int | Iterable[int] | None) -> list[memoryview]:
    whole = memoryview(data)
    if split is None:
        cuts: list[int] = []
    elif isinstance(split, int):
        cuts = list(range(split, len(data), split))
    else:
        cuts = sorted(cut for cut in set(split) if 0 < cut < len(data))
    edges = [0, *cuts, len(data)]
    return [whole[a:b] for a, b in itertools.pairwise(edges) if a < b]
