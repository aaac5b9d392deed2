"""Bar charts as SVG, of one small function: no library, no script, readable on light and on dark pages.

A picture in a Markdown page does not inherit the page's colours, so the chart asks by itself which of the two it is on.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, LINE, BAR = 720, 26, 16
LETTER = 7.2  # how wide one is, about

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #444c56 }
.title { font-weight: 600 }
.value { font-variant-numeric: tabular-nums }
.ours { fill: #2f7ed8 }
.other { fill: #9aa4af }
@media (prefers-color-scheme: dark) {
  text { fill: #adbac7 }
  .ours { fill: #539bf5 }
  .other { fill: #636e7b }
}
"""


def bars(title: str, entries: Sequence[tuple[str, float, str]]) -> str:
    """One horizontal bar per entry: its name, its value, and that as text. What is ours has a colour of its own."""
    height = LINE * (len(entries) + 1) + 12
    left = LETTER * max((len(name) for name, _, _ in entries), default=0) + 10  # room for the names
    longest = max((value for _, value, _ in entries), default=0) or 1
    room = WIDTH - left - 80  # for the longest bar; the value stands behind it
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="0" y="17">{escape(title)}</text>',
    ]
    for place, (name, value, text) in enumerate(entries, 1):
        top = LINE * place + 6
        length = max(1.0, room * value / longest)
        kind = "ours" if name.startswith("scgi") else "other"
        parts += [
            f'<text x="{left - 10:.0f}" y="{top + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{left:.0f}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2"/>',
            f'<text class="value" x="{left + length + 8:.1f}" y="{top + 13}">{escape(text)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
