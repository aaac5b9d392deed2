"""Requests that break one rule each: name → bytes, the code and the status they are refused with.

Used twice: on the parser alone, and on a real server.
"""

from __future__ import annotations

from typing import NamedTuple

Pair = tuple[str | bytes, str | bytes]


class Refused(NamedTuple):
    data: bytes
    code: str
    status: int


def block(*pairs: Pair) -> bytes:
    texts = [text if isinstance(text, bytes) else text.encode("latin-1") for pair in pairs for text in pair]
    return b"".join(text + b"\0" for text in texts)


def netstring(content: bytes) -> bytes:
    return b"%d:%b," % (len(content), content)


FIRST: Pair = ("CONTENT_LENGTH", "0")
SCGI: Pair = ("SCGI", "1")
USUAL: tuple[Pair, ...] = (("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/"), ("PATH_INFO", "/"), ("QUERY_STRING", ""))


def request(*pairs: Pair) -> bytes:
    """A whole head: CONTENT_LENGTH, SCGI and the usual ones, then `pairs`."""
    return netstring(block(FIRST, SCGI, *USUAL, *pairs))


def of_length(content_length: str | bytes) -> bytes:
    return netstring(block(("CONTENT_LENGTH", content_length), SCGI, *USUAL))


GOOD = request()
CONTENT = GOOD.partition(b":")[2][:-1]
SIZE = len(CONTENT)


def length_as(text: bytes) -> bytes:
    """A good request whose netstring length is written so."""
    return text + b":" + CONTENT + b","


NOT_DIGITS = {
    "plus": b"+%d" % SIZE,
    "minus": b"-%d" % SIZE,
    "minus-zero": b"-0",
    "space-before": b" %d" % SIZE,
    "space-after": b"%d " % SIZE,
    "tab-before": b"\t%d" % SIZE,
    "newline-after": b"%d\n" % SIZE,
    "newline-before": b"\n%d" % SIZE,
    "underscore": b"_".join(b"%c" % digit for digit in b"%d" % SIZE),
    "hexadecimal": b"0x%x" % SIZE,
    "exponent": b"1e2",
    "fraction": b"%d.0" % SIZE,
    "padded": b"0%d" % SIZE,
    "padded-twice": b"00%d" % SIZE,
    "two-zeros": b"00",
    "nothing": b"",
    "letters": b"abc",
    "nul": b"\0",
    "arabic-digits": "١٢٣".encode(),
    "fullwidth-digits": "１２３".encode(),
    "superscript-in-latin-1": b"\xb2\xb3",
    "comma": b"1,0",
}

