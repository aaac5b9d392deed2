"""A client that says which bytes it sends, and shows which came back."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

from support import Reset, raw_exchange
from support.apache_module import Apache
from support.hostile import read_http


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` 0: there was none. `whole`: it is framed, and came to its end."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool
    raw: bytes

    def header(self, name: str) -> str | None:
        """All of that name, in lines of their own; None without one."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return "\n".join(found) if found else None

    @property
    def text(self) -> str:
        return self.body.decode()


def request(
    target: str = "/",
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | None = None,
    *,
    host: str = "localhost",
    version: str = "1.1",
    chunked: bool = False,
) -> bytes:
    fields = [("Host", host)] if host else []
    fields += [("Connection", "close"), *headers]
    if chunked and body is not None:
        fields.append(("Transfer-Encoding", "chunked"))
        half = len(body) // 2
        pieces = [piece for piece in (body[:half], body[half:]) if piece]
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    elif body is not None:
        fields.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/{version}", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


def ask(web: Apache, target: str = "/", method: str = "GET", *args: object, **options: object) -> Answer:
    """Arguments are those of `request`."""
    return send(web, request(target, method, *args, **options), head=method == "HEAD")  # type: ignore[arg-type]


def send(web: Apache, data: bytes, *, head: bool = False, within: float = 30) -> Answer:
    try:
        return read(raw_exchange(web.address, data, within=within), head=head)
    except Reset as reset:
        return read(reset.received, True, head=head)


def ask_tls(web: Apache, data: bytes) -> Answer:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    received = b""
    with (
        socket.create_connection(("127.0.0.1", web.tls_port), 20) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as peer,
    ):
        peer.sendall(data)
        while piece := peer.recv(65536):
            received += piece
    return read(received)


def read(raw: bytes, was_reset: bool = False, *, head: bool = False) -> Answer:
    status, body, whole = read_http(raw, was_reset)
    final = raw
    while final.startswith(b"HTTP/1.1 1"):
        final = final.partition(b"\r\n\r\n")[2]
    first, *lines = final.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    if head or status in (204, 304):
        body, whole = final.partition(b"\r\n\r\n")[2], not was_reset
    return Answer(status, first[13:], headers, body, whole, raw)
