"""One picture per benchmark: ours, the peer and the limit of the machine on one line of seconds. SVG, as text.

Rows are in the order of the table: our worst ratio on top. Nothing here measures or reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

LEFT, WIDTH, RIGHT, GAP, LINE, TOP = 420, 420, 100, 30, 22, 44
LEAST = 1e-6
"""Seconds; what took less is drawn there."""
OURS, THEIRS, LIMIT = "#0072b2", "#d55e00", "#888888"


def picture(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG of rows of a result file: seconds on a logarithmic axis, spreads as lines, the ratio as text."""
    values = [value for row in rows for who in ("ours", "theirs") for value in (row[who]["min"], row[who]["max"])]
    values = [max(value, LEAST) for value in [*values, *(row["limit"] for row in rows)]]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))

    def at(seconds: float) -> float:
        return LEFT + WIDTH * (math.log10(max(seconds, LEAST)) - low) / max(1, high - low)

    height = TOP + LINE * len(rows) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" '
        f'font-family="sans-serif" font-size="11" role="img" aria-label="{escape(title)}">',
        f'<rect width="100%" height="100%" fill="white"/>{_legend()}',
    ]
    for power in range(low, high + 1):
        x = at(10.0**power)
        parts.append(
            f'<path d="M{x:.1f} {TOP - 8}V{height - 8}" stroke="#ddd"/>{text(x, 34, _seconds(power), "middle")}'
        )
    for number, row in enumerate(rows):
        parts.append(_line(row, TOP + LINE * number + 8, at))
    return "\n".join([*parts, "</svg>\n"])


def _line(row: Mapping[str, Any], y: float, at: Any) -> str:
    parts = [text(LEFT - 10, y + 4, f"{row['work']} | {row['peer']}"[:72], "end")]
    limit = at(row["limit"])
    parts.append(f'<path d="M{limit:.1f} {y - 7}V{y + 7}" stroke="{LIMIT}" stroke-width="2"/>')
    for who, colour, shift in (("theirs", THEIRS, 3), ("ours", OURS, -3)):
        found = row[who]
        parts.append(
            f'<path d="M{at(found["min"]):.1f} {y + shift}H{at(found["max"]):.1f}" stroke="{colour}"/>'
            f'<circle cx="{at(found["median"]):.1f}" cy="{y + shift}" r="3" fill="{colour}"/>'
        )
    parts.append(text(LEFT + WIDTH + GAP, y + 4, f"{row['ratio']['median']:.3g}", "start"))
    return "".join(parts)


def _legend() -> str:
    drawn = "".join(
        f'<circle cx="{LEFT + 70 * place}" cy="12" r="4" fill="{colour}"/>{text(LEFT + 70 * place + 8, 16, name, "start")}'
        for place, (colour, name) in enumerate(((OURS, "ours"), (THEIRS, "peer")))
    )
    x = LEFT + 140
    drawn += (
        f'<path d="M{x} 5V19" stroke="{LIMIT}" stroke-width="2"/>{text(x + 8, 16, "limit of this machine", "start")}'
    )
    return drawn + text(LEFT + WIDTH + GAP, 34, "ours / peer", "start")


def text(x: float, y: float, words: str, anchor: str) -> str:
    """Return a line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _seconds(power: int) -> str:
    for unit, least in (("s", 0), ("ms", -3), ("us", -6)):
        if power >= least:
            return f"{10 ** (power - least):,} {unit}"
    return f"1e{power} s"
