"""`scgi bench ADDRESS`: a load on an SCGI server, and what became of it, for people or as JSON.

Imports `config`, `client`, `errors`.
"""

from __future__ import annotations

import json
import math
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from scgi.client.plan import Plan, template
from scgi.client.tally import SECOND, Tally
from scgi.config import parse
from scgi.config.fork import require_fork
from scgi.config.layers import COMMAND_LINE, Problem, Row, command_line, raise_problems, resolve
from scgi.errors import ExitCode, MisuseError, ScgiError

if TYPE_CHECKING:
    from scgi.client.load import Stop

DEFAULT_CONCURRENCY: Final = 10
DEFAULT_SECONDS: Final = 10.0
DEFAULT_TIMEOUT: Final = 30.0

_BUSY: Final = 0.9  # of a CPU: then it may be the load that is slow, not the server
_BAR: Final = 40  # characters
_SHARES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


# -- what is asked -----------------------------------------------------------------------------------------------------


def _as_variable(text: str) -> str:
    """What a person typed, as variables are: a character for each byte."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def _rate(raw: object) -> float:
    text = str(raw)
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text, re.ASCII) or not float(text):
        parse.refuse("a number of more than 0 (100, 0.5)", raw)
    return float(text)


def _method(raw: object) -> str:
    if not re.fullmatch(r"[A-Za-z-]+", str(raw)):
        parse.refuse("a method such as GET", raw)
    return str(raw).upper()


def _uri(raw: object) -> str:
    if not re.fullmatch(r"/[!-~]*", str(raw)) or "#" in str(raw):
        parse.refuse("a path and query such as /shop?item=1, percent-encoded", raw)
    return str(raw)


def _header(raw: object) -> tuple[str, str]:
    found = re.fullmatch(r"([A-Za-z0-9-]+):[ \t]*([^\x00-\x1f\x7f]*)", str(raw))
    if found is None:
        parse.refuse("'Name: value'", raw)
    name = found[1].upper().replace("-", "_")
    if name == "CONTENT_LENGTH":
        raise ValueError("the length is that of --data or --data-size")
    return (name if name == "CONTENT_TYPE" else f"HTTP_{name}"), _as_variable(found[2])


def _headers(found: list[tuple[str, str]]) -> dict[str, str]:
    """Repeated ones are joined, as web servers do."""
    joined: dict[str, str] = {}
    for name, value in found:
        between = "; " if name == "HTTP_COOKIE" else ", "
        joined[name] = f"{joined[name]}{between}{value}" if name in joined else value
    return joined


def _variable(raw: object) -> tuple[str, str]:
    name, value = parse.assignment(raw)
    return _as_variable(name), _as_variable(value)


def _data(raw: object) -> bytes:
    name = str(raw).removeprefix("@")
    if name == raw:
        return name.encode("utf-8", "surrogateescape")
    try:
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error.strerror}") from None


def _generated(raw: object) -> bytes:
    size, pattern = parse.size(1)(raw), b"0123456789abcdef"
    return (pattern * (size // len(pattern) + 1))[:size]


_ROWS: Final = (
    Row("address", "", parse.address, "", "ADDRESS", positional=True),
    Row("concurrency", "", parse.whole(1), f"Requests at a time. [default: {DEFAULT_CONCURRENCY}]", "NUMBER"),
    Row(
        name="duration",
        section="",
        parse=parse.duration(zero=False),
        help="How long requests are begun; what is under way then is waited for."
        f" [default: {DEFAULT_SECONDS:g}, without --requests]",
        metavar="SECONDS",
    ),
    Row("requests", "", parse.whole(1), "How many requests, instead of how long.", "NUMBER"),
    Row(
        name="rate",
        section="",
        parse=_rate,
        help="So many requests a second, as far as --concurrency allows. Latencies count from when a request was due."
        " [default: each as soon as another is over]",
        metavar="NUMBER",
    ),
    Row("method", "", _method, "[default: GET; with a body POST]", "METHOD"),
    Row("uri", "", _uri, "Path and query. [default: /]", "PATH"),
    Row("header", "", _header, "An HTTP header, sent as HTTP_NAME. Repeatable.", "'NAME: VALUE'", collect=_headers),
    Row("var", "", _variable, "A variable, sent as it is. Repeatable.", "NAME=VALUE", collect=dict),
    Row("data", "", _data, "The body; @FILE: the file has it.", "TEXT"),
    Row("data_size", "", _generated, "A body of so many bytes (65536, 64k, 1m).", "SIZE"),
    Row(
        name="timeout",
        section="",
        parse=parse.duration(zero=False),
        help=f"How long a request may take. [default: {DEFAULT_TIMEOUT:g}]",
        metavar="SECONDS",
    ),
    Row("same", "", parse.flag, "Send the same request again and again.", is_flag=True),
    Row("processes", "", parse.whole(1), "Make the load with so many processes. [default: 1]", "NUMBER"),
    Row("json", "", parse.path_or_stdout, "Write the figures there as JSON; -: to standard output.", "FILE"),
)
_LETTERS: Final = {"concurrency": "-c", "duration": "-d", "requests": "-n"}


def _options(function: Any) -> Any:
    for row in reversed(_ROWS):
        if row.positional:
            function = click.argument(row.name)(function)
            continue
        names = [*filter(None, [_LETTERS.get(row.name)]), row.option, row.name]
        known: dict[str, Any] = {"is_flag": True} if row.is_flag else {"metavar": row.metavar}
        function = click.option(*names, default=None, multiple=bool(row.collect), help=row.help, **known)(function)
    return function


@click.command()
@_options
def bench(**options: Any) -> int:
    """Load the SCGI server at ADDRESS, and say how it did.

    Requests differ from one another, so that a server that remembers answers gains nothing by it: REMOTE_PORT, a
    number in the query and one in a cookie change, unless --same is given. Ctrl-C ends the load, with the figures so
    far. The exit status is 0 if every request was answered, and none with a status of 500 or more.
    """
    require_fork("bench")
    from scgi.client.load import run_load

    values, _, problems = resolve(_ROWS, [command_line(_ROWS, options)])
    plan = _plan(values, problems)
    processes, target = values.get("processes", 1), values.get("json")
    with ExitStack() as stack:
        file = None
        if target not in (None, "-"):
            try:
                file = stack.enter_context(open(target, "wb", buffering=0))
            except OSError as error:
                raise_problems([(COMMAND_LINE, f"--json: {target} cannot be written: {error.strerror}")])
        figures = _figures(plan, run_load(plan, stack.enter_context(_ctrl_c()), processes), processes)
        as_json = json.dumps(figures, indent=2)
        click.echo(as_json if target == "-" else "\n".join(_lines(figures)))
        if file is not None:
            try:
                file.write(f"{as_json}\n".encode())
            except OSError as error:
                raise ScgiError(f"{target} cannot be written: {error.strerror}") from None
    return ExitCode.OK if figures["ok"] else ExitCode.FAILED


def _plan(values: dict[str, Any], problems: list[Problem]) -> Plan:
    """What the options ask for. Raises `ConfigError` with everything that is wrong with them."""
    for one, other in (("requests", "duration"), ("data-size", "data")):
        if {one.replace("-", "_"), other} <= values.keys():
            problems.append((COMMAND_LINE, f"--{one}: expected either this or --{other}, got both"))
    concurrency, processes = values.get("concurrency", DEFAULT_CONCURRENCY), values.get("processes", 1)
    if processes > concurrency:
        problems.append((COMMAND_LINE, f"--processes: expected at most --concurrency, {concurrency}, got {processes}"))
    address = values.get("address")
    if address is not None and address.kind == "systemd":
        problems.append((COMMAND_LINE, "ADDRESS: expected HOST:PORT or unix:PATH, got 'systemd'"))
    body = values.get("data", values.get("data_size", b""))
    request = None
    try:
        request = template(
            values.get("method", "POST" if body else "GET"),
            values.get("uri", "/"),
            headers=values.get("header", {}),
            variables=values.get("var", {}),
            body=body,
            same=values.get("same", False),
        )
    except MisuseError as error:
        problems.append((COMMAND_LINE, f"--var: {error}"))
    raise_problems(problems)
    assert address is not None and request is not None
    count = values.get("requests")
    return Plan(
        address,
        request,
        concurrency,
        requests=count,
        seconds=values.get("duration", DEFAULT_SECONDS) if count is None else None,
        rate=values.get("rate"),
        timeout=values.get("timeout", DEFAULT_TIMEOUT),
    )


@contextmanager
def _ctrl_c() -> Iterator[Stop]:
    from scgi.client.load import Stop

    stop = Stop()
    before = signal.signal(signal.SIGINT, lambda *_: stop.ring())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
        stop.close()


# -- what was found ----------------------------------------------------------------------------------------------------


def _figures(plan: Plan, tally: Tally, processes: int) -> dict[str, Any]:
    """All there is to tell, as docs/reference/command-line.md has it. Times are seconds."""
    taken = tally.latency
    latency = None
    if taken.count:
        shares = {name: taken.at(share) / SECOND for name, share in _SHARES.items()}
        latency = {"min": taken.least / SECOND, "mean": taken.mean / SECOND, **shares, "max": taken.most / SECOND}
    return {
        "address": str(plan.address),
        "method": plan.template.method,
        "uri": plan.template.uri,
        "concurrency": plan.concurrency,
        "rate": plan.rate,
        "processes": processes,
        "ok": tally.answered > 0 and not tally.failed and max(tally.statuses) < 500,
        "interrupted": tally.interrupted,
        "seconds": tally.seconds,
        "answered": tally.answered,
        "failed": tally.failed,
        "unfinished": tally.unfinished,
        "unsent": tally.unsent,
        "waited": tally.waited,
        "answered_per_second": tally.answered / tally.seconds,
        "bytes_sent": tally.sent,
        "bytes_received": tally.received,
        "statuses": {str(status): count for status, count in sorted(tally.statuses.items())},
        "failures": {
            kind: {"requests": count, "reason": tally.reasons[kind]} for kind, count in sorted(tally.failures.items())
        },
        "latency": latency,
        "histogram": [{"up_to": edge / SECOND, "requests": count} for edge, count in taken.rows()],
        "cpu": tally.cpu,
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    rate = f", {found['rate']:g} a second" if found["rate"] else ""
    at_a_time = f"{found['concurrency']:,} at a time{rate}"
    yield f"{found['address']}: {found['method']} {found['uri']}, {at_a_time}, for {found['seconds']:.1f} s"
    statuses = ", ".join(f"{count:,} of status {status}" for status, count in found["statuses"].items())
    yield f"  {found['answered']:,} answered, {found['answered_per_second']:,.1f} a second" + (
        f": {statuses}" if statuses else ""
    )
    yield f"  {found['failed']:,} failed"
    for kind, failure in found["failures"].items():
        yield f"    {failure['requests']:,} {kind}: {failure['reason']}"
    if found["waited"]:
        yield f"  {found['waited']:,} waited because the server's queue was full"
    sent, received = found["bytes_sent"], found["bytes_received"]
    yield f"  {_bytes(sent)} sent, {_bytes(sent / found['seconds'])}/s"
    yield f"  {_bytes(received)} received, {_bytes(received / found['seconds'])}/s"
    if found["latency"]:
        yield from _latency_lines(found)
    if found["interrupted"]:
        yield f"\ninterrupted, with {found['unfinished']:,} under way"
    if found["unsent"]:
        yield f"\n{found['unsent']:,} were due and not begun, because as many as --concurrency allows were under way"
    if found["cpu"] > _BUSY:
        yield f"\nthe load itself took {found['cpu']:.0%} of a CPU, so the server may be faster: try more --processes"


def _latency_lines(found: dict[str, Any]) -> Iterator[str]:
    since = ", since they were due" if found["rate"] else ""
    yield f"\nmilliseconds until the answer was whole{since}"
    cells = [(name, _milliseconds(value)) for name, value in found["latency"].items()]
    for row in zip(*cells, strict=True):
        yield "".join(f"  {cell:>{max(map(len, pair))}}" for cell, pair in zip(row, cells, strict=True))
    yield ""
    rows = [(_milliseconds(row["up_to"]), row["requests"]) for row in found["histogram"]]
    most = max(count for _, count in rows)
    for edge, count in rows:
        bar = "#" * math.ceil(_BAR * count / most)
        yield f"  up to {edge:>{max(len(text) for text, _ in rows)}}  {count:>{len(f'{most:,}')},}  {bar}".rstrip()


def _milliseconds(seconds: float) -> str:
    """Three digits that matter."""
    found = seconds * 1000
    return f"{found:,.{max(0, 2 - math.floor(math.log10(max(found, 0.001))))}f}"


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB"
