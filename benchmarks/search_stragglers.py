"""Simulated halving of trials whose durations differ much: promotion without waiting against synchronous rounds."""

from __future__ import annotations

import heapq
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.plan.asha import Halving, one_ladder

from .common import Counts, Work

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


def works(seeds: int) -> list[Work]:
    """Simulated halving of trials whose durations are lognormal, with `plan.asha` deciding.

    The paper's algorithm has no number of trials: a slot for which nobody can be promoted starts one more, until the
    time is spent. So slots are compared over one period for both, the time that synchronous halving takes for eight
    trials a slot: ours is ``n_trials=None, time_budget=...``. Its seconds are slot seconds per busy second. The second
    row has the same trials to their end, and simulated seconds; there the slowest trial alone is most of the time.
    """
    works = []
    for slots in (64, 256, 1000):
        trials = slots * 8

        def ours(folder: Path, slots: int = slots, trials: int = trials) -> Counts:
            found = [asha(slots, None, seed, rounds(slots, trials, seed).seconds) for seed in range(seeds)]
            return {"seconds": 1 / _mean(found, "busy"), **_played(found), "us a job": 1e6 * _mean(found, "decision")}

        def theirs(folder: Path, slots: int = slots, trials: int = trials) -> Counts:
            found = [rounds(slots, trials, seed) for seed in range(seeds)]
            return {"seconds": 1 / _mean(found, "busy"), **_played(found)}

        def to_the_end(folder: Path, kind: Any, slots: int = slots, trials: int = trials) -> Counts:
            found = [kind(slots, trials, seed) for seed in range(seeds)]
            alone = round(100 * _mean(found, "slowest"), 1)
            return {"seconds": _mean(found, "seconds"), **_played(found), "% slowest trial": alone}

        names = f"stragglers on {slots} slots (simulated)", "synchronous halving"
        works += [
            Work(f"{names[0]}, one period", ours, {names[1]: theirs}, 1.0, "always busy"),
            Work(f"{names[0]}, {trials} trials to the end", partial(to_the_end, kind=asha),
                 {names[1]: partial(to_the_end, kind=rounds)}, 1.0, "a job of the first rung"),
        ]  # fmt: skip
    return works


def _mean(found: list[Played], name: str) -> float:
    return float(np.mean([getattr(each, name) for each in found]))


def _played(found: list[Played]) -> dict[str, float]:
    shares = {"% busy": "busy", "% in finished jobs": "done"}
    return {
        **{shown: round(100 * _mean(found, name), 1) for shown, name in shares.items()},
        "trials": _mean(found, "started"), "at the top": _mean(found, "top"),
    }  # fmt: skip