REFUSED: dict[str, Refused] = {
    **{f"length-{name}": Refused(length_as(text), "length-not-digits", 400) for name, text in NOT_DIGITS.items()},
    "http": Refused(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "length-not-digits", 400),
    "tls": Refused(bytes.fromhex("16030100f8010000f40303") + bytes(range(40)), "length-not-digits", 400),
    "fastcgi": Refused(bytes.fromhex("0101000100080000000100000000"), "length-not-digits", 400),
    "uwsgi": Refused(b"\0\x1e\0\0\x0eREQUEST_METHOD\x03\0GET", "length-not-digits", 400),
    "semicolon": Refused(b"%d;%b," % (SIZE, CONTENT), "length-not-digits", 400),
    "head-empty": Refused(b"0:,", "head-empty", 400),
    "comma-missing": Refused(b"%d:%b\0" % (SIZE, CONTENT), "no-comma", 400),
    "comma-is-semicolon": Refused(b"%d:%b;" % (SIZE, CONTENT), "no-comma", 400),
    "length-too-small": Refused(b"%d:%b," % (SIZE - 1, CONTENT), "no-comma", 400),
    "length-too-great": Refused(b"%d:%b,X" % (SIZE + 1, CONTENT), "no-comma", 400),
    "nul-missing-at-the-end": Refused(netstring(CONTENT + b"A\0b"), "head-not-terminated", 400),
    "no-nul-at-all": Refused(netstring(b"CONTENT_LENGTH"), "head-not-terminated", 400),
    "name-without-value": Refused(netstring(CONTENT + b"LONELY\0"), "odd-items", 400),
    "nul-in-value": Refused(request(("X", b"a\0b")), "odd-items", 400),
    "one-nul": Refused(netstring(b"\0"), "odd-items", 400),
    "two-nuls": Refused(netstring(b"\0\0"), "content-length-not-first", 400),
    "name-empty": Refused(request(("", "x")), "bad-name", 400),
    "name-with-space": Refused(request(("MY NAME", "x")), "bad-name", 400),
    "name-with-equals": Refused(request(("LD_PRELOAD=x", "x")), "bad-name", 400),
    "name-with-newline": Refused(request(("NAME\n", "x")), "bad-name", 400),
    "name-with-slash": Refused(request(("A/B", "x")), "bad-name", 400),
    "name-with-colon": Refused(request(("A:B", "x")), "bad-name", 400),
    "name-not-ascii": Refused(request((b"N\xc3\xa4me", "x")), "bad-name", 400),
    "name-not-ascii-digit": Refused(request((b"N\xb2", "x")), "bad-name", 400),
    "name-of-wsgi": Refused(request(("wsgi.url_scheme", "https")), "reserved-name", 400),
    "name-of-wsgi-input": Refused(request(("wsgi.input", "x")), "reserved-name", 400),
    "name-of-scgi": Refused(request(("scgi.worker", "x")), "reserved-name", 400),
    "content-length-second": Refused(netstring(block(SCGI, FIRST, *USUAL)), "content-length-not-first", 400),
    "content-length-absent": Refused(netstring(block(SCGI, *USUAL)), "content-length-not-first", 400),
    "content-length-in-lower-case": Refused(
        netstring(block(("content_length", "0"), SCGI, *USUAL)), "content-length-not-first", 400
    ),
    "content-length-twice": Refused(request(FIRST), "repeated-name", 400),
    "content-length-twice-differing": Refused(request(("CONTENT_LENGTH", "5")), "repeated-name", 400),
    "scgi-twice": Refused(request(SCGI), "repeated-name", 400),
    "other-name-twice": Refused(request(("PATH_INFO", "/admin")), "repeated-name", 400),
    "unknown-name-twice": Refused(request(("X", "1"), ("X", "1")), "repeated-name", 400),
    "scgi-absent": Refused(netstring(block(FIRST, *USUAL)), "scgi-missing", 400),
    "scgi-is-2": Refused(netstring(block(FIRST, ("SCGI", "2"), *USUAL)), "scgi-not-1", 400),
    "scgi-is-01": Refused(netstring(block(FIRST, ("SCGI", "01"), *USUAL)), "scgi-not-1", 400),
    "scgi-is-empty": Refused(netstring(block(FIRST, ("SCGI", ""), *USUAL)), "scgi-not-1", 400),
    "scgi-is-1-newline": Refused(netstring(block(FIRST, ("SCGI", "1\n"), *USUAL)), "scgi-not-1", 400),
    "scgi-in-lower-case": Refused(netstring(block(FIRST, ("scgi", "1"), *USUAL)), "scgi-missing", 400),
    "header-with-lf": Refused(request(("HTTP_X_A", "a\nb")), "line-break-in-header", 400),
    "header-with-cr": Refused(request(("HTTP_HOST", "a\rb")), "line-break-in-header", 400),
    "header-with-crlf": Refused(request(("HTTP_COOKIE", "a\r\nX: y")), "line-break-in-header", 400),
    "withheld-header-with-crlf": Refused(request(("HTTP_PROXY", "a\r\nX: y")), "line-break-in-header", 400),
    "repeated-header-with-lf": Refused(
        request(("HTTP_X_A", "a"), ("HTTP_X_A", "b\n")), "line-break-in-header", 400
    ),
    **{
        f"content-length-{name}": Refused(of_length(text), "content-length-not-digits", 400)
        for name, text in {
            "plus": "+5",
            "minus": "-5",
            "minus-zero": "-0",
            "space-before": " 5",
            "space-after": "5 ",
            "space": " ",
            "underscore": "0_5",
            "newline": "5\n",
            "hexadecimal": "0x5",
            "fraction": "5.0",
            "exponent": "1e3",
            "word": "five",
            "list": "5, 5",
            "superscript": b"\xb2",
            "arabic-digits": "٥".encode(),
            "fullwidth-digits": "５".encode(),
        }.items()
    },
    "body-too-large": Refused(of_length(str((1 << 30) + 1)), "body-too-large", 413),
    "body-too-large-by-far": Refused(of_length("9" * 19), "body-too-large", 413),
    "body-length-of-many-digits": Refused(of_length("9" * 5000), "body-too-large", 413),
    "too-many-variables": Refused(
        request(*((f"HTTP_X_{number}", "") for number in range(2001 - 6))), "too-many-variables", 431
    ),
    "too-many-repeated-variables": Refused(request(*[("HTTP_X", "")] * (2001 - 6)), "too-many-variables", 431),
    "too-many-nuls": Refused(netstring(block(FIRST, SCGI) + bytes(1_000_000)), "too-many-variables", 431),
    "head-too-large": Refused(b"%d:CONTENT_LENGTH\0000\0" % ((1 << 20) + 1), "head-too-large", 431),
    "head-of-gigabytes": Refused(b"9999999999:CONTENT_LENGTH\0000\0", "head-too-large", 431),
    "head-length-of-twenty-digits": Refused(b"9" * 20 + b":", "head-too-large", 431),
    "head-length-of-twenty-one-digits": Refused(b"9" * 21 + b":", "head-too-large", 431),
    "head-length-of-digits-without-end": Refused(b"1" * 5000, "head-too-large", 431),
}  # fmt: skip
