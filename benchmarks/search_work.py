"""What the searches of the benchmarks fit: estimators that take a known time, texts, and simulated slots."""

from __future__ import annotations

import heapq
import sys
import time
from dataclasses import dataclass, field
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


RUNGS = (1, 3, 9, 27)
FACTOR = 3


@dataclass
class Trials:
    """Simulated trials, the same ones for everybody who asks: how good each is, and how long each rung takes.

    A trial's speed is lognormal (sigma 1: one in forty takes seven times the median), as is each of its rungs (0.3).
    """

    seed: int
    known: dict[int, tuple[float, tuple[float, ...]]] = field(default_factory=dict)

    def __call__(self, trial: int) -> tuple[float, tuple[float, ...]]:
        """Return the quality and the seconds of each rung."""
        if trial not in self.known:
            rng = np.random.default_rng((self.seed, trial))
            speed, quality, noise = rng.lognormal(0, 1), rng.random(), rng.lognormal(0, 0.3, len(RUNGS))
            steps = np.diff((0, *RUNGS))
            self.known[trial] = float(quality), tuple((steps * speed * noise).tolist())
        return self.known[trial]


@dataclass(frozen=True)
class Played:
    """A simulated search.

    Attributes
    ----------
    seconds : float
        Until its end.
    busy, done : float
        Share of the slots' time in which they ran something, and in which they ran what came to its end.
    slowest : float
        Share of the seconds that the slowest trial alone takes, had it never waited: no order of work is quicker.
    started, top : int
        Trials that began, and that came to the last rung.
    decision : float
        CPU seconds of the coordinator for each job: what to run next, and learning its score.
    """

    seconds: float
    busy: float
    done: float
    slowest: float
    started: int
    top: int
    decision: float = 0.0


def asha(slots: int, trials: int | None, seed: int, until: float = float("inf")) -> Played:
    """Simulate asynchronous halving of so many trials, or of as many as can start ``until`` the time is spent."""
    of = Trials(seed)
    halving = Halving(one_ladder(sys.maxsize if trials is None else trials, RUNGS[0], RUNGS[-1], FACTOR))
    running: list[tuple[float, int, int, float]] = []
    jobs: list[tuple[float, float, int]] = []
    now = cpu = 0.0
    top = 0
    while True:
        while len(running) < slots:
            began = time.thread_time()
            job = halving.next_job()
            cpu += time.thread_time() - began
            if job is None:
                break
            heapq.heappush(running, (now + of(job.trial)[1][job.rung], job.trial, job.rung, now))
        if not running or running[0][0] > until:
            break
        now, trial, rung, start = heapq.heappop(running)
        jobs.append((start, now, trial))
        top += rung + 1 == len(RUNGS)
        began = time.thread_time()
        halving.report(trial, rung, of(trial)[0])
        cpu += time.thread_time() - began
    now = min(until, now) if not running else until
    done = sum(stop - start for start, stop, _ in jobs)
    cut = sum(now - start for *_, start in running)
    chains: dict[int, float] = {}
    for start, stop, trial in jobs:
        chains[trial] = chains.get(trial, 0.0) + stop - start
    return Played(
        now, (done + cut) / (slots * now), done / (slots * now), max(chains.values()) / now, halving.started(), top,
        cpu / len(jobs),
    )  # fmt: skip


def rounds(slots: int, trials: int, seed: int) -> Played:
    """Simulate synchronous halving of the same trials, each rung as long as its last trial."""
    of = Trials(seed)
    alive, used, now = list(range(trials)), 0.0, 0.0
    chains = [0.0] * trials
    for rung in range(len(RUNGS)):
        free = [now] * slots
        for trial in alive:
            took = of(trial)[1][rung]
            used += took
            chains[trial] += took
            heapq.heapreplace(free, free[0] + took)
        now = max(free)
        reached = len(alive)
        alive = sorted(alive, key=lambda trial: -of(trial)[0])[: max(1, len(alive) // FACTOR)]
    return Played(now, used / (slots * now), used / (slots * now), max(chains) / now, trials, reached)
