"""The fits of a search: units on a cluster or in this process, each result logged before it is let go.

A unit is one fit, or the fits of one split that share a pipeline prefix. A fit that raises is an answer,
not a failure of the engine: it comes back as a value, is never tried again, and reaches the caller as the
exception that the estimator raised. Only workers that die are tried again; a fit that ended three of them
counts as failed. This module knows nothing of ranking or refit: scikit-learn does those.
"""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from daskml_scale.engine.client import slots
from daskml_scale.engine.dispatch import dispatch
from daskml_scale.errors import UnitsFailedError
from daskml_scale.plan.prefixes import Group, grouped
from daskml_scale.plan.units import Outcome, Unit

from ._compat import LOST, Call, Round, Scored, gather
from .beyond import Beyond
from .data import Placed, arrays_bytes, is_missing, placed
from .live import Live
from .log import FitLog
from .prefixes import chain
from .trial import mean_scores
from .work import Raised, Work, fit_group, forget

IN_PROCESS_BYTES = 256 << 10
"""Fits of scikit-learn's own estimators on no more data than this may stay in this process ..."""
MANY = 4
"""... or on so many times as much, where each slot would have so many fits: one slow fit here then delays little ..."""
START_SECONDS, USED = 0.8, 0.7
"""... when a cluster would take longer: until it has the data and the first results, and how busy it then is."""
PROBE_SECONDS = 0.2
WAITING = 3.0
"""Times its computing that a fit may take until its waiting counts."""
AIM_SECONDS = 0.5
"""What a task of several fits shall last; the last ones are shorter."""
GRACE_SECONDS = 1.5
"""After the time budget: until then what has ended may still come in, later nothing is waited for."""
FitId: TypeAlias = tuple[int, int]
"""(candidate, split)."""


class TimeIsUpError(Exception):
    """The time budget ended the fits, or the rounds, of a search (inside it only)."""


