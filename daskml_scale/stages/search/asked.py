"""The trials of one search in an Optuna study, which lives in this process: asked here, told here.

A search that goes on under ``out=`` enqueues what its trials were asked before, so the study knows them; the
sampler's own state (its random generator) comes back as well. Nothing here runs a trial.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from .log import FitLog
from .spaces import Suggested

Constraints: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, float]]


class Asked:
    """The trials of one search in an Optuna study."""

    learns = True

    def __init__(
        self,
        study: Any,
        space: Suggested,
        trials: int,
        constraints: Constraints | None,
        judged: str,
        names: Sequence[str],
    ) -> None:
        from optuna.study import StudyDirection

        self.study, self.space, self.trials, self.constraints = study, space, trials, constraints
        self.judged, self.names = judged, list(names)
        self.signs = [-1.0 if way == StudyDirection.MINIMIZE else 1.0 for way in study.directions]
        self.feasible: dict[int, bool] = {}
        self.raw: dict[int, Any] = {}
        self._of: dict[int, Any] = {}
        self._params: dict[int, dict[str, Any]] = {}
        self._told: set[int] = set()
        self._log: FitLog | None = None

    def resume(self, log: FitLog, search: str) -> None:
        """Take up what an earlier run under the same ``out`` left."""
        log.asked(search)
        self._log = log
        kept = log.sampler()
        if kept is not None:
            self.study.sampler = pickle.loads(kept)

    def ask(self, trial: int) -> dict[str, Any] | None:
        if trial >= self.trials:
            return None
        known = None if self._log is None else self._log.raw_of(trial)
        if known is not None:
            self.study.enqueue_trial(known)
        asked = self.study.ask()
        params = self.space.suggest(asked)
        self._of[trial], self._params[trial], self.raw[trial] = asked, params, dict(asked.params)
        return dict(params)

    def report(self, trial: int, resource: int, scores: Any) -> None:
        if len(self.signs) == 1:
            value = float(scores if not isinstance(scores, Mapping) else scores[self.judged])
            if not np.isnan(value):
                self._of[trial].report(self.signs[0] * value, resource)

    def end(self, trial: int, resource: int, scores: Any, stopped: bool) -> None:
        from optuna.trial import TrialState

        if trial in self._told:
            return
        self._told.add(trial)
        asked = self._of[trial]
        self.feasible[trial] = True
        if self.constraints is not None:
            values = self.constraints({"params": self._params[trial], "scores": scores, "resource": resource})
            self.feasible[trial] = all(value <= 0 for value in values.values())
            for name, value in values.items():
                asked.set_constraint(name, float(value))
        found = [scores[name] for name in self.names] if isinstance(scores, Mapping) else [scores]
        if len(self.signs) == 1 and isinstance(scores, Mapping):
            found = [scores[self.judged]]
        if any(np.isnan(found)):
            self.study.tell(asked, state=TrialState.FAIL)
        elif stopped and len(self.signs) == 1:
            self.study.tell(asked, state=TrialState.PRUNED)
        else:
            self.study.tell(asked, [sign * value for sign, value in zip(self.signs, found, strict=True)])

    def state(self) -> bytes | None:
        """Return the sampler, so that it goes on after a crash; None where it cannot be pickled: it starts anew."""
        with contextlib.suppress(pickle.PicklingError, AttributeError, TypeError):
            return pickle.dumps(self.study.sampler)
        return None
