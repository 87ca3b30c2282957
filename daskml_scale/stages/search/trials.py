"""The coordinator of an adaptive search: asks for trials, sends their segments, learns their scores.

One loop over the engine's outcomes and no barrier anywhere: each result may start a new trial or take
one a rung up (`plan.asha` decides). A segment that is in the log is answered from there; a model that
may go on is kept until its trial does. Who suggests parameters is a `Sampler`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskml_scale.engine.client import slots
from daskml_scale.engine.dispatch import dispatch
from daskml_scale.errors import UnitsFailedError
from daskml_scale.plan.asha import Halving, Job
from daskml_scale.plan.units import Outcome, Unit
from daskml_scale.storage import files

from ._compat import LOST, Round, Scored
from .data import is_missing, placed
from .fidelity import Fidelity
from .fits import Runner, TimeIsUpError
from .log import FitLog
from .segments import AdaptiveWork, Run, Segment, run_segment
from .states import States
from .trial import Sampler, Trial, mean_scores
from .work import Raised, Work

AHEAD = 2
"""Segments in flight per slot ..."""
AHEAD_SECONDS = 0.3
"""... or as many as take so long, when they are quick and the sampler learns nothing from them."""


@dataclass
class Coordinator:
    """One adaptive search.

    Attributes
    ----------
    work : Round
        Estimator, rows, splits and options.
    judged : str
        Which of several scores decides; empty for a single one.
    """

    runner: Runner
    work: Round
    halving: Halving
    sampler: Sampler
    fidelity: Fidelity
    judged: str = ""
    trials: dict[int, Trial] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        log = self.runner.log
        self.digests = self.work.split_digests()
        self.states = States(None if log is None else files.join(log.url, "search.states"))
        self.head = "" if log is None else log.head(self.work, self.fidelity)
        self.in_flight: dict[str, tuple[Job, int]] = {}
        self.arrived: dict[tuple[int, int], dict[int, Scored]] = {}
        self.quick: list[float] = []
        self.kept: dict[str, str] = {}
        self.slots, self.asked = 1, 0.0

    def run(self) -> list[Trial]:
        """Run the search to its end; return the trials that have a score, in order.

        Raises
        ------
        Exception
            What a fit raised under ``error_score="raise"``.
        UnitsFailedError
            When the workers cannot run the fits, or no trial has all its scores in time.
        """
        try:
            self._run()
        finally:
            self.states.close()
        for trial in self.trials.values():
            if trial.rung >= 0:
                self._ended(trial)
        found = [self.trials[number] for number in sorted(self.trials) if self.trials[number].rung >= 0]
        if not found:
            raise UnitsFailedError(f"{self.runner.name}: no trial has a score within time_budget={self.runner.budget}")
        return found

    def _run(self, inline: bool = False) -> None:
        runner = self.runner
        data = None
        self.work = runner.within(self.work)
        if runner.client is not None and not inline:
            data = runner.data = placed(runner.client, self.work.X, self.work.y, None)
        runner.shared = True
        sent = AdaptiveWork(Work(self.work, runner.token, data, (), self.digests, runner.timeout), self.fidelity)
        groups: Any = dispatch(
            run_segment, sent, self._units(), name=runner.name, client=runner.client, resources=runner.resources,
            check=runner.check_time,
        )  # fmt: skip
        missing = False
        with closing(groups), suppress(TimeIsUpError):
            for group in groups:
                missing = self._learn(group) or missing
                if runner.out_of_time or missing:
                    break
        runner.spent = runner.out_of_time
        if runner.spent:
            return
        if missing:  # the workers that held the data are gone: start over with it inside the work
            self._give_back()
            self._run(inline=True)

    def _give_back(self) -> None:
        for job in {id(job): job for job, _ in self.in_flight.values()}.values():
            self.halving.again(job)
        self.in_flight.clear()

    def _units(self) -> Iterator[Unit | None]:
        while True:
            job = self._next()
            if job is None:
                if not self.in_flight:
                    return
                yield None
                continue
            for split in range(len(self.digests)):
                if split not in self.arrived.get((job.trial, job.rung), {}):
                    yield self._unit(job, split)

    def _next(self) -> Job | None:
        """Return a job that has to run; what the log knows is learnt on the way."""
        while len(self.in_flight) < self._most_in_flight():
            job = self.halving.next_job()
            if job is None:
                return None
            if not self._begun(job):
                self.halving.no_more_trials(job)
                continue
            done = {split: kept for split in range(len(self.digests)) if (kept := self._logged(job, split))}
            self.arrived[job.trial, job.rung] = done
            if len(done) < len(self.digests):
                return job
            self._complete(job)
        return None

    def _begun(self, job: Job) -> bool:
        if job.trial in self.trials:
            return True
        params = self.sampler.ask(job.trial)
        if params is None:
            return False
        self.trials[job.trial] = Trial(job.trial, job.bracket, params)
        return True

    def _most_in_flight(self) -> int:
        if self.runner.client is None:
            return 1
        if time.monotonic() - self.asked > 2:
            self.slots = max(1, slots(self.runner.client, dict(self.runner.resources or {})))
            self.asked = time.monotonic()
        if self.sampler.learns:
            return AHEAD * self.slots
        usual = float(np.median(self.quick[-100:])) if self.quick else 1.0
        return int(max(AHEAD * self.slots, min(1000, self.slots * AHEAD_SECONDS / max(usual, 1e-4))))

    def _key(self, job: Job, split: int, resource: int) -> str:
        log = self.runner.log
        if log is None:
            return f"{job.trial}-{split}-{resource}"
        return log.segment_key(self.head, self.trials[job.trial].params, self.digests[split], resource)

    def _logged(self, job: Job, split: int) -> Scored | None:
        log = self.runner.log
        return None if log is None else log.get(f"rung/{self._key(job, split, job.stop)}")

    def _unit(self, job: Job, split: int) -> Unit:
        key = f"trial/{job.trial:06d}/rung/{job.rung}/split/{split}"
        self.in_flight[key] = (job, split)
        state = self._state(job, split)
        keep = job.rung + 1 < len(self.halving.ladders[job.bracket].rungs)
        segment = Segment(split, self.trials[job.trial].params, job.start, job.stop, state, keep)
        return Unit(key, segment, float(job.stop - (job.start if state is not None else 0)))

    def _learn(self, group: Sequence[Outcome]) -> bool:
        """Log and learn a group of outcomes; return whether the workers have lost the data."""
        done: list[tuple[Job, int, Run]] = []
        missing = False
        for outcome in group:
            if is_missing(outcome.error):
                missing = True
                continue
            job, split = self.in_flight.pop(outcome.unit.key)
            done.append((job, split, self._result(outcome)))
            self.quick.append(outcome.seconds)
        self._keep(done)
        for job, split, run in done:
            arrived = self.arrived.setdefault((job.trial, job.rung), {})
            arrived[split] = run.scored
            if len(arrived) == len(self.digests):
                self._complete(job)
        return missing

    def _result(self, outcome: Outcome) -> Run:
        split = outcome.unit.payload.split
        if isinstance(outcome.value, Raised):
            raise outcome.value.exception(outcome.worker)
        if outcome.ok:
            found: Run = outcome.value
            return found
        if outcome.error.startswith(LOST) and self.work.options["error_score"] != "raise":
            return Run(self.work.lost(split, outcome.error))
        raise UnitsFailedError(f"{outcome.unit.key}: {outcome.error}\n{outcome.traceback}".rstrip())

    def _keep(self, done: Sequence[tuple[Job, int, Run]]) -> None:
        log = self.runner.log
        digests = {}
        for job, split, run in done:  # a model before the record that says that it is there
            if run.state is not None:
                key = self._key(job, split, job.stop)
                digests[key] = self.kept[key] = self.states.put(key, run.state)
        if log is not None:
            self._log(log, done, digests)
        for job, split, _ in done:
            if job.start and self.fidelity.goes_on:
                self.states.drop(self._key(job, split, job.start))

    def _log(self, log: FitLog, done: Sequence[tuple[Job, int, Run]], digests: Mapping[str, str]) -> None:
        segments, asked = [], {}
        for job, split, run in done:
            key, params = self._key(job, split, job.stop), self.trials[job.trial].params
            segments.append((f"rung/{key}", (job.trial, split), run.scored, params, job.stop, digests.get(key, "")))
            if not job.rung:
                asked[job.trial] = (params, self.sampler.raw.get(job.trial))
        log.add_segments(segments, asked, self.sampler.state())

    def _state(self, job: Job, split: int) -> bytes | None:
        """Return the model that a job goes on from."""
        if not (job.start and self.fidelity.goes_on):
            return None
        key, log = self._key(job, split, job.start), self.runner.log
        return self.states.get(key, self.kept.get(key) or ("" if log is None else log.state_of(f"rung/{key}")))

    def _complete(self, job: Job) -> None:
        """All splits of a rung are there: tell who decides."""
        trial, scored = self.trials[job.trial], self.arrived.pop((job.trial, job.rung))
        parts = [dict(scored[split]) for split in range(len(self.digests))]
        mean = mean_scores(parts)
        for part, before in zip(parts, trial.scored, strict=False):
            part["fit_time"] += before["fit_time"]
            part["score_time"] += before["score_time"]
        trial.rung, trial.resource, trial.scored = job.rung, job.stop, parts
        score = float(mean[self.judged] if isinstance(mean, Mapping) else mean)
        self.history.append(
            {"trial": trial.number, "bracket": job.bracket, "rung": job.rung, "resource": job.stop, "score": score,
             "seconds": sum(part["fit_time"] + part["score_time"] for part in parts),
             "elapsed": time.monotonic() - self.runner.began}
        )  # fmt: skip
        self.runner.live.rung(trial.number, job.rung, job.stop, score, trial.params)
        self.sampler.report(trial.number, job.stop, mean)
        self.halving.report(trial.number, job.rung, score)
        if self.halving.is_over(trial.number, job.rung):
            self._ended(trial)

    def _ended(self, trial: Trial) -> None:
        ladder = self.halving.ladders[trial.bracket].rungs
        stopped = trial.rung + 1 < len(ladder)
        self.sampler.end(trial.number, trial.resource, mean_scores(trial.scored), stopped)
