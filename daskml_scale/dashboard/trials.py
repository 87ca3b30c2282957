"""The trials of one search as it goes on: the best so far, and how many reached each rung. Bounded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from daskml_scale.dashboard import bounds
from daskml_scale.events import Score

MAX_TRIALS = 5_000
"""Pairs of trial and rung kept; beyond, the oldest that are not among the best are forgotten."""
MAX_CURVE = 400
TOP = 20


class Trials:
    """What is known of the trials of one stage.

    Attributes
    ----------
    rows : dict of (trial, rung) to [sum of scores, splits that have one, splits expected, failed]
    params : dict of trial to text
    curve : list of (trials done, best score, seconds since the epoch)
        One point for every improvement.
    """

    def __init__(self) -> None:
        self.rows: dict[tuple[int, int], list[float]] = {}
        self.params: dict[int, str] = {}
        self.curve: list[tuple[int, float, float]] = []
        self.over: dict[int, list[int]] = {}
        """Rung -> [trials that have all scores, trials that failed]."""

    def take(self, scores: Iterable[Score], now: float) -> None:
        """Add scores."""
        for score in scores:
            trial, rung = bounds.count(score.trial), bounds.count(score.rung)
            if score.params:
                self.params[trial] = bounds.name(score.params)
            row = self.rows.setdefault((trial, rung), [0.0, 0, max(1, bounds.count(score.splits)), 0])
            if isinstance(score.score, (int, float)) and math.isfinite(score.score):
                row[0] += score.score
            else:
                row[3] += 1
            row[1] += 1
            if row[1] == row[2]:
                self._complete(rung, row, now)
        self._forget()

    def _complete(self, rung: int, row: list[float], now: float) -> None:
        counts = self.over.setdefault(rung, [0, 0]) if len(self.over) < 64 or rung in self.over else [0, 0]
        counts[bool(row[3])] += 1
        mean = row[0] / row[2]
        done = sum(map(sum, self.over.values()))
        if not row[3] and (not self.curve or mean > self.curve[-1][1]):
            self.curve.append((done, mean, now))
            del self.curve[:-MAX_CURVE]

    def _forget(self) -> None:
        if len(self.rows) <= MAX_TRIALS:
            return
        best = {place for place, _ in self.ranked()[:TOP]}
        for place in [place for place in self.rows if place not in best][: len(self.rows) - MAX_TRIALS * 9 // 10]:
            del self.rows[place]
        left = {trial for trial, _ in self.rows}
        self.params = {trial: text for trial, text in self.params.items() if trial in left}

    def ranked(self) -> list[tuple[tuple[int, int], float]]:
        """Return ((trial, rung), mean score) of those with all scores, the furthest and best first."""
        found = [(place, row[0] / row[2]) for place, row in self.rows.items() if row[1] >= row[2] and not row[3]]
        return sorted(found, key=lambda one: (-one[0][1], -one[1], one[0][0]))

    def shown(self) -> dict[str, Any]:
        """Return what the page shows."""
        seen: set[int] = set()
        top: list[dict[str, Any]] = []
        for (trial, rung), score in self.ranked():
            if trial not in seen and len(top) < TOP:
                seen.add(trial)
                top.append({"trial": trial, "rung": rung, "score": score, "params": self.params.get(trial, "")})
        best = max(self.curve, key=lambda point: point[1], default=None)
        return {
            "done": sum(map(sum, self.over.values())),
            "failed": sum(counts[1] for counts in self.over.values()),
            "best": None if best is None else best[1],
            "top": top,
            "rungs": [
                {"rung": rung, "done": sum(counts), "failed": counts[1]} for rung, counts in sorted(self.over.items())
            ],
            "curve": [list(point) for point in self.curve],
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything, as plain data."""
        return {
            "rows": [[*place, *row] for place, row in self.rows.items()],
            "params": [list(item) for item in self.params.items()],
            "curve": [list(point) for point in self.curve],
            "over": [[rung, *counts] for rung, counts in self.over.items()],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trials:
        """Rebuild what `to_dict` returned."""
        found = cls()
        found.rows = {(int(t), int(r)): [float(x) for x in row] for t, r, *row in data["rows"][-MAX_TRIALS:]}
        found.params = {int(trial): bounds.name(text) for trial, text in data["params"][-MAX_TRIALS:]}
        found.curve = [(int(n), float(score), float(when)) for n, score, when in data["curve"][-MAX_CURVE:]]
        found.over = {int(rung): [int(done), int(failed)] for rung, done, failed in data["over"][:64]}
        return found
