"""From results.json to what people read: the report, its charts, and the page of the docs.

What is rendered depends on nothing but the results: no figure is typed, and a test renders the page again.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from bench.charts import bars
from bench.plan import ROOT

RESULTS = ROOT / "bench/results"
PAGE = ROOT / "docs/explanation/performance.md"

_PAGE = """\
# Performance

<!-- Rendered from bench/results/results.json by `make bench`. Change bench/render.py, or measure again. -->

How much CPU time a request costs, beside other servers and beside the least that any server can need. Every figure on
this page was measured in one run of `make bench`. [How to repeat it](../how-to/benchmark.md) takes one command.

What counts is the CPU time of a server's whole process tree, divided by the requests answered. The kernel counts it for
each thread in nanoseconds. All servers are up at once; they are loaded in turn, in short slices, in an order that
changes from round to round, and each is compared with the others of its own round. Shown are medians, and in brackets
quartiles. The same server is listed twice, as a proof of the method: it has to come out at 1.00, give or take 0.02.

The *floor* is a program in C that accepts, reads, sends and closes, and does nothing else. What it costs is the
kernel's. `scgi` has its default settings unless a table says otherwise: all limits, time-outs and the scoreboard are
on. uWSGI and the others run one process, without a log of requests. No two requests are alike.

Ratios are worth quoting. The microseconds belong to this machine at that hour.

"""


def page(results: dict[str, Any]) -> str:
    """The page of the docs."""
    return _PAGE + _body(results, charts_in="../../bench/results/")


def report(results: dict[str, Any]) -> str:
    """The report of one run, beside its charts."""
    return "# Results of `make bench`\n\n" + _body(results, charts_in="")


def charts(results: dict[str, Any]) -> dict[str, str]:
    """File name and SVG of each table that has a chart."""
    drawn = {}
    for table in results["tables"]:
        column = next((one for one in table["columns"] if one["key"] == table["chart"]), None)
        if column is not None:
            entries = [
                (row["name"], row[column["key"]], cell(row, column | {"spread": False})) for row in table["rows"]
            ]
            entries = [entry for entry in entries if isinstance(entry[1], int | float)]
            drawn[f"{table['name']}.svg"] = bars(f"{table['title']}: {column['title']}", entries)
    return drawn


def write(results: dict[str, Any], folder: Path) -> None:
    """report.md and the charts; charts of an earlier run go."""
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, drawing in charts(results).items():
        (folder / name).write_text(drawing)
    (folder / "report.md").write_text(report(results))


def _body(results: dict[str, Any], charts_in: str) -> str:
    tables = results["tables"]
    machine = results["machine"]
    parts = [
        "## The machine",
        "\n".join(f"- {name}: {value}" for name, value in machine.items())
        + f"\n- Measured on {results['date'][:10]} by `{results['command']}`",
    ]
    doubtful = [table["title"] for table in tables if not table["trusted"]]
    if doubtful:
        parts.append(
            "**NOT TO BE TRUSTED**: a server that was listed twice did not come out at 1.00 ± 0.02 in: "
            + "; ".join(doubtful) + ". The machine was not quiet enough."
        )  # fmt: skip
    if any(table["aims"] for table in tables):
        parts += ["## Aims", aims(tables)]
    for table in tables:
        parts += [f"## {table['title']}", textwrap.fill(table["text"], 120)]
        if table["chart"]:
            parts.append(f"![{table['title']}]({charts_in}{table['name']}.svg)")
        parts.append(markdown(table))
        if table["notes"]:
            parts.append("\n".join(textwrap.fill(f"- {note}", 120, subsequent_indent="  ") for note in table["notes"]))
    return "\n\n".join(parts) + "\n"


def aims(tables: list[dict[str, Any]]) -> str:
    """What the project wants to reach, and whether it was reached in this run."""
    lines = ["| aim | limit | measured | met |", "|---|---:|---:|---|"]
    for table in tables:
        for aim in table["aims"]:
            value = "" if aim["value"] is None else f"{aim['value']:.2f}"
            met = {True: "yes", False: "**no**", None: "not measured"}[aim["met"]]
            lines.append(f"| {aim['text']} | {_limit(aim)} | {value} | {met} |")
    return "\n".join(lines)


def terminal_aims(tables: list[dict[str, Any]]) -> str:
    lines = []
    for table in tables:
        for aim in table["aims"]:
            value = "not measured" if aim["value"] is None else f"{aim['value']:.2f}"
            verdict = {True: "met", False: "MISSED", None: "-"}[aim["met"]]
            lines.append(f"{verdict:8}{value}, {_limit(aim)}: {aim['text']}")
    return "\n".join(lines)


def markdown(table: dict[str, Any]) -> str:
    columns = table["columns"]
    lines = [
        "| | " + " | ".join(column["title"] for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for row in table["rows"]:
        lines.append(f"| {_name(row)} | " + " | ".join(cell(row, column) for column in columns) + " |")
    return "\n".join(lines)


def terminal(table: dict[str, Any]) -> str:
    """The same for a terminal, columns under one another."""
    columns = table["columns"]
    lines = [["", *(column["title"] for column in columns)]]
    lines += [[row["name"], *(cell(row, column) for column in columns)] for row in table["rows"]]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns) + 1)]
    text = [f"\n{table['title']}"]
    for line in lines:
        first, *rest = (word.rjust(width) if place else word.ljust(width)
                        for place, (word, width) in enumerate(zip(line, widths, strict=True)))  # fmt: skip
        text.append("  ".join([first, *rest]).rstrip())
    return "\n".join([*text, *table["notes"]])


def cell(row: dict[str, Any], column: dict[str, Any]) -> str:
    """A figure as it is shown; nothing where there is none."""
    value = row.get(column["key"])
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    text = f"{value:,.{column['digits']}f}"
    low, high = row.get(f"{column['key']}_low"), row.get(f"{column['key']}_high")
    if column["spread"] and low is not None and high is not None:
        text += f" ({low:.{column['digits']}f}–{high:.{column['digits']}f})"
    return text


def _limit(aim: dict[str, Any]) -> str:
    return f"at {'least' if aim['at_least'] else 'most'} {aim['limit']:g}"


def _name(row: dict[str, Any]) -> str:
    return f"{row['name']} ({row['version']})" if row.get("version") else str(row["name"])


def main() -> None:
    """Render what was measured last once more."""
    results = json.loads((RESULTS / "results.json").read_text())
    write(results, RESULTS)
    PAGE.write_text(page(results))


if __name__ == "__main__":
    main()
