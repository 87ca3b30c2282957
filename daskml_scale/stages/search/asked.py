"""The trials of one search in an Optuna study, which lives in this process: asked here, told here.

A search that goes on under ``out=`` enqueues what its trials were asked before, so the study knows them, unless it
is a kept study that has them already; the sampler's own state (its random generator) comes back as well. Nothing
here runs a trial.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from daskml_scale.errors import UsageError

from .log import FitLog
from .spaces import Suggested

Constraints: TypeAlias = Callable[[Mapping[str, Any]], Mapping[str, float]]
MARK = "daskml-scale"
"""User attribute of a trial in the study: which trial of which search it is, where the search has ``out=``."""


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
        self._ended: set[int] = set()
        self._told: set[int] = set()
        self._log: FitLog | None = None
        self._before: dict[str, Any] = {}

    def resume(self, log: FitLog, search: str) -> None:
        """Take up what an earlier run under the same ``out`` left."""
        log.asked(search)
        self._log = log
        kept = log.sampler()
        if kept is not None:
            self.study.sampler = pickle.loads(kept)
        self._take_up(f"{search}/")

    def _take_up(self, search: str) -> None:
        """Find the trials that an earlier run left in the study; those that it did not tell have failed."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False):
            mark = str(trial.user_attrs.get(MARK, ""))
            if mark.startswith(search):
                if trial.state.is_finished():
                    self._before[mark] = trial
                else:
                    self.study.tell(trial.number, state=TrialState.FAIL)

    def ask(self, trial: int) -> dict[str, Any] | None:
        if trial >= self.trials:
            return None
        log = self._log
        mark = "" if log is None else f"{log.search}/{trial}"
        known = None if log is None else log.raw_of(trial)
        asked = self._before.get(mark)
        if known is not None and asked is not None:
            self._told.add(trial)
        else:
            if known is not None:
                self.study.enqueue_trial(known)
            asked = self.study.ask()
            if mark:
                asked.set_user_attr(MARK, mark)
        params = self.space.suggest(asked)
        self._of[trial], self._params[trial], self.raw[trial] = asked, params, dict(asked.params)
        return dict(params)

    def report(self, trial: int, resource: int, scores: Any) -> None:
        if len(self.signs) == 1 and trial not in self._told:
            value = float(scores if not isinstance(scores, Mapping) else scores[self.judged])
            if not np.isnan(value):
                self._of[trial].report(self.signs[0] * value, resource)

    def end(self, trial: int, resource: int, scores: Any, stopped: bool) -> None:
        from optuna.trial import TrialState

        if trial in self._ended:
            return
        self._ended.add(trial)
        asked, values = self._of[trial], {}
        if self.constraints is not None:
            values = _named(self.constraints({"params": self._params[trial], "scores": scores, "resource": resource}))
        self.feasible[trial] = all(value <= 0 for value in values.values())
        if trial in self._told:
            return
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


def _named(found: Any) -> dict[str, float]:
    """Return what constraints gave for a trial.

    Raises
    ------
    UsageError
        When it is no mapping: Optuna's own constraints are a sequence.
    """
    if not isinstance(found, Mapping):
        raise UsageError(
            f"constraints returned a {type(found).__name__}; return a dict of name to value, such as "
            "{'small': params['C'] - 0.1}: a trial is feasible where none is above 0"
        )
    return dict(found)
