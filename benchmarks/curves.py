"""Curves of result files: efficiency against workers, seconds against data, with the exponent by which they grow.

A curve is ``{"name", "x", "y", "note", "lines": [...]}``, a line ``{"name", "simulated", "points": [...]}`` and a point
``[x, median, lowest, highest]``; ``y`` is ``efficiency`` or ``seconds``. Nothing here measures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from .plot import text

LEFT, WIDTH, TOP, HEIGHT, BELOW = 64, 460, 18, 230, 40
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555")
Point = tuple[float, float, float, float]
"""(x, median, lowest, highest)."""


@dataclass(frozen=True)
class Line:
    """What one system does over x."""

    name: str
    points: tuple[Point, ...]
    simulated: bool = False

    @property
    def shown(self) -> str:
        return f"{self.name} (simulated)" if self.simulated else self.name

    @property
    def exponent(self) -> float:
        """Return p of ``seconds = c * x ** p``: least squares of logarithms."""
        x, y = (np.log([point[at] for point in self.points]) for at in (0, 1))
        return float(np.polyfit(x, y, 1)[0])


@dataclass(frozen=True)
class Curve:
    """Lines over one x, in units that its name says."""

    file: str
    name: str
    x: str
    y: str
    lines: tuple[Line, ...]
    note: str = ""

    @property
    def xs(self) -> list[float]:
        return sorted({point[0] for line in self.lines for point in line.points})

    def cell(self, line: Line, x: float) -> str:
        """Return what a table says of a line at x."""
        found = [point for point in line.points if point[0] == x]
        if not found:
            return ""
        _, median, low, high = found[0]
        values = [
            f"{100 * value:.0f} %" if self.y == "efficiency" else f"{value:.3g} s" for value in (median, low, high)
        ]
        return values[0] if low == high else f"{values[0]} ({values[1]}-{values[2]})"

    def grows(self) -> str:
        """Return the exponents of lines of seconds."""
        if self.y != "seconds":
            return ""
        found = [f"{line.shown} {line.exponent:.2f}" for line in self.lines if len(line.points) > 1]
        return (
            f"Growth exponent (1: twice the {self.x.partition(',')[0]}, twice the time): {', '.join(found)}."
            if found
            else ""
        )


def curves(files: Mapping[str, Mapping[str, Any]]) -> list[Curve]:
    """Return the curves of all files."""
    return [
        Curve(f"{name}-{number}", each["name"], each["x"], each["y"],
              tuple(Line(line["name"], tuple(map(_point, line["points"])), line.get("simulated", False))
                    for line in each["lines"]), each.get("note", ""))
        for name, data in files.items() for number, each in enumerate(data.get("curves", ()), 1)
    ]  # fmt: skip


def _point(values: Sequence[float]) -> Point:
    x, median, low, high = map(float, values)
    return x, median, low, high


def drawn(curve: Curve) -> str:
    """Return an SVG: x on a logarithmic axis; seconds on one as well, efficiency from 0 to 1."""
    across = _logarithmic(curve.xs, LEFT, LEFT + WIDTH)
    values = [value for line in curve.lines for point in line.points for value in point[1:]]
    seconds = curve.y == "seconds"
    up = (
        _logarithmic(_decades(values), TOP + HEIGHT, TOP)
        if seconds
        else lambda y: TOP + HEIGHT * (1 - y / max(1.0, *values))
    )
    legend = LEFT + WIDTH + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {legend + 240} {TOP + HEIGHT + BELOW}" '
        f'font-family="sans-serif" font-size="11" role="img" aria-label="{escape(curve.name)}">',
        '<rect width="100%" height="100%" fill="white"/>',
        *(_grid(curve, across, up, values)),
        text(LEFT + WIDTH / 2, TOP + HEIGHT + 34, curve.x, "middle"),
    ]
    for number, line in enumerate(curve.lines):
        colour = COLOURS[number % len(COLOURS)]
        parts += _line(line, colour, across, up)
        y = TOP + 10 + 20 * number
        parts.append(f'<path d="M{legend} {y}H{legend + 22}" stroke="{colour}" stroke-width="2"{_dashes(line)}/>')
        parts.append(text(legend + 28, y + 4, line.shown, "start"))
    return "\n".join([*parts, "</svg>\n"])


def _logarithmic(values: Sequence[float], first: float, last: float) -> Any:
    low, high = math.log10(min(values)), math.log10(max(values))
    span = (high - low) or 1.0
    return lambda value: first + (last - first) * (math.log10(value) - low) / span


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Return the powers of ten around values."""
    return 10.0 ** math.floor(math.log10(min(values))), 10.0 ** math.ceil(math.log10(max(values)))


def _grid(curve: Curve, across: Any, up: Any, values: Sequence[float]) -> Iterator[str]:
    shown: float = -math.inf
    for x in curve.xs:
        yield f'<path d="M{across(x):.1f} {TOP}V{TOP + HEIGHT}" stroke="#eee"/>'
        if across(x) - shown > 34:  # labels must not cover each other
            shown = across(x)
            yield text(shown, TOP + HEIGHT + 16, f"{x:,.0f}" if x >= 1 else f"{x:g}", "middle")
    if curve.y == "seconds":
        low, high = _decades(values)
        steps = [
            low * factor * 10**power for power in range(9) for factor in (1, 3) if low * factor * 10**power <= high
        ]
        ticks = [(step, f"{step:,.3g} s") for step in steps]
    else:
        ticks = [(step / 5, f"{20 * step} %") for step in range(6)]
    for value, label in ticks:
        yield f'<path d="M{LEFT} {up(value):.1f}H{LEFT + WIDTH}" stroke="#ddd"/>'
        yield text(LEFT - 8, up(value) + 4, label, "end")


def _dashes(line: Line) -> str:
    return ' stroke-dasharray="5 4"' if line.simulated else ""


def _line(line: Line, colour: str, across: Any, up: Any) -> Iterator[str]:
    path = " ".join(f"{across(point[0]):.1f},{up(point[1]):.1f}" for point in sorted(line.points))
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{_dashes(line)}/>'
    for x, median, low, high in line.points:
        if low != high:
            yield f'<path d="M{across(x):.1f} {up(low):.1f}V{up(high):.1f}" stroke="{colour}"/>'
        yield f'<circle cx="{across(x):.1f}" cy="{up(median):.1f}" r="3" fill="{colour}"/>'
