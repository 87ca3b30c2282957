"""A plot as a PNG without a browser: the points, lines, steps and bars of a Bokeh figure, drawn by Pillow.

It knows the glyphs that `plots` uses and no others; the figure stays the one place that says what is shown.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

SCALE = 2
"""Pixels of the picture per pixel of the figure."""
LEFT, RIGHT, TOP, BOTTOM = 90, 20, 40, 60
INK, GRID = (40, 40, 40), (225, 225, 225)
TICKS = 6


def save(figure: Any, path: Path) -> None:
    """Write a figure as a PNG."""
    _Picture(figure).draw().save(path, format="PNG")


class _Picture:
    def __init__(self, figure: Any) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.figure = figure
        self.width, self.height = figure.width * SCALE, figure.height * SCALE
        self.image = Image.new("RGB", (self.width, self.height), "white")
        self.pen = ImageDraw.Draw(self.image, "RGBA")
        self.font, self.bold = (ImageFont.load_default(size * SCALE) for size in (12, 15))
        self.names = list(getattr(figure.y_range, "factors", []))
        self.log = type(figure.x_scale).__name__ == "LogScale"
        self.glyphs = [(each, *self._values(each)) for each in figure.renderers]
        self.x = _span(np.concatenate([x for _, x, _ in self.glyphs] or [np.zeros(1)]), self.log, bool(self.names))
        self.y = (-0.5, len(self.names) - 0.5) if self.names else _span(
            np.concatenate([y for _, _, y in self.glyphs] or [np.zeros(1)]), False, False
        )  # fmt: skip

    def draw(self) -> Any:
        self._axes()
        for renderer, x, y in self.glyphs:
            getattr(self, f"_{type(renderer.glyph).__name__.lower()}")(renderer.glyph, x, y)
        self._legend()
        return self.image

    def _values(self, renderer: Any) -> tuple[np.ndarray, np.ndarray]:
        glyph, data = renderer.glyph, renderer.data_source.data
        if self.names:
            return np.asarray(data[_field(glyph.right)], float), np.array(
                [self.names.index(name) for name in data[_field(glyph.y)]], float
            )
        return np.asarray(data[_field(glyph.x)], float), np.asarray(data[_field(glyph.y)], float)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        if self.log:
            x = math.log10(x)
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        left, right = LEFT * SCALE, self.width - RIGHT * SCALE
        top, bottom = TOP * SCALE, self.height - BOTTOM * SCALE
        return left + across * (right - left), bottom - up * (bottom - top)

    def _axes(self) -> None:
        from_x, to_x = ((10**end if self.log else end) for end in self.x)
        known = np.unique(np.concatenate([x for _, x, _ in self.glyphs] or [np.zeros(1)]))
        for tick in known if self.log and len(known) <= 2 * TICKS else _ticks(from_x, to_x):
            place = self._at(tick, self.y[0])
            self.pen.line([place, self._at(tick, self.y[1])], GRID, SCALE)
            self.pen.text((place[0], place[1] + 6 * SCALE), f"{tick:.6g}", INK, self.font, anchor="ma")
        for tick in range(len(self.names)) if self.names else _ticks(*self.y):
            place = self._at(from_x, tick)
            self.pen.line([place, self._at(to_x, tick)], GRID, SCALE)
            text = self.names[int(tick)][-14:] if self.names else f"{tick:.6g}"
            self.pen.text((place[0] - 6 * SCALE, place[1]), text, INK, self.font, anchor="rm")
        corners = [self._at(from_x, self.y[1]), self._at(from_x, self.y[0]), self._at(to_x, self.y[0])]
        self.pen.line(corners, INK, SCALE)
        middle = (self.width + (LEFT - RIGHT) * SCALE) / 2
        self.pen.text((LEFT * SCALE, 12 * SCALE), self.figure.title.text, INK, self.bold)
        self.pen.text((middle, self.height - 12 * SCALE), self._label(0), INK, self.font, anchor="ms")
        self.pen.text((10 * SCALE, TOP * SCALE - 6 * SCALE), self._label(1), INK, self.font, anchor="ls")

    def _label(self, axis: int) -> str:
        return str((self.figure.xaxis if axis == 0 else self.figure.yaxis)[0].axis_label or "")

    def _legend(self) -> None:
        for number, item in enumerate(self.figure.legend[0].items if self.figure.legend else []):
            x = self.width - RIGHT * SCALE - 12 * SCALE
            y = self.height - (BOTTOM + 16 + 18 * number) * SCALE
            color = _color(item.renderers[0].glyph)
            self.pen.text((x, y), str(_plain(item.label)), color, self.font, anchor="rm")

    def _line(self, glyph: Any, x: np.ndarray, y: np.ndarray) -> None:
        points = [self._at(*each) for each in zip(x, y, strict=True) if np.isfinite(each).all()]
        if len(points) > 1:
            self.pen.line(points, _color(glyph), round(glyph.line_width * SCALE), joint="curve")

    def _step(self, glyph: Any, x: np.ndarray, y: np.ndarray) -> None:
        self._line(glyph, np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1])

    def _scatter(self, glyph: Any, x: np.ndarray, y: np.ndarray) -> None:
        radius = float(_plain(glyph.size)) * SCALE / 2
        for each in zip(x, y, strict=True):
            if np.isfinite(each).all():
                at = self._at(*each)
                box = (at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius)
                self.pen.ellipse(box, fill=_color(glyph))

    def _hbar(self, glyph: Any, x: np.ndarray, y: np.ndarray) -> None:
        half = float(_plain(glyph.height)) / 2
        for right, row in zip(x, y, strict=True):
            (left, top), (stop, bottom) = self._at(0.0, row + half), self._at(right, row - half)
            self.pen.rectangle((left, top, max(left, stop), bottom), fill=_color(glyph))


def _span(values: np.ndarray, log: bool, from_zero: bool) -> tuple[float, float]:
    """Return the ends of an axis, with some room; powers of ten for a logarithmic one."""
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    values = np.log10(values) if log else values
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    room = (high - low) * 0.05 or abs(high) * 0.05 or 0.5
    return (0.0, high + room) if from_zero else (low - room, high + room)


def _ticks(low: float, high: float) -> list[float]:
    """Return about `TICKS` round numbers between two."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= rough)
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]


def _field(spec: Any) -> str:
    return str(getattr(spec, "field", spec))


def _plain(spec: Any) -> Any:
    return getattr(spec, "value", spec)


def _color(glyph: Any) -> tuple[int, int, int, int]:
    """Return the colour of a glyph with its transparency."""
    kind = "fill" if hasattr(glyph, "fill_color") else "line"
    text = str(_plain(getattr(glyph, f"{kind}_color"))).lstrip("#")
    red, green, blue = (int(text[at : at + 2], 16) for at in (0, 2, 4))
    return red, green, blue, round(255 * float(_plain(getattr(glyph, f"{kind}_alpha"))))
