"""What a scenario hands back: a table of figures, the aims it is judged by, and what has to be said beside them.

All of it is plain data that goes into results.json as it is; the report and the page of the docs are rendered from
there, never from anything else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bench.rounds import AGAIN, Measured, Spread

Row = dict[str, Any]
"""One line: "name" and a figure for each column's key (a number, a string, or None where there is none)."""


@dataclass(frozen=True)
class Column:
    key: str
    title: str
    digits: int = 1  # after the point
    spread: bool = False  # with its quartiles, which a row has as KEY_low and KEY_high


@dataclass(frozen=True)
class Aim:
    """What is to be reached: `value` at most `limit`, or at least. A value of None could not be measured."""

    text: str
    value: float | None
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass
class Table:
    """The result of one scenario, or of a part of it. Names of scenarios are the words of --only."""

    name: str
    title: str
    text: str  # one paragraph: what is asked, of whom, how often
    columns: list[Column]
    rows: list[Row]
    chart: str | None = None  # the key of the column that is drawn as bars
    aims: list[Aim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # who is left out, and why
    trusted: bool = True

    def data(self) -> dict[str, Any]:
        return asdict(self) | {"aims": [asdict(aim) | {"met": aim.met} for aim in self.aims]}


CPU_COLUMNS = [
    Column("cpu", "µs CPU per request"),
    Column("to_uwsgi", "× uWSGI", 2, spread=True),
    Column("to_floor", "× floor", 2, spread=True),
    Column("rate", "requests/s", 0),
    Column("p50", "p50 µs", 0),
    Column("p99", "p99 µs", 0),
    Column("p999", "p99.9 µs", 0),
]


def cpu_rows(measured: Measured, bases: dict[str, str] | None = None) -> list[Row]:
    """A row per server for CPU_COLUMNS; `bases`: a column of ratios, and the server that it compares with."""
    rows = []
    for name, one in measured.series.items():
        cpu = Spread.of(one.cpu.values())
        row: Row = {
            "name": name, "version": one.server.version, "requests": one.requests,
            "cpu": cpu.median, "cpu_low": cpu.low, "cpu_high": cpu.high, "rate": Spread.of(one.rate.values()).median,
            "p50": one.percentile(0.5), "p99": one.percentile(0.99), "p999": one.percentile(0.999),
        }  # fmt: skip
        for key, base in (bases or {"to_uwsgi": "uWSGI", "to_floor": "floor"}).items():
            ratio = measured.ratio(name, base)
            row[key] = ratio and ratio.median
            row[f"{key}_low"], row[f"{key}_high"] = (ratio and ratio.low, ratio and ratio.high)
        rows.append(row)
    return rows


def twin_note(measured: Measured) -> list[str]:
    """What the server that is listed twice says about the run."""
    return [
        f"{name.removesuffix(AGAIN)} listed twice: {ratio.median:.3f} (quartiles {ratio.low:.3f} to {ratio.high:.3f})"
        + ("" if measured.trusted() else ": NOT TO BE TRUSTED, the machine was not quiet enough")
        for name, ratio in measured.twins().items()
    ]
