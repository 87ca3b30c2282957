"""The coordinator of an adaptive search: asks for trials, sends their segments, learns their scores.

One loop over the engine's outcomes and no barrier anywhere: each result may start a new trial or take
one a rung up (`plan.asha` decides). A segment that is in the log is answered from there; a model that
may go on is kept until its trial does. Who suggests parameters is a `Sampler`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from daskml_scale.engine.client import slots
from daskml_scale.engine.dispatch import dispatch
from daskml_scale.errors import UnitsFailedError
from daskml_scale.plan.asha import Halving, Job
from daskml_scale.plan.units import Outcome, Unit
from daskml_scale.storage import files

from ._compat import LOST, Round, Scored
from .data import check_room, is_missing, placed
from .fidelity import Fidelity
from .fits import Raised, Runner, Work
from .log import FitLog
from .segments import AdaptiveWork, Run, Segment, run_segment

AHEAD = 2
"""Segments in flight per slot ..."""
AHEAD_SECONDS = 0.3
"""... or as many as take so long, when they are quick."""
MEMORY_BYTES = 256 << 20
"""Models kept in the memory of this process before they go to files."""


class Sampler(Protocol):
    """Who suggests the parameters of trials.

    Attributes
    ----------
    raw : mapping of trial to anything picklable
        What the sampler wants to know again after a crash, beside the parameters.
    """

    raw: dict[int, Any]

    def ask(self, trial: int) -> dict[str, Any] | None:
        """Return the parameters of a new trial; None when there are no more."""
        ...

    def report(self, trial: int, resource: int, scores: Any) -> None:
        """Learn the mean scores of a trial after so much of its resource."""
        ...

    def end(self, trial: int, resource: int, scores: Any, stopped: bool) -> None:
        """Learn that a trial gets no more; called once or more."""
        ...

    def keep(self, log: FitLog) -> None:
        """Keep what the sampler must not forget, if anything."""
        ...


@dataclass(slots=True)
class Trial:
    """One setting and how far it came.

    Attributes
    ----------
    rung : int
        The highest with all scores; -1 for none.
    scored : list of result by split
        Of that rung, its times those of all rungs together.
    """

    number: int
    bracket: int
    params: dict[str, Any]
    rung: int = -1
    resource: int = 0
    scored: list[Scored] = field(default_factory=list)


class States:
    """Models of paused trials: under ``out=``, else in memory and above a size in a folder of their own."""

    def __init__(self, url: str | None) -> None:
        self.url, self.held = url, 0
        self._values: dict[str, bytes] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def put(self, key: str, state: bytes) -> None:
        if self.url is not None:
            files.write_bytes(files.join(self.url, f"{key}.pkl"), state)
        elif self.held + len(state) <= MEMORY_BYTES:
            self._values[key], self.held = state, self.held + len(state)
        else:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="search-")
            (Path(self._folder.name) / key).write_bytes(state)

    def get(self, key: str) -> bytes | None:
        if self.url is not None:
            return files.read_bytes(files.join(self.url, f"{key}.pkl"))
        if key in self._values:
            return self._values[key]
        path = Path(self._folder.name) / key if self._folder else None
        return path.read_bytes() if path is not None and path.exists() else None

    def drop(self, key: str) -> None:
        self.held -= len(self._values.pop(key, b""))
        if self.url is not None:
            files.remove(files.join(self.url, f"{key}.pkl"))
        elif self._folder is not None:
            (Path(self._folder.name) / key).unlink(missing_ok=True)

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()


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
    exhausted: bool = False

    def __post_init__(self) -> None:
        log = self.runner.log
        self.digests = self.work.split_digests()
        self.states = States(None if log is None else files.join(log.url, "search.states"))
        self.head = "" if log is None else log.head(self.work, self.fidelity)
        self.in_flight: dict[str, tuple[Job, int]] = {}
        self.arrived: dict[tuple[int, int], dict[int, Scored]] = {}
        self.quick: list[float] = []
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
        if runner.client is not None:
            check_room(runner.client, self.work.X, self.work.y)
        if runner.client is not None and not inline:
            data = runner.data = placed(runner.client, self.work.X, self.work.y, None)
        runner.shared = True
        sent = AdaptiveWork(Work(self.work, runner.token, data, (), self.digests, runner.timeout), self.fidelity)
        groups: Any = dispatch(
            run_segment, sent, self._units(), name=runner.name, client=runner.client, resources=runner.resources
        )
        missing = False
        with closing(groups):
            for group in groups:
                missing = self._learn(group) or missing
                if runner.out_of_time:
                    runner.spent = True
                    return
                if missing:
                    break
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
            if job is None or not self._begun(job):
                return None
            done = {split: kept for split in range(len(self.digests)) if (kept := self._logged(job, split))}
            self.arrived[job.trial, job.rung] = done
            if len(done) < len(self.digests):
                return job
            self._complete(job)
        return None

    def _begun(self, job: Job) -> bool:
        if job.trial in self.trials:
            return True
        params = None if self.exhausted else self.sampler.ask(job.trial)
        if params is None:
            self.exhausted = True
            return False
        self.trials[job.trial] = Trial(job.trial, job.bracket, params)
        return True

    def _most_in_flight(self) -> int:
        if self.runner.client is None:
            return 1
        if time.monotonic() - self.asked > 2:
            self.slots = max(1, slots(self.runner.client, dict(self.runner.resources or {})))
            self.asked = time.monotonic()
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
        state = self.states.get(self._key(job, split, job.start)) if job.start and self.fidelity.goes_on else None
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
        for job, split, run in done:  # a model before the record that says that it is there
            if run.state is not None:
                self.states.put(self._key(job, split, job.stop), run.state)
        log = self.runner.log
        if log is not None:
            asked = {
                job.trial: (self.trials[job.trial].params, self.sampler.raw.get(job.trial))
                for job, _, _ in done
                if not job.rung
            }
            log.add_segments(
                [
                    (f"rung/{self._key(job, split, job.stop)}", (job.trial, split), run.scored,
                     self.trials[job.trial].params, job.stop)
                    for job, split, run in done
                ],
                asked,
            )  # fmt: skip
            self.sampler.keep(log)
        for job, split, _ in done:
            if job.start and self.fidelity.goes_on:
                self.states.drop(self._key(job, split, job.start))

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


def mean_scores(parts: Sequence[Scored]) -> Any:
    """Return the mean score over splits; a dict for several metrics."""
    scores = [part["test_scores"] for part in parts]
    if isinstance(scores[0], dict):
        return {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}
    return float(np.mean(scores))
