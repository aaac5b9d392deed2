"""Parsers: what each accepts, and the sentence for what it does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scgi.config import parse

ACCEPTED: list[tuple[Callable[[object], object], object, object]] = [
    (parse.whole(1), "7", 7),
    (parse.whole(1), " 7\n", 7),
    (parse.whole(0), 0, 0),
    (parse.duration(zero=False), "30", 30.0),
    (parse.duration(zero=False), "1.5", 1.5),
    (parse.duration(zero=False), "30s", 30.0),
    (parse.duration(zero=False), "2m", 120.0),
    (parse.duration(zero=False), "1h", 3600.0),
    (parse.duration(zero=False), "500ms", 0.5),
    (parse.duration(zero=True), 0, 0.0),
    (parse.size(0), "65536", 65536),
    (parse.size(0), "64k", 65536),
    (parse.size(0), "64KiB", 65536),
    (parse.size(0), "1.5m", 3 << 19),
    (parse.size(0), "1G", 1 << 30),
    (parse.size(0), 12, 12),
    (parse.choice("a", "b"), "a", "a"),
    (parse.flag, "yes", True),
    (parse.flag, "Off", False),
    (parse.flag, True, True),
    (parse.mount, "/", ""),
    (parse.mount, "", ""),
    (parse.mount, "/app/", "/app"),
    (parse.mount, "/a/b", "/a/b"),
    (parse.octal, "0660", 0o660),
    (parse.octal, "660", 0o660),
    (parse.octal, "0o660", 0o660),
    (parse.octal, 0o660, 0o660),
    (parse.assignment, "A=b=c", ("A", "b=c")),
    (parse.assignment, "A=", ("A", "")),
    (parse.path, "", ""),
    (parse.path, "/a/../b", "/b"),
    (parse.application, "module:app", "module:app"),
]

REFUSED: list[tuple[Callable[[object], object], str, tuple[object, ...]]] = [
    (
        parse.whole(1),
        "a whole number of at least 1",
        ("0", "-1", "+1", "1_0", "\u0663", "", "1.0", 1.0, True, None),
    ),
    (
        parse.duration(zero=False),
        "a time of more than 0 seconds (30, 1.5, 30s, 2m)",
        ("0", 0, "-1", "x", "1e3", "inf", float("nan"), float("inf"), True, []),
    ),
    (parse.duration(zero=True), "a time of 0 seconds or more (30, 1.5, 30s, 2m)", ("-1",)),
    (
        parse.size(10),
        "a size of at least 10 bytes (65536, 64k, 1m, 1g)",
        ("9", "k", "1t", "-1m", 1.5, True),
    ),
    (parse.choice("a", "b", "c"), "a, b or c", ("d", 1)),
    (parse.flag, "yes or no", ("maybe", 2)),
    (
        parse.mount,
        "a path such as /app (or / for the root)",
        ("app", "//", "/a//b", "/a?b", "/a#", "/a b", "/a\n", 1),
    ),
    (
        parse.octal,
        "an octal mode from 0 to 0777 ('0660', or 0o660 as a number)",
        ("999", "01777", "-1", 660, "rw", True),
    ),
    (parse.assignment, "NAME=VALUE", ("A", "=b", " =b", "A=\0", 3)),
    (parse.path, "a path", (3, "a\0b")),
    (parse.address, "an address", ([],)),
    (parse.application, "module:attribute, module:factory() or path/to/file.py", ("", " ", 3, "a\0")),
]


@pytest.mark.parametrize(("read", "raw", "value"), ACCEPTED)
def test_a_value_is_read(read: Callable[[object], object], raw: object, value: object) -> None:
    assert read(raw) == value


@pytest.mark.parametrize(
    ("read", "expected", "raw"), [(read, expected, raw) for read, expected, raws in REFUSED for raw in raws]
)
def test_a_refusal_says_what_was_expected_and_what_was_found(
    read: Callable[[object], object], expected: str, raw: object
) -> None:
    with pytest.raises(ValueError) as caught:
        read(raw)
    assert str(caught.value) == f"expected {expected}, got {raw!r}"


def test_a_refused_address_says_what_the_grammar_says() -> None:
    with pytest.raises(ValueError, match=r"^expected a port \(4000\), HOST:PORT, .* got 'x:y'$"):
        parse.address("x:y")
