"""What the searches of the benchmarks fit: estimators that take a known time, texts, and simulated slots."""

from __future__ import annotations

import heapq
import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from daskml_scale.plan.asha import Halving, one_ladder

from .calls import spin


class Spinning(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Computes for a number of steps, then predicts a constant."""

    def __init__(self, steps: int = 1000, constant: float = 0.0) -> None:
        self.steps, self.constant = steps, constant

    def fit(self, X: Any, y: Any) -> Spinning:
        spin(self.steps)
        self.fitted_ = True
        return self

    def predict(self, X: Any) -> np.ndarray:
        return np.full(len(X), self.constant)


class Raising(Spinning):
    """Does not fit."""

    def fit(self, X: Any, y: Any) -> Spinning:
        raise ValueError("this estimator does not fit")


def steps_for(seconds: float) -> int:
    """Return how many steps `spin` takes for so long on this machine."""
    began = time.perf_counter()
    spin(1_000_000)
    return max(1, round(1_000_000 * seconds / (time.perf_counter() - began)))


def texts(count: int) -> tuple[list[str], np.ndarray]:
    """Return made-up texts of 60 words and their class."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(5000)])
    chances = 1.0 / np.arange(1, 5001)
    target = rng.integers(0, 2, count)
    found = []
    for kind in target:
        rows = rng.choice(5000, 60, p=chances / chances.sum())
        found.append(" ".join(words[np.where(rng.random(60) < 0.05, 4000 + kind * 400 + rows % 400, rows)]))
    return found, target


def busy_with_asha(slots: int, trials: int, seed: int) -> tuple[float, float]:
    """Return the share of slot time that asynchronous halving uses, with lognormal durations.

    Returns
    -------
    steady, whole : float
        Until the last trial starts (a search that goes on), and to the end of the slowest trial.
    """
    rng = np.random.default_rng(seed)
    speed, quality = rng.lognormal(0, 1, trials), rng.random(trials)
    halving = Halving(one_ladder(trials, 1, 27, 3))
    running: list[tuple[float, int, int]] = []
    sent: list[tuple[float, float]] = []
    now = steady = 0.0
    while True:
        while len(running) < slots and (job := halving.next_job()) is not None:
            took = float((job.stop - job.start) * speed[job.trial] * rng.lognormal(0, 0.3))
            heapq.heappush(running, (now + took, job.trial, job.rung))
            sent.append((now, now + took))
            steady = now if job.rung == 0 else steady
        if not running:
            break
        now, trial, rung = heapq.heappop(running)
        halving.report(trial, rung, float(quality[trial]))
    used = sum(min(stop, steady) - start for start, stop in sent if start < steady)
    return used / (slots * steady) if steady else 1.0, sum(stop - start for start, stop in sent) / (slots * now)


def busy_with_rounds(slots: int, trials: int, seed: int) -> float:
    """Return the share of slot time that synchronous halving uses, with the same durations."""
    rng = np.random.default_rng(seed)
    speed, quality = rng.lognormal(0, 1, trials), rng.random(trials)
    alive, used, now, before = np.arange(trials), 0.0, 0.0, 0
    for resource in (1, 3, 9, 27):
        free = [now] * slots
        for trial in alive:
            took = float((resource - before) * speed[trial] * rng.lognormal(0, 0.3))
            used += took
            heapq.heapreplace(free, free[0] + took)
        now, before = max(free), resource
        alive = alive[np.argsort(-quality[alive])[: max(1, len(alive) // 3)]]
    return used / (slots * now)
