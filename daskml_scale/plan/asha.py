"""Asynchronous successive halving: which trial to run next, and how far. Pure: no clock, no randomness.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (Algorithm 2). A ladder has
rungs; a trial that ran to a rung has a score there. Promotion: whenever a slot is free, the best trial of
the highest rung that is among the top 1/factor there and was not promoted goes one rung up; only when there
is none a new trial starts. Nothing waits for a rung to be complete. Stopping: a trial goes on at once when
it is among the top 1/factor of its rung at the time that it reports, and is never looked at again otherwise.
A Hyperband is several ladders (brackets) that start at different rungs.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["promotion", "stopping"]


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs of one bracket.

    Attributes
    ----------
    rungs : tuple of int
        Resource that a trial has had in all at each rung, growing; the last one is the most.
    trials : int
        Trials that start here.
    factor : float
        One in so many goes up.
    """

    rungs: tuple[int, ...]
    trials: int
    factor: float = 3.0


@dataclass(frozen=True, slots=True)
class Job:
    """Run a trial up to a rung.

    Attributes
    ----------
    start, stop : int
        Resource that it has had, and that it shall have.
    """

    trial: int
    bracket: int
    rung: int
    start: int
    stop: int


def rungs(least: int, most: int, factor: float) -> tuple[int, ...]:
    """Return resources from ``least`` to exactly ``most``, each about ``factor`` times the one before.

    Raises
    ------
    ValueError
        When they are not ``1 <= least <= most`` with a factor above 1.
    """
    if not (1 <= least <= most and factor > 1):
        raise ValueError(f"min_resources={least}, max_resources={most}, factor={factor}: 1 <= min <= max, factor > 1")
    count = math.floor(math.log(most / least, factor) + 1e-9)
    found = [max(least, round(most / factor**power)) for power in range(count, -1, -1)]
    return tuple(sorted(set(found)))


def one_ladder(trials: int, least: int, most: int, factor: float) -> list[Ladder]:
    """Return the ladder of an ASHA search."""
    return [Ladder(rungs(least, most, factor), trials, factor)]


def brackets(least: int, most: int, factor: float) -> list[Ladder]:
    """Return the ladders of a Hyperband, the one with the most early stopping first.

    Li et al., "Hyperband", JMLR 2018: bracket s starts ``ceil((s_max + 1) / (s + 1) * factor**s)`` trials.
    """
    ladder = rungs(least, most, factor)
    deepest = len(ladder) - 1
    return [
        Ladder(ladder[deepest - s :], math.ceil((deepest + 1) / (s + 1) * factor**s), factor)
        for s in range(deepest, -1, -1)
    ]


