"""Charts of a report as SVG: drawn without a browser, described for those who do not see them, coloured by the page.

Colours are CSS variables of the page, so that a chart follows light and dark. All text is escaped. Nothing is computed
here that the report does not say in a table as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from daskml_scale.html import escape

from .words import took

WIDTH, HEIGHT = 640, 180
LEFT, TOP, BOTTOM = 56, 10, 28
MOST = 400
"""Points of a line; of more, every n-th is drawn."""
COLOURS = ("--one", "--two", "--three", "--four")

Points = Sequence[tuple[float, float]]


def lines(
    series: Mapping[str, Points], *, title: str, x: str, y: str, stepped: bool = False, diagonal: bool = False
) -> str:
    """Return a chart of up to four lines.

    Parameters
    ----------
    series : mapping of name to points
    title : str
        What it shows; said to those who do not see it, with the last value of each line.
    stepped : bool
        A value holds until the next.
    diagonal : bool
        Both axes go from 0 to 1, with the line of chance or of perfect calibration.
    """
    kept = {name: _thin(points) for name, points in list(series.items())[:4] if points}
    if not kept:
        return ""
    low, high = _range(kept.values(), unit=diagonal)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = (point[0] - low[0]) / (high[0] - low[0]) * (WIDTH - LEFT - 8)
        return LEFT + across, TOP + HEIGHT - (point[1] - low[1]) / (high[1] - low[1]) * HEIGHT

    body = []
    if diagonal:
        (x0, y0), (x1, y1) = place((0, 0)), place((1, 1))
        body.append(f"<path d='M{x0:.1f},{y0:.1f}L{x1:.1f},{y1:.1f}' stroke='var(--line)' fill='none'/>")
    for (_, points), colour in zip(kept.items(), COLOURS, strict=False):
        placed = [place(point) for point in points]
        path = f"M{placed[0][0]:.1f},{placed[0][1]:.1f}" + "".join(
            f"H{px:.1f}V{py:.1f}" if stepped else f"L{px:.1f},{py:.1f}" for px, py in placed[1:]
        )
        body.append(f"<path d='{path}' stroke='var({colour})' stroke-width='2' fill='none'/>")
        if len(placed) == 1:
            body.append(f"<circle cx='{placed[0][0]:.1f}' cy='{placed[0][1]:.1f}' r='3' fill='var({colour})'/>")
    body += _axes(low, high, x, y)
    said = "; ".join(f"{name} ends at {points[-1][1]:.4g}" for name, points in kept.items())
    key = "".join(
        f"<span><i style='background:var({colour})'></i>{escape(name)}</span>"
        for name, colour in zip(kept, COLOURS, strict=False)
    )
    return _figure("plot", body, TOP + HEIGHT + BOTTOM, f"{title}: {said}", title, key if len(kept) > 1 else "")


def bars(rows: Sequence[tuple[str, float, float, str, str]], *, title: str) -> str:
    """Return a timeline: one bar a row.

    Parameters
    ----------
    rows : sequence of (name, start, end, state, text)
        Seconds since the first start. The text stands behind the bar.
    """
    if not rows:
        return ""
    whole = max(max(end for _, _, end, _, _ in rows), 1e-9)
    body, room = [], WIDTH - 130 - 110
    for number, (name, start, end, state, text) in enumerate(rows):
        y, wide = 4 + 22 * number, max(2.0, (end - start) / whole * room)
        colour = {"ok": "--three", "failed": "--two", "partial": "--four", "skipped": "--line"}.get(state, "--one")
        x = 130 + start / whole * room
        shown = name if len(name) <= 18 else name[:17] + "…"
        body += [
            f"<text x='0' y='{y + 12}'>{escape(shown)}</text>",
            f"<rect x='{x:.1f}' y='{y}' width='{wide:.1f}' height='15' rx='2' fill='var({colour})'/>",
            f"<text x='{x + wide + 5:.1f}' y='{y + 12}'>{escape(text)}</text>",
        ]
    said = "; ".join(f"{name} {state}, {took(end - start)}" for name, start, end, state, _ in rows)
    return _figure("bars", body, 10 + 22 * len(rows), f"{title}: {said}", title)


def _figure(kind: str, body: Iterable[str], height: float, said: str, title: str, key: str = "") -> str:
    drawn = (
        f"<svg viewBox='0 0 {WIDTH} {height:.0f}' role='img' aria-label='{escape(said[:1000])}'>{''.join(body)}</svg>"
    )
    legend = f"<div class='key'>{key}</div>" if key else ""
    return f"<figure class='{kind}'><figcaption>{escape(title)}</figcaption>{legend}{drawn}</figure>"


def _axes(low: tuple[float, float], high: tuple[float, float], x: str, y: str) -> list[str]:
    bottom = TOP + HEIGHT
    return [
        f"<path d='M{LEFT},{TOP}V{bottom}H{WIDTH - 8}' stroke='var(--line)' fill='none'/>",
        f"<text x='{LEFT - 5}' y='{TOP + 10}' text-anchor='end'>{high[1]:.4g}</text>",
        f"<text x='{LEFT - 5}' y='{bottom}' text-anchor='end'>{low[1]:.4g}</text>",
        f"<text x='{LEFT}' y='{bottom + 18}'>{low[0]:.4g}</text>",
        f"<text x='{WIDTH - 8}' y='{bottom + 18}' text-anchor='end'>{high[0]:.4g} {escape(x)}</text>",
        f"<text x='{LEFT + 6}' y='{TOP + 10}'>{escape(y)}</text>",
    ]


def _range(series: Iterable[Points], *, unit: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    if unit:
        return (0.0, 0.0), (1.0, 1.0)
    points = [point for listed in series for point in listed]
    low = [min(point[axis] for point in points) for axis in (0, 1)]
    high = [max(point[axis] for point in points) for axis in (0, 1)]
    if low[1] > 0 and low[1] < 0.5 * high[1]:
        low[1] = 0.0
    for axis in (0, 1):
        if high[axis] <= low[axis]:
            high[axis] = low[axis] + 1.0
    return (low[0], low[1]), (high[0], high[1])


def _thin(points: Points) -> Points:
    every = -(-len(points) // MOST)
    return points if every == 1 else [*points[::every], points[-1]]


def numbers(value: Any) -> str:
    """Return a number for a table, ``-`` for none."""
    return f"{value:.4g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else "-"
