"""What `make demo` serves: one WSGI application that shows what the server does with your request.

    scgi serve --http 127.0.0.1:8000 examples/demo.py

It needs the standard library alone; its HTML is in demo_pages/. Nothing is stored: an upload is measured and
hashed as it passes by.
"""

import hashlib
import html
import itertools
import os
import time
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from string import Template
from urllib.parse import parse_qs, quote

PAGES = Path(__file__).parent / "demo_pages"
LAYOUT = Template((PAGES / "layout.html").read_text("utf-8"))
INDEX = Template((PAGES / "index.html").read_text("utf-8"))
FORM = (PAGES / "form.html").read_text("utf-8")

LARGEST_UPLOAD = 64 << 20
BLOCK = 1 << 16
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'"

served = itertools.count(1)  # each worker is a process of its own, so each counts for itself


class Refusal(Exception):
    """A request that cannot be met: the status line and a sentence for the reader."""


def application(environ, start_response):
    number = next(served)
    pages = {"": index, "/": index, "/clock": clock, "/variables": variables, "/form": form}
    try:
        status, kind, text = pages.get(environ["PATH_INFO"], missing)(environ, number)
    except Refusal as refusal:
        status, sentence = refusal.args
        status, kind, text = show(environ, sentence, f"<p>{html.escape(sentence)}</p>", status=status)
    content = text.encode("utf-8")
    headers = {
        "Content-Type": f"{kind}; charset=utf-8",
        "Content-Length": str(len(content)),
        "Content-Security-Policy": POLICY,
        "Cache-Control": "no-store",
    }
    start_response(status, list(headers.items()))
    return [content]


# --- the pages ---------------------------------------------------------------------------------


def index(environ, number):
    wire = from_the_wire(environ)
    rows = (
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value) or "<i>empty</i>"}</td></tr>'
        for name, value in wire.items()
    )
    body = INDEX.substitute(
        root=root_of(environ),
        pid=os.getpid(),
        ordinal=ordinal(number),
        browser=html.escape(browser_name(wire.get("HTTP_USER_AGENT", ""))),
        client=html.escape(wire.get("REMOTE_ADDR") or "somewhere"),
        front=html.escape(wire.get("HTTP_HOST") or wire.get("SERVER_NAME") or "web server"),
        method=html.escape(wire.get("REQUEST_METHOD", "")),
        path=html.escape(wire["SCRIPT_NAME"] + wire["PATH_INFO"]),
        count=len(wire),
        rows="\n".join(rows),
    )
    return show(environ, f"Answered by worker {os.getpid()}", body)


def clock(environ, number):
    query = environ.get("QUERY_STRING", "")
    body = f'<p class="time">{time.ctime()}</p>'
    if query:
        order = {name: values[-1] for name, values in parse_qs(query).items()}
        # Without either of the two this raises, as any application may: the server answers 500 and goes on.
        body += "<p>One <b>{}</b> and one <b>{}</b>, coming up.</p>".format(
            html.escape(order["pizza"]), html.escape(order["drink"])
        )
    body += (
        '<p><a href="?pizza=hawaii&amp;drink=beer">Order a pizza and a drink</a>, or '
        '<a href="?pizza=hawaii">forget the drink</a>: the program then fails, you get an error page, '
        "the log the traceback, and the next request is served as if nothing had happened.</p>"
    )
    return show(environ, "The clock", body)


def variables(environ, number):
    lines = (f"{name}: {value!r}\n" for name, value in from_the_wire(environ).items())
    return "200 OK", "text/plain", "".join(lines)


