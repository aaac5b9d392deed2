"""What a load asks: whom, how many, how fast; and a request as a web server would send it.

The requests of a load differ from one another, because a server that remembers answers must gain nothing by it: port,
query and cookie hold a number. It always has the same width, so the rest of the head can be built beforehand. Imports
net, protocol and errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote

from scgi.net.address import Address
from scgi.protocol.request import build_head

_PORT: Final = "%(port)d"
_QUERY: Final = "request=%(number)010d"
_COOKIE: Final = "session=%(number)032x"
_NUMBERS: Final = 10**10  # then they begin again, so that the width stays
_FIRST_PORT, _PORTS = 10000, 50000


@dataclass(frozen=True, slots=True)
class Template:
    method: str
    uri: str
    form: bytes  # of the head, with places for the number
    body: bytes

    def head(self, number: int) -> bytes:
        """The request's head, as it is the `number`th time."""
        return _fill(self.form, number)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of whom. Either `requests` or `seconds` says when it is over.

    With a `rate`, request k is due k / rate seconds after the start, whatever became of the ones before, and its
    latency counts from then: what waits because the server is slow is not left out of the figures.
    """

    address: Address
    template: Template
    concurrency: int
    requests: int | None = None
    seconds: float | None = None
    rate: float | None = None
    timeout: float = 30.0  # for a whole request, from when it is begun
    first: int = 0  # its requests are number first, first + step, first + 2 * step, …
    step: int = 1

    def part(self, index: int, parts: int) -> Plan:
        """One of so many processes' share of it."""

        def share(total: int) -> int:
            return total // parts + (index < total % parts)

        requests = None if self.requests is None else share(self.requests)
        return replace(self, concurrency=share(self.concurrency), requests=requests, first=index, step=parts)


def template(
    method: str,
    uri: str,
    *,
    headers: Mapping[str, str],
    variables: Mapping[str, str],
    body: bytes = b"",
    same: bool = False,
) -> Template:
    """A request for `uri`, with what nginx would send beside it; `headers` are by the names of their variables.

    `variables` win over everything and are sent as they are. `same`: without numbers, all alike. Raises `MisuseError`
    for what cannot be sent.
    """
    path, _, query = uri.partition("?")
    usual = {
        "REQUEST_METHOD": method,
        "REQUEST_URI": uri,
        "QUERY_STRING": query,
        "CONTENT_TYPE": "application/octet-stream" if body else "",
        "DOCUMENT_URI": path,
        "DOCUMENT_ROOT": "/usr/share/nginx/html",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "http",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": str(_FIRST_PORT),
        "SERVER_PORT": "80",
        "SERVER_NAME": "localhost",
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, "latin-1"),
        "HTTP_HOST": "localhost",
        "HTTP_USER_AGENT": "scgi-bench",
        "HTTP_ACCEPT": "*/*",
    }
    fields = {name: value.replace("%", "%%") for name, value in {**usual, **headers, **variables}.items()}
    if not same:
        _add_numbers(fields, fixed=variables)
    # Judged where all heads are; the length that stands before it is then that of a head with a number in it.
    block = build_head(fields.items(), len(body)).partition(b":")[2]
    form = b"%d:%b" % (len(_fill(block, 0)) - len(b","), block)
    return Template(method, uri, form, body)


def _add_numbers(fields: dict[str, str], fixed: Mapping[str, str]) -> None:
    if "REMOTE_PORT" not in fixed:
        fields["REMOTE_PORT"] = _PORT
    if not {"QUERY_STRING", "REQUEST_URI"} & fixed.keys():
        query = "&".join(filter(None, (fields["QUERY_STRING"], _QUERY)))
        fields["QUERY_STRING"] = query
        fields["REQUEST_URI"] = f"{fields['REQUEST_URI'].partition('?')[0]}?{query}"
    if "HTTP_COOKIE" not in fixed:
        fields["HTTP_COOKIE"] = "; ".join(filter(None, (fields.get("HTTP_COOKIE"), _COOKIE)))


def _fill(form: bytes, number: int) -> bytes:
    return form % {b"number": number % _NUMBERS, b"port": _FIRST_PORT + number % _PORTS}
