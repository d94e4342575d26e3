"""The picture: horizontal bars on a logarithmic scale, fanmap's set apart. Pure: numbers in, SVG out.

Written out here rather than by a library: it is a few rectangles, and the same figures make the same file to the byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 980
COLUMNS = 2
LINE = 17
BAR = 12
TITLE = 40
GAP = 22
LABELS = 210
VALUES = 52
OURS, PEERS, TEXT, FAINT = "#d9480f", "#8aa4bd", "#1f2933", "#6b7a89"


@dataclass(frozen=True)
class Bar:
    """A peer's bar, with its value in words."""

    label: str
    value: float
    words: str
    ours: bool


@dataclass(frozen=True)
class Panel:
    """The bars of one row of the table."""

    title: str
    unit: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        return TITLE + LINE * len(self.bars) + GAP


def lengths(values: Sequence[float]) -> list[float]:
    """Each bar's share of the full width, by the logarithm: the least value keeps a visible stump."""
    positive = [value for value in values if value > 0]
    if not positive:
        return [0.0 for _ in values]
    # From half a decade below the least, so that a bar twice as long does not mean twice as much by chance.
    floor = math.log10(min(positive)) - 0.5
    span = math.log10(max(positive)) - floor
    return [max(0.0, (math.log10(value) - floor) / span) if value > 0 else 0.0 for value in values]


def draw(panels: Sequence[Panel], caption: str) -> str:
    """The panels, two beside each other, and a line beneath that says whose figures they are."""
    parts: list[str] = []
    column = WIDTH // COLUMNS
    top = 8
    for start in range(0, len(panels), COLUMNS):
        line = panels[start : start + COLUMNS]
        for index, panel in enumerate(line):
            parts += _panel(panel, 12 + index * column, top, column - 24)
        top += max(panel.height for panel in line)
    parts.append(_text(12, top + 6, caption, FAINT, 11))
    height = top + 18
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="system-ui, sans-serif" role="img" aria-label="fanmap and its peers, side by side">'
    )
    ground = f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
    return "\n".join([head, ground, *parts, "</svg>"]) + "\n"


def _panel(panel: Panel, left: int, top: int, width: int) -> list[str]:
    parts = [
        _text(left, top + 14, panel.title, TEXT, 13, bold=True),
        _text(left, top + 30, f"{panel.unit}, logarithmic", FAINT, 11),
    ]
    room = width - LABELS - VALUES
    for index, (bar, share) in enumerate(zip(panel.bars, lengths([bar.value for bar in panel.bars]), strict=True)):
        y = top + TITLE + LINE * index
        color = OURS if bar.ours else PEERS
        parts.append(_text(left + LABELS - 6, y + 10, bar.label, color if bar.ours else TEXT, 11, bar.ours, end=True))
        parts.append(f'<rect x="{left + LABELS}" y="{y}" width="{room * share:.1f}" height="{BAR}" fill="{color}"/>')
        parts.append(_text(left + LABELS + room * share + 5, y + 10, bar.words, TEXT, 11, bar.ours))
    return parts


def _text(x: float, y: float, text: str, color: str, size: int, bold: bool = False, end: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:.1f}" y="{y}" fill="{color}" font-size="{size}"{weight}{anchor}>{escape(text)}</text>'
