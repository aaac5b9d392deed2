"""docs/reference/web-servers.md from the table, and the configurations in docs/how-to from `scgi config`.

`cd tests && python -m interop.page` writes them.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from interop.table import FRONTS, GROUPS, Case
from interop.webservers import printed

PAGE = Path(__file__).parents[2] / "docs/reference/web-servers.md"

HOW_TO = [PAGE.parents[1] / "how-to" / f"{name}.md" for name in ("nginx", "apache", "lighttpd")]
_SHOWN = re.compile(r"(```console\n\$ scgi config (.*)\n```\n\n)```(\w+)\n(?:.*\n)*?```\n")

HEAD = """\
# Web servers compared

<!-- Written by `cd tests && python -m interop.page` from tests/interop/table.py; change it there. -->

The same requests, behind each web server with the configuration that
[`scgi config`](command-line.md#scgi-config-nginx) prints for it with `--stream`, at the root of a site and below a
path, over unix sockets and TCP. **yes**: the application sees what the row says, the same behind each, and the client
gets what the application said. A number: this web server has a way of its own, which no line of its configuration
changes. The project's tests ask all of it of real web servers, the exceptions too, so that this page is what they do
and not what they are said to do. These were asked:

"""


def page() -> str:
    reasons: list[tuple[str, str]] = []
    names = {front: name.rpartition(" with ")[2].partition(" ")[0] for front, name in FRONTS.items()}
    lines = [HEAD, *(f"- {name}\n" for name in FRONTS.values())]
    for group, cases in GROUPS.items():
        lines.append(f"\n## {group}\n\n| what | {' | '.join(names.values())} |\n|---|{'---|' * len(names)}\n")
        for case in cases:
            lines.append(f"| {case.name} | {' | '.join(_cell(case, front, names, reasons) for front in FRONTS)} |\n")
    lines.append("\n## The exceptions\n\n| | behind | |\n|---|---|---|\n")
    lines += [f"| {number} | {front} | {why} |\n" for number, (front, why) in enumerate(reasons, 1)]
    return "".join(lines)


def _cell(case: Case, front: str, names: dict[str, str], reasons: list[tuple[str, str]]) -> str:
    but = case.but.get(front)
    if but is None:
        return "yes"
    status = but.facts.get("status")
    alike = [other for other in FRONTS if case.but.get(other) == but]
    reason = (", ".join(names[other] for other in alike), (f"{status}: " if status else "") + but.why)
    if reason not in reasons:
        reasons.append(reason)
    return str(reasons.index(reason) + 1)


def how_to(text: str) -> str:
    """A page of docs/how-to with each configuration as the command above it prints it."""

    def block(found: re.Match[str]) -> str:
        return f"{found[1]}```{found[3]}\n{printed(*shlex.split(found[2]))}```\n"

    return _SHOWN.sub(block, text)


if __name__ == "__main__":
    PAGE.write_text(page())
    for file in HOW_TO:
        file.write_text(how_to(file.read_text()))
