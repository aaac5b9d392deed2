"""The WSGI application that test_wsgi.py serves: one page per behaviour, chosen by the first word of the path.

What the client cannot see (was close() called?) is told through files in the folder FACTS.
"""

import bz2
import gzip
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

FACTS = Path(os.environ["FACTS"])
TEXT = [("Content-Type", "text/plain; charset=utf-8")]
PAGES = {}


def page(function: Any) -> Any:
    PAGES[function.__name__] = function
    return function


def application(environ: dict[str, Any], start_response: Any) -> Any:
    name = environ["PATH_INFO"].split("/")[1]
    return PAGES[name](environ, start_response)


def note(fact: str, text: str = "") -> None:
    with (FACTS / fact).open("a") as file:
        file.write(text + "\n")


def wait_for(fact: str) -> None:
    deadline = time.monotonic() + 20
    while not (FACTS / fact).exists():
        assert time.monotonic() < deadline, f"waited for {fact} in vain"
        time.sleep(0.005)


class Noted:
    """An iterable that notes its close()."""

    def __init__(self, environ: dict[str, Any], blocks: Any) -> None:
        self.blocks = blocks
        self.fact = environ["QUERY_STRING"]

    def __iter__(self) -> Any:
        return iter(self.blocks)

    def close(self) -> None:
        note(self.fact, "closed")


# --- the environment -------------------------------------------------------------------------------