@dataclass(slots=True)
class Halving:
    """What is known of a search; `next_job` decides, `report` learns.

    Attributes
    ----------
    ladders : sequence of Ladder
    mode : str
    first : int
        Trials that start before one is promoted (all, where there are fewer): among few reports chance decides. With
        two slots and 64 trials a tenth of the work is otherwise spent on trials that later reports prove wrong.
    scores : list of dict
        By bracket and rung (``scores[bracket][rung]``): trial -> score, higher is better; nan is worst.
    """

    ladders: Sequence[Ladder]
    mode: Mode = "promotion"
    first: int = 0
    scores: list[list[dict[int, float]]] = field(default_factory=list)
    _promoted: list[list[set[int]]] = field(default_factory=list)
    _ranked: list[list[list[tuple[float, int]]]] = field(default_factory=list)
    """(-score, trial) of the scored trials of each rung, sorted: the best first, ties go to the earlier trial."""
    _waiting: list[list[list[tuple[float, int]]]] = field(default_factory=list)
    """Those of them that were not promoted."""
    _going_on: list[Job] = field(default_factory=list)
    _running: set[tuple[int, int]] = field(default_factory=set)
    _started: int = 0
    _all_started: bool = False

    def __post_init__(self) -> None:
        self.scores = [[{} for _ in ladder.rungs] for ladder in self.ladders]
        self._promoted = [[set() for _ in ladder.rungs] for ladder in self.ladders]
        self._ranked = [[[] for _ in ladder.rungs] for ladder in self.ladders]
        self._waiting = [[[] for _ in ladder.rungs] for ladder in self.ladders]

    @property
    def trials(self) -> int:
        """Trials that the search may start in all."""
        return sum(ladder.trials for ladder in self.ladders)

    def bracket_of(self, trial: int) -> int:
        """Return where a trial starts: brackets are filled one after the other."""
        for number, ladder in enumerate(self.ladders):
            trial -= ladder.trials
            if trial < 0:
                return number
        raise IndexError(trial)

    def started(self) -> int:
        """Return how many trials were started."""
        return self._started

    def next_job(self) -> Job | None:
        """Return what to run now, and count it as sent; None while only reports can bring more.

        When all is reported and nobody came to the last rung (too few trials for it), the best goes on alone.
        """
        job = self._next()
        if job is not None:
            self._running.add((job.trial, job.rung))
        return job

    def _next(self) -> Job | None:
        if self._going_on:
            return self._going_on.pop(0)
        new = self._started < self.trials and not self._all_started
        if self.mode == "promotion" and not (new and self._started < self.first):
            promoted = self._promotable()
            if promoted is not None:
                return promoted
        if new:
            trial, self._started = self._started, self._started + 1
            return self.job(trial, 0)
        return None if self._running else self._last_climb()

    def job(self, trial: int, rung: int) -> Job:
        """Return the job that takes a trial to a rung from the one below."""
        bracket = self.bracket_of(trial)
        ladder = self.ladders[bracket].rungs
        return Job(trial, bracket, rung, ladder[rung - 1] if rung else 0, ladder[rung])

    def report(self, trial: int, rung: int, score: float) -> None:
        """Learn the score of a trial at a rung."""
        bracket = self.bracket_of(trial)
        self._started = max(self._started, trial + 1)
        self._running.discard((trial, rung))
        new = trial not in self.scores[bracket][rung]
        self.scores[bracket][rung][trial] = score
        if new and not math.isnan(score):
            insort(self._ranked[bracket][rung], (-score, trial))
            if trial not in self._promoted[bracket][rung]:
                insort(self._waiting[bracket][rung], (-score, trial))
        if rung:
            self._promote(bracket, rung - 1, trial)
        last = rung + 1 == len(self.ladders[bracket].rungs)
        if self.mode == "stopping" and not last and self._is_top(bracket, rung, trial):
            self._promote(bracket, rung, trial)
            self._going_on.append(self.job(trial, rung + 1))

    def again(self, job: Job) -> None:
        """Have a job that was sent come again: it did not run."""
        self._going_on.insert(0, job)
        self._running.discard((job.trial, job.rung))

    def no_more_trials(self, job: Job) -> None:
        """Learn that nobody has parameters for the trial of a job: those before it are all that there are."""
        self._all_started = True
        self._running.discard((job.trial, job.rung))

    def is_over(self, trial: int, rung: int) -> bool:
        """Return whether a trial that reported at a rung surely gets no more."""
        bracket = self.bracket_of(trial)
        if rung + 1 == len(self.ladders[bracket].rungs):
            return True
        return self.mode == "stopping" and trial not in self._promoted[bracket][rung]

    def forget_going_on(self, trial: int, rung: int) -> None:
        """Forget that a trial is to go on to a rung: it was there already (a replay)."""
        self._going_on = [job for job in self._going_on if (job.trial, job.rung) != (trial, rung)]

    def _promote(self, bracket: int, rung: int, trial: int) -> None:
        self._promoted[bracket][rung].add(trial)
        waiting = self._waiting[bracket][rung]
        entry = (-self.scores[bracket][rung].get(trial, math.nan), trial)
        place = bisect_left(waiting, entry)
        if place < len(waiting) and waiting[place] == entry:
            del waiting[place]

    def _is_top(self, bracket: int, rung: int, trial: int) -> bool:
        """Return whether a trial is among those that may go up from a rung."""
        score = self.scores[bracket][rung][trial]
        if math.isnan(score):
            return False
        count = int(len(self.scores[bracket][rung]) / self.ladders[bracket].factor + 1e-9)
        if self.mode == "stopping":
            count = max(1, count)
        return bisect_left(self._ranked[bracket][rung], (-score, trial)) < count

    def _last_climb(self) -> Job | None:
        for bracket, ladder in enumerate(self.ladders):
            for rung in range(len(ladder.rungs) - 1, -1, -1):
                known = self._ranked[bracket][rung]
                if known and rung + 1 < len(ladder.rungs):
                    self._promote(bracket, rung, known[0][1])
                    return self.job(known[0][1], rung + 1)
                if known:
                    break
        return None

    def _promotable(self) -> Job | None:
        for bracket, ladder in enumerate(self.ladders):
            for rung in range(len(ladder.rungs) - 2, -1, -1):
                waiting = self._waiting[bracket][rung]
                if waiting and self._is_top(bracket, rung, waiting[0][1]):
                    trial = waiting[0][1]
                    self._promote(bracket, rung, trial)
                    return self.job(trial, rung + 1)
        return None
