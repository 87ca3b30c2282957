"""Plots of a finished search as Bokeh figures; with ``to=`` also as a page or a picture. Nothing is computed here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.errors import UsageError
from daskml_scale.html import save_figure

from .picture import save
from .report import cv_results, importance, score_name

COLOR, BEST = "#4477aa", "#cc6677"


def history(search: Any, to: str | os.PathLike[str] | None = None) -> Any:
    """Return the score of every trial in the order in which they ended, and the best so far."""
    from bokeh.models import HoverTool

    told = getattr(search, "history_", None)
    if told is None:
        scores = np.asarray(cv_results(search)[score_name(search)], float)
        x, label = np.arange(len(scores)), "trial"
    else:
        scores = np.array([each["score"] for each in told])
        x, label = np.array([each["elapsed"] for each in told]), "seconds"
    figure = _figure(f"{type(search).__name__}: score", label, "score")
    figure.scatter(x, scores, size=6, color=COLOR, alpha=0.6, legend_label="trials")
    known = np.where(np.isnan(scores), -np.inf, scores)
    best = np.maximum.accumulate(known) if len(known) else known
    figure.step(
        x, np.where(np.isfinite(best), best, np.nan), mode="after", color=BEST, line_width=2, legend_label="best"
    )
    figure.add_tools(HoverTool(tooltips=[(label, "@x"), ("score", "@y")]))
    figure.legend.location = "bottom_right"
    return _kept(figure, to)


def rungs(search: Any, to: str | os.PathLike[str] | None = None) -> Any:
    """Return the score of each trial over its resource, one line per trial.

    Raises
    ------
    UsageError
        For a search without rungs.
    """
    told = getattr(search, "history_", None)
    if told is None:
        raise UsageError(f"{type(search).__name__} has no rungs; AshaSearchCV and HyperbandSearchCV have")
    figure = _figure(f"{type(search).__name__}: rungs", "resource", "score", x_axis_type="log")
    lines: dict[int, list[tuple[int, float]]] = {}
    for each in told:
        lines.setdefault(each["trial"], []).append((each["resource"], each["score"]))
    best = max(lines, key=lambda trial: lines[trial][-1], default=None)
    for trial, points in lines.items():
        x, y = zip(*sorted(points), strict=True)
        color = BEST if trial == best else COLOR
        figure.line(x, y, color=color, alpha=0.9 if trial == best else 0.35, line_width=2)
        figure.scatter(x, y, color=color, alpha=0.6, size=5)
    return _kept(figure, to)


def importances(search: Any, to: str | os.PathLike[str] | None = None) -> Any:
    """Return bars of how much of the scores' variation each parameter explains."""
    found = importance(search)[::-1]
    figure = _figure(f"{type(search).__name__}: importance", "share of the variation", "", y_range=list(found.index))
    figure.hbar(y=list(found.index), right=found.to_numpy(), height=0.7, color=COLOR)
    figure.x_range.start = 0
    return _kept(figure, to)


def _figure(title: str, x: str, y: str, **more: Any) -> Any:
    from bokeh.plotting import figure

    return figure(title=title, x_axis_label=x, y_axis_label=y, width=700, height=400, **more)


def _kept(figure: Any, to: str | os.PathLike[str] | None) -> Any:
    if to is None:
        return figure
    path = Path(to)
    if path.suffix == ".html":
        save_figure(path, figure, figure.title.text)
    elif path.suffix == ".png":
        save(figure, path)  # needs no browser
    else:
        raise UsageError(f"to={path}: give a name that ends in .html or .png")
    return figure