@page
def environ(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", TEXT)
    seen = {name: value if isinstance(value, (str, bool)) else repr(value) for name, value in environ.items()}
    return [json.dumps(seen).encode()]


@page
def valid(environ: dict[str, Any], start_response: Any) -> Any:
    return validator(_valid)(environ, start_response)


def _valid(environ: dict[str, Any], start_response: Any) -> Any:
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
    print("a line for", "the log", file=environ["wsgi.errors"])
    text = f"{environ['REQUEST_METHOD']} {len(body)}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else text]


meeting = threading.Barrier(4)


@page
def meet(environ: dict[str, Any], start_response: Any) -> Any:
    meeting.wait(20)  # passes when four requests are here, in one process, at once
    start_response("200 OK", TEXT)
    return [b"%d" % os.getpid()]


# --- what is sent ----------------------------------------------------------------------------------


@page
def one(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", TEXT)
    return [b"one block"]


@page
def several(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", TEXT)
    return [b"one, ", b"", bytearray(b"two, "), memoryview(b"three")]


@page
def none(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", TEXT)
    return []


@page
def stream(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", TEXT)

    def blocks() -> Any:
        yield b"first"
        wait_for(environ["QUERY_STRING"])
        yield b"second"

    return blocks()


@page
def late_start(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", TEXT)
    yield b"a generator "
    yield b"calls start_response at its first step"


@page
def write(environ: dict[str, Any], start_response: Any) -> Any:
    write = start_response("200 OK", TEXT)
    write(b"written")
    wait_for(environ["QUERY_STRING"])
    write(b", written")
    return [b", returned"]


@page
def write_text(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", TEXT)("text")
    return []


@page
def length(environ: dict[str, Any], start_response: Any) -> Any:
    """?declared,block,block…: the sizes."""
    declared, *sizes = map(int, environ["QUERY_STRING"].split(","))
    start_response("200 OK", [*TEXT, ("Content-Length", str(declared))])
    blocks = (b"x" * size for size in sizes)
    return list(blocks) if environ["PATH_INFO"].endswith("/list") else blocks


@page
def endless(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [*TEXT, ("Content-Length", "100000")])

    def blocks() -> Any:
        while True:
            yield b"x" * 65536

    return Noted(environ, blocks())


@page
def status(environ: dict[str, Any], start_response: Any) -> Any:
    """/status/304?fact"""
    code = environ["PATH_INFO"].split("/")[2]
    headers = [] if code in ("204", "304") else TEXT
    start_response(f"{code} Whatever", [*headers, ("X-Own", "yes")])
    return Noted(environ, [b"body", b"and more"])


@page
def header(environ: dict[str, Any], start_response: Any) -> Any:
    """?name=value, as JSON in the body"""
    name, value = json.loads(environ["wsgi.input"].read())
    start_response("200 OK", [*TEXT, (name, value)])
    return [b"sent"]


@page
def cookies(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [*TEXT, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Connection", "close")])
    return [b"two"]


@page
def bad_result(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", TEXT)
    results = {"none": None, "str": "text", "bytes": b"text", "strs": ["te", "xt"], "number": 5, "gen": iter(["x"])}
    return results[environ["QUERY_STRING"]]


# --- start_response --------------------------------------------------------------------------------


@page
def twice(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", TEXT)
    start_response("201 Created", TEXT)
    return [b"never"]


@page
def never(environ: dict[str, Any], start_response: Any) -> Any:
    return [b"never"]


@page
def replaced(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [*TEXT, ("X-First", "yes"), ("Content-Length", "1")])
    try:
        raise ValueError("on second thoughts")
    except ValueError:
        start_response("503 Busy", [*TEXT, ("X-Second", "yes")], sys.exc_info())
    return [b"replaced"]


@page
def too_late(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", TEXT)

    def blocks() -> Any:
        yield b"begun"
        try:
            raise ValueError("after the first block")
        except ValueError:
            start_response("500 No", TEXT, sys.exc_info())
        yield b"never"

    return Noted(environ, blocks())


# --- failures --------------------------------------------------------------------------------------


class Nasty(Exception):
    def __str__(self) -> str:
        raise SystemExit("even its text fails")


def recursion() -> None:
    recursion()


@page
def fail(environ: dict[str, Any], start_response: Any) -> Any:
    kind = environ["QUERY_STRING"]
    if kind == "RecursionError":
        recursion()
    if kind == "OurError":
        from scgi.util import parse_env

        parse_env(b"junk")
    errors = {"ValueError": ValueError("seen <in> the log"), "Nasty": Nasty(), "MemoryError": MemoryError()}
    errors |= {"SystemExit": SystemExit(3), "KeyboardInterrupt": KeyboardInterrupt(), "GeneratorExit": GeneratorExit()}
    raise errors[kind]


@page
def fail_later(environ: dict[str, Any], start_response: Any) -> Any:
    """/fail_later/COUNT: that many blocks, then an exception"""
    start_response("200 OK", TEXT)

    def blocks() -> Any:
        for _ in range(int(environ["PATH_INFO"].split("/")[2])):
            yield b"block"
        raise ValueError("while iterating")

    return Noted(environ, blocks())


@page
def fail_to_close(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", TEXT)

    class Result(list[bytes]):
        def close(self) -> None:
            raise SystemExit("close() fails")

    return Result([b"whole"])


@page
def pour(environ: dict[str, Any], start_response: Any) -> Any:
    """Without end, for a client that leaves."""
    start_response("200 OK", TEXT)

    def blocks() -> Any:
        while True:
            yield b"x" * 65536

    return Noted(environ, blocks())


# --- files -----------------------------------------------------------------------------------------


class Proxy:
    """A file of which only read() can tell what is in it."""

    def __init__(self, file: Any) -> None:
        self.read, self.close = file.read, file.close


@page
def file(environ: dict[str, Any], start_response: Any) -> Any:
    """/file/KIND?fact[,declared[,offset]]"""
    fact, *numbers = environ["QUERY_STRING"].split(",")
    content = (FACTS / "file").read_bytes()
    kind = environ["PATH_INFO"].split("/")[2]
    source: Any
    if kind == "real":
        source = (FACTS / "file").open("rb")
    elif kind == "unbuffered":
        source = (FACTS / "file").open("rb", buffering=0)
    elif kind == "bytes":
        source = io.BytesIO(content)
    elif kind == "proxy":
        source = Proxy(io.BytesIO(content))
    elif kind == "pipe":
        source = subprocess.Popen(["cat", str(FACTS / "file")], stdout=subprocess.PIPE).stdout
    elif kind == "gzip":
        (FACTS / f"{fact}.gz").write_bytes(gzip.compress(content))
        source = gzip.open(FACTS / f"{fact}.gz", "rb")
    elif kind == "bz2":
        (FACTS / f"{fact}.bz2").write_bytes(bz2.compress(content))
        source = bz2.open(FACTS / f"{fact}.bz2", "rb")
    elif kind == "fresh":
        source = tempfile.TemporaryFile()
        source.write(content)
        source.seek(0)
    elif kind == "proc":
        source = open("/proc/self/status", "rb")
    headers = [*TEXT, ("X-File", kind)]
    if numbers and numbers[0]:
        headers.append(("Content-Length", numbers[0]))
    if len(numbers) > 1:
        source.read(1)  # so that a buffer is filled and the descriptor stands elsewhere
        source.seek(int(numbers[1]))
    start_response("200 OK", headers)
    wrapper = environ["wsgi.file_wrapper"](source, 10000)
    close = wrapper.close
    wrapper.close = lambda: (close(), note(fact, "closed"))
    return wrapper


@page
def unstarted_file(environ: dict[str, Any], start_response: Any) -> Any:
    return environ["wsgi.file_wrapper"]((FACTS / "file").open("rb"))


# --- the request's body ----------------------------------------------------------------------------


@page
def body(environ: dict[str, Any], start_response: Any) -> Any:
    """/body/HOW"""
    input = environ["wsgi.input"]
    how = environ["PATH_INFO"].split("/")[2]
    if how == "read":
        got = [input.read(), input.read(), input.read(10)]
    elif how == "pieces":
        got = list(iter(lambda: input.read(1000), b""))
    elif how == "beyond":
        got = [input.read(int(environ["CONTENT_LENGTH"]) + 1000), input.readline(), b"".join(input.readlines())]
    elif how == "readline":
        got = list(iter(input.readline, b""))
        assert all(line.count(b"\n") <= 1 for line in got)
    elif how == "short_lines":
        got = list(iter(lambda: input.readline(7), b""))
        assert max(map(len, got), default=0) <= 7
    elif how == "readlines":
        got = input.readlines()
    elif how == "hint":
        got = input.readlines(10)
        assert len(got) < 100
        got += input.readlines()
    elif how == "iterate":
        got = list(input)
    start_response("200 OK", TEXT)
    return [b"".join(got)]


@page
def ignore_body(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("413 Too Large", TEXT)
    return [b"unread"]


@page
def cut_body(environ: dict[str, Any], start_response: Any) -> Any:
    try:
        environ["wsgi.input"].read()
    except OSError as error:
        note(environ["QUERY_STRING"], f"{type(error).__name__}: {error}")
        raise
    start_response("200 OK", TEXT)
    return [b"it looked complete"]


@page
def end_input(environ: dict[str, Any], start_response: Any) -> Any:
    """?close or ?detach"""
    environ["wsgi.input"].read(1)
    getattr(environ["wsgi.input"], environ["QUERY_STRING"])()
    start_response("200 OK", TEXT)
    return [b"ended"]


kept: list[Any] = []


@page
def keep_input(environ: dict[str, Any], start_response: Any) -> Any:
    """Reads on in what an earlier request left behind."""
    got = b""
    for input in kept:
        try:
            got += input.read()
        except OSError:
            pass
    kept[:] = [environ["wsgi.input"]]
    start_response("200 OK", TEXT)
    return [bytes(sorted(set(got)))]


# --- the log ---------------------------------------------------------------------------------------


@page
def log(environ: dict[str, Any], start_response: Any) -> Any:
    logging.getLogger("shop").warning("an order came in")
    print("pieces", "of", "one line", file=environ["wsgi.errors"])
    environ["wsgi.errors"].write("no line end\x1b[2J\rforged")
    start_response("200 OK", TEXT)
    return [b"logged"]