@dataclass
class Runner:
    """Makes the rounds of one search.

    Attributes
    ----------
    client : distributed.Client or None
    budget : float or None
        Seconds after which no more results are waited for.
    timeout : float or None
        Seconds that one fit and its scores may take.
    log : FitLog or None
        Where results are kept as they come.
    rounds : bool
        Whether there may be many rounds with the same data.
    live : Live
        Is told what is done.
    judged : str
        Which of several scores is shown.
    """

    name: str
    client: Any = None
    resources: Mapping[str, float] | None = None
    budget: float | None = None
    timeout: float | None = None
    log: FitLog | None = None
    rounds: bool = False
    live: Live = field(default_factory=lambda: Live(""))
    judged: str = ""
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    began: float = field(default_factory=time.monotonic)
    spent: bool = False
    data: Placed | None = None
    shared: bool = False
    _beyond: Beyond | None = None

    def __call__(self, calls: Sequence[Call]) -> list[Scored]:
        """Run the calls of one round; return their results in order.

        Raises
        ------
        Exception
            What a fit raised under ``error_score="raise"``; what is still running is given up.
        UnitsFailedError
            When the workers cannot run the fits at all.
        """
        if not calls:
            return []
        work = gather(calls)
        fits = [divmod(number, len(work.splits)) for number in range(len(calls))]
        found: dict[FitId, Scored] = {}
        keys: dict[FitId, str] = {}
        if self.log is not None:
            keys = self.log.keys(work)
            found = {fit: kept for fit in fits if (kept := self.log.get(keys[fit])) is not None}
        self.live.begin(len(found), len(fits))
        try:
            for done in self._results(work, [fit for fit in fits if fit not in found]):
                if self.log is not None:
                    self.log.add([(keys[fit], fit, result, work.candidates[fit[0]]) for fit, result in done.items()])
                found.update(done)
                self._tell(work, found, done)
                self.live.fits(len(found), len(fits))
                if self.out_of_time:
                    self.spent = True
                    break
        except TimeIsUpError:
            self.spent = True
        if len(found) < len(fits):
            self._tell_unfinished(work, found)
        return [found[fit] if fit in found else work.untried(fit[1]) for fit in fits]

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is spent."""
        return self.budget is not None and time.monotonic() - self.began >= self.budget

    def check_time(self) -> None:
        """End a search whose time is spent, though the fits that it waits for are not done.

        Raises
        ------
        TimeIsUpError
        """
        if self.budget is not None and time.monotonic() - self.began >= self.budget + GRACE_SECONDS:
            raise TimeIsUpError

    def close(self) -> None:
        """Have the workers forget what was kept for this search."""
        forget()
        self.data = None
        if self._beyond is not None:
            self._beyond.close()
        if self.client is not None and self.shared and self.client.status == "running":
            # Not waited for: a worker may be busy with a fit that nobody wants any more.
            self.client.loop.add_callback(self.client.run, forget, on_error="ignore", asynchronous=True)

    def _tell(self, work: Round, found: Mapping[FitId, Scored], done: Mapping[FitId, Scored]) -> None:
        """Show the candidates that have all their scores now, where somebody looks."""
        if not self.live.followed:
            return
        for candidate in dict.fromkeys(candidate for candidate, _ in done):
            parts = [found[candidate, split] for split in range(len(work.splits)) if (candidate, split) in found]
            if len(parts) == len(work.splits):
                score = mean_scores(parts)
                if isinstance(score, Mapping):
                    score = score[self.judged if self.judged in score else min(score)]
                self.live.trial(candidate, score, work.candidates[candidate])

    def _tell_unfinished(self, work: Round, found: Mapping[FitId, Scored]) -> None:
        n_splits = len(work.splits)
        whole = sum(all((c, s) in found for s in range(n_splits)) for c in range(len(work.candidates)))
        warnings.warn(
            f"{self.name}: time_budget={self.budget:g} s is spent; {whole} of {len(work.candidates)} candidates have "
            "all their scores, the others count as not scored (nan)",
            UserWarning,
            stacklevel=2,
        )

    def _results(self, work: Round, fits: list[FitId]) -> Iterator[dict[FitId, Scored]]:
        if not fits:
            return
        shape = tuple(getattr(work.X, "shape", ()))
        chains = [chain(work.estimator, params, shape) for params in work.candidates]
        self.shared = self.shared or any(chains)
        sent = Work(work, self.token, None, chains, work.split_digests(), self.timeout)
        client = self.client
        if client is not None and self._may_stay(work, len(fits)):
            for done in self._probe(sent, fits):
                yield done
                fits = [fit for fit in fits if fit not in done]
                if self.out_of_time or not fits:
                    return
        work = self.within(work)
        sent = replace(sent, round=work)
        if client is not None and self.rounds:
            self.data = placed(client, work.X, work.y, self.data)
            sent = replace(sent, data=self.data)
        yield from self._dispatched(sent, grouped(chains, fits, 1 if client is None else self._slots()))

    def within(self, work: Round) -> Round:
        """Return a round with its rows where the workers can take them.

        Raises
        ------
        PlanError
            When they can in no way.
        """
        if self.client is None:
            return work
        self._beyond = self._beyond or Beyond(self.client, None if self.log is None else self.log.url)
        return replace(work, X=self._beyond.rows(work.X, work.y))

    def _slots(self) -> int:
        return max(1, slots(self.client, dict(self.resources or {})))

    def _may_stay(self, work: Round, fits: int) -> bool:
        """Whether fits are surely small and harmless enough to try some in this process."""
        most = IN_PROCESS_BYTES * (MANY if fits >= MANY * self._slots() else 1)
        if self.resources or arrays_bytes(work.X, work.y) > most:
            return False
        parts = [work.estimator, *work.estimator.get_params(deep=True).values()]
        parts += [value for params in work.candidates for value in params.values()]
        kinds = {type(part) for part in parts if hasattr(part, "fit")}
        return all(kind.__module__.startswith("sklearn.") for kind in kinds)

    def _probe(self, sent: Work, fits: list[FitId]) -> Iterator[dict[FitId, Scored]]:
        """Make fits here for a moment, and all of them when they are that quick."""
        from threadpoolctl import ThreadpoolController

        one_thread = ThreadpoolController()  # as on a worker: the last bits of a sum may depend on it
        done: dict[FitId, Scored] = {}
        began = last = time.monotonic()
        began_cpu = time.process_time()
        for number, (candidate, split) in enumerate(fits, 1):
            with one_thread.limit(limits=1):
                done[candidate, split] = sent.fit(candidate, split)
            now = time.monotonic()
            if now - last > PROBE_SECONDS:
                yield done
                done, last = {}, time.monotonic()
                # Where others keep the machine busy, workers would wait as long: what a fit computes counts.
                spent = min(now - began, max(time.process_time() - began_cpu, (now - began) / WAITING))
                left = spent / number * (len(fits) - number)
                if left > START_SECONDS + left / (USED * self._slots()):
                    return
        yield done

    def _dispatched(self, sent: Work, groups: Sequence[Group], last: bool = False) -> Iterator[dict[FitId, Scored]]:
        units = [
            Unit(f"fit/{number:06d}", (group.split, group.candidates), float(len(group.candidates)))
            for number, group in enumerate(groups)
        ]
        again: list[Group] = []
        inline: list[Group] = []
        outcomes: Any = dispatch(
            fit_group, sent, units, name=self.name, client=self.client, resources=self.resources, check=self.check_time,
            aim=AIM_SECONDS,
        )  # fmt: skip
        with closing(outcomes):  # at an exception: gives up what is still running
            for group in outcomes:
                done: dict[FitId, Scored] = {}
                for outcome in group:
                    split, candidates = outcome.unit.payload
                    if sent.data is not None and is_missing(outcome.error):
                        inline.append(Group(split, candidates))
                    elif outcome.error.startswith(LOST) and len(candidates) > 1:
                        again += [Group(split, (candidate,)) for candidate in candidates]
                    else:
                        done.update(self._done(sent.round, outcome))
                yield done
        if inline and not last:  # the workers that held the data are gone: send it with the work
            yield from self._dispatched(replace(sent, data=None), inline, last=True)
        if again:
            yield from self._dispatched(sent, again, last)

    def _done(self, work: Round, outcome: Outcome) -> dict[FitId, Scored]:
        split, candidates = outcome.unit.payload
        if outcome.ok:
            for value in outcome.value:
                if isinstance(value, Raised):
                    raise value.exception(outcome.worker)
            return {(candidate, split): value for candidate, value in zip(candidates, outcome.value, strict=True)}
        if outcome.error.startswith(LOST) and work.options["error_score"] != "raise":
            return {(candidate, split): work.lost(split, outcome.error) for candidate in candidates}
        raise UnitsFailedError(f"{outcome.unit.key}: {outcome.error}\n{outcome.traceback}".rstrip())
