"""Where settings come from: each source becomes a `Layer` of raw values; `resolve` lays one over the other.

Nothing here knows a setting by name: the rows say what there is. Problems are collected, not raised, so that
a person sees all of them at once. Imports `errors`.
"""

from __future__ import annotations

import difflib
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from scgi.errors import ConfigError

COMMAND_LINE: Final = "command line"
PREFIX: Final = "SCGI_"

Problem = tuple[str, str]  # the source it lies in, and a sentence


@dataclass(frozen=True)
class Row:
    """One setting: everything that command line, environment, file and reference page need to know of it."""

    name: str  # as Python writes it: max_workers
    section: str
    parse: Callable[[object], Any]  # one value, or ValueError with a sentence
    help: str
    metavar: str = ""
    unit: str = ""  # "seconds", "bytes", "octal": how a value is written down
    default_text: str = ""  # where the default is computed
    collect: Callable[[list[Any]], Any] | None = None  # repeatable: what becomes of the parsed values
    is_flag: bool = False
    positional: bool = False
    sources: frozenset[str] = frozenset({"option", "environment", "file", "keyword"})

    @property
    def key(self) -> str:
        return self.name.replace("_", "-")

    @property
    def option(self) -> str:
        return self.metavar if self.positional else "--" + self.key

    @property
    def negatable(self) -> bool:
        """A flag that other sources can give too has a --no- form to overrule them."""
        return self.is_flag and "file" in self.sources

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    def value(self, raw: object) -> Any:
        """The setting's value from a raw one. Raises ValueError with a sentence."""
        if self.collect is None:
            return self.parse(raw)
        if isinstance(raw, Mapping):
            raw = [f"{name}={value}" for name, value in raw.items()]
        return self.collect([self.parse(one) for one in (raw if isinstance(raw, list | tuple) else [raw])])


class Given(NamedTuple):
    raw: object
    source: str  # "command line", "SCGI_MAX_WORKERS", "scgi.toml:7"
    label: str  # what a sentence about it begins with


@dataclass
class Layer:
    """What one source says, by the rows' names, and what is wrong with it already."""

    given: dict[str, Given] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def command_line(rows: Iterable[Row], options: Mapping[str, object]) -> Layer:
    """`options` as click gives them: None, or an empty tuple, where the person said nothing."""
    layer = Layer()
    for row in rows:
        raw = options.get(row.name)
        if raw is not None and raw != ():
            layer.given[row.name] = Given(raw, COMMAND_LINE, row.option)
    return layer


def environment(rows: Iterable[Row], environ: Mapping[str, str]) -> Layer:
    """SCGI_… variables; an empty one counts as not set.

    A name that looks like a typing error is a problem, any other unknown one is not: container platforms put
    SCGI_PORT and its like there of their own accord.
    """
    layer = Layer()
    known = {row.variable: row for row in rows}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or not environ[name]:
            continue
        row = known.get(name)
        if row is None:
            if near := _nearest(name, [v for v, r in known.items() if "environment" in r.sources]):
                layer.problems.append((name, f"{name}: there is no such setting; did you mean {near}?"))
        elif "environment" not in row.sources:
            layer.problems.append((name, f"{name}: {_command_line_only(row)}"))
        else:
            raw: object = environ[name]
            if row.collect is not None:
                try:
                    raw = shlex.split(environ[name])
                except ValueError as error:
                    layer.problems.append((name, f"{name}: expected words separated by spaces ({error})"))
                    continue
            layer.given[row.name] = Given(raw, name, name)
    return layer


def keywords(rows: Iterable[Row], given: Mapping[str, object]) -> Layer:
    layer = Layer()
    known = {row.name: row for row in rows if "keyword" in row.sources}
    for name, raw in given.items():
        if name in known:
            layer.given[name] = Given(raw, "keyword", name)
        else:
            layer.problems.append(("keyword", f"{name}: {_unknown(name, list(known))}"))
    return layer


def toml_file(rows: Iterable[Row], name: str) -> Layer:
    """The file's keys, `max-workers` or `max_workers`. An unreadable file is a problem like any other."""
    layer = Layer()
    known = {row.key: row for row in rows}
    try:
        with open(name, "rb") as file:
            text = file.read().decode("utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        layer.problems.append((name, f"{name}: the settings file cannot be read: {error.strerror or error}"))
        return layer
    except UnicodeDecodeError as error:
        layer.problems.append((name, f"{name}: not UTF-8 text (at byte {error.start})"))
        return layer
    except tomllib.TOMLDecodeError as error:
        found = re.match(r"(.*) \(at line (\d+), column \d+\)", str(error), re.DOTALL)
        where, what = (f"{name}:{found[2]}", found[1]) if found else (name, str(error))
        layer.problems.append((where, f"{where}: not valid TOML: {what}"))
        return layer
    for key, raw in table.items():
        where = f"{name}:{_line_of(key, text)}"
        row = known.get(key.replace("_", "-"))
        if row is None or "file" not in row.sources:
            usable = [one.key for one in known.values() if "file" in one.sources]
            why = _command_line_only(row) if row else _unknown(key, usable)
            layer.problems.append((where, f"{where}: {key}: {why}"))
        elif row.name in layer.given:
            before = layer.given[row.name].source.rpartition(":")[2]
            layer.problems.append((where, f"{where}: {key}: the same setting is on line {before} already"))
        else:
            layer.given[row.name] = Given(raw, where, f"{where}: {key}")
    return layer


def resolve(rows: Iterable[Row], layers: Iterable[Layer]) -> tuple[dict[str, Any], dict[str, Given], list[Problem]]:
    """Values, what each was given as, and all problems. Layers come weakest first."""
    values: dict[str, Any] = {}
    origins: dict[str, Given] = {}
    problems: list[Problem] = []
    for layer in layers:
        problems += layer.problems
        for row in rows:
            if row.name not in layer.given:
                continue
            given = layer.given[row.name]
            try:
                values[row.name] = row.value(given.raw)
                origins[row.name] = given
            except ValueError as error:
                problems.append((given.source, f"{given.label}: {error}"))
    return values, origins, problems


def raise_problems(problems: list[Problem]) -> None:
    """One `ConfigError` with all sentences; its `source` is theirs if they share one."""
    if not problems:
        return
    sentences = tuple(sentence for _, sentence in problems)
    error = ConfigError("\n".join(sentences), problems=sentences)
    sources = {source for source, _ in problems}
    error.source = sources.pop() if len(sources) == 1 else ""
    raise error


def _nearest(name: str, known: list[str]) -> str:
    found = difflib.get_close_matches(
        name.removeprefix(PREFIX), [one.removeprefix(PREFIX) for one in known], n=1, cutoff=0.8
    )
    return PREFIX + found[0] if found else ""


def _unknown(name: str, known: list[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"there is no such setting; did you mean {found[0]}?" if found else "there is no such setting"


def _command_line_only(row: Row) -> str:
    return f"this can be given on the command line only, as {row.option}"


def _line_of(key: str, text: str) -> int:
    """A simple scan; a key inside a multi-line string could mislead it, and then only the number is wrong."""
    found = re.search(rf"""^[ \t]*\[*[ \t]*["']?{re.escape(key)}["']?[ \t]*[=\].]""", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1