def form(environ, number):
    if environ["REQUEST_METHOD"] != "POST":
        return show(environ, "Send a file", FORM)
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > LARGEST_UPLOAD:
        raise Refusal("413 Content Too Large", f"This form takes up to {LARGEST_UPLOAD >> 20} MiB.")
    boundary = headers_of("Content-Type: " + environ.get("CONTENT_TYPE", "")).get_boundary()
    if not boundary:
        raise Refusal("400 Bad Request", "A form of the kind multipart/form-data was expected.")
    try:
        parts = read_form(environ["wsgi.input"], length, boundary.encode("latin-1"))
        fields = {part.name: part for part in parts}
        note, file = fields["note"], fields["file"]
    except (ValueError, KeyError):
        raise Refusal("400 Bad Request", "The form did not arrive whole.") from None
    facts = {
        "Note": note.start.decode("utf-8", "replace") or "none",
        "File": file.filename or "none",
        "Size": f"{file.size:,} bytes",
        "SHA-256": file.digest.hexdigest(),
        "Received by": f"worker {os.getpid()}",
    }
    rows = "".join(f"<dt>{name}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())
    return show(environ, "It arrived", f'<dl>{rows}</dl><p><a href="form">Send another</a></p>')


def missing(environ, number):
    raise Refusal("404 Not Found", "There is no such page.")


def show(environ, title, body, status="200 OK"):
    root, pid = root_of(environ), os.getpid()
    page = LAYOUT.substitute(title=html.escape(title), root=root, body=body, pid=pid)
    return status, "text/html", page


# --- what the pages need -----------------------------------------------------------------------


def from_the_wire(environ):
    """The request's variables as people read them; WSGI's own entries have a dot in their names."""
    return {
        name: value.encode("latin-1").decode("utf-8", "replace")
        for name, value in environ.items()
        if isinstance(value, str) and "." not in name
    }


def root_of(environ):
    """What the links begin with: the demonstration may be mounted anywhere."""
    return quote(environ["SCRIPT_NAME"], encoding="latin-1")


def ordinal(number):
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number // 10 % 10 != 1 else "th"
    return f"{number}{ending}"


def browser_name(agent):
    """The best known name in a User-Agent; nearly all of them claim to be several."""
    names = ("Firefox", "Edg", "OPR", "Chrom", "Safari", "curl")
    found = next((name for name in names if name in agent), "")
    return {"Edg": "Edge", "OPR": "Opera", "Chrom": "Chrome", "": "your browser"}.get(found, found)


class Part:
    """One field of a form: its names, its first bytes, and of all of them the number and the hash."""

    def __init__(self, name: str, filename: str) -> None:
        self.name = name
        self.filename = filename
        self.start = b""
        self.size = 0
        self.digest = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.start += data[: 1000 - len(self.start)]
        self.size += len(data)
        self.digest.update(data)


def headers_of(text: str) -> Message:
    return HeaderParser().parsestr(text)


def read_form(stream, length: int, boundary: bytes) -> list[Part]:
    """Read a multipart/form-data body block by block. ValueError says that it is not one, or is cut off."""
    delimiter = b"\r\n--" + boundary
    buffer = b"\r\n"  # so that the first delimiter looks like the others
    parts: list[Part] = []
    part = None
    while block := stream.read(min(BLOCK, length)):
        length -= len(block)
        buffer += block
        while (at := buffer.find(delimiter)) >= 0:
            if part:
                part.add(buffer[:at])
                part = None
            buffer = buffer[at:]
            head, blank, rest = buffer[len(delimiter) :].partition(b"\r\n\r\n")
            if head.startswith(b"--"):
                return parts
            if not blank:
                break  # the part's own headers have not all arrived
            headers = headers_of(head.decode("utf-8", "replace").strip())
            name = headers.get_param("name", "", "content-disposition")
            part = Part(str(name), headers.get_filename(""))
            parts.append(part)
            buffer = rest
        if not buffer.startswith(delimiter):
            keep = len(delimiter) - 1  # a delimiter may be cut in two by the block's end
            if part:
                part.add(buffer[:-keep])
            buffer = buffer[-keep:]
        elif len(buffer) > 2 * BLOCK:
            raise ValueError("a part's headers do not end")
    raise ValueError("the form ends too early")


if __name__ == "__main__":
    import scgi

    scgi.serve(application, listen="127.0.0.1:4000", http="127.0.0.1:8000")
