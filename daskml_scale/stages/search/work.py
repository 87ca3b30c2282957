"""What runs on a worker for a fit of a search: the round's work, one group of fits, an exception on its way back.

A fit that raises is an answer and comes back as a value. This module sends nothing and keeps no log.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from daskml_scale.engine.worker import WorkerContext, memory_limit
from daskml_scale.errors import UnitsFailedError
from daskml_scale.plan.units import Unit

from ._compat import Round, Scored
from .data import Placed
from .limits import TrialTimeoutError, limited
from .prefixes import KEPT, Sharing, bound


@dataclass(frozen=True, slots=True)
class Raised:
    """An exception on its way from a worker to the caller.

    Attributes
    ----------
    pickled : bytes
        The exception; empty where it does not survive pickling.
    text : str
        Its remote traceback.
    """

    pickled: bytes
    text: str

    @classmethod
    def of(cls, error: Exception) -> Raised:
        import cloudpickle

        text = "".join(traceback.format_exception(error))
        try:
            pickled = cloudpickle.dumps(error)
            pickle.loads(pickled)  # many exception classes pickle and then fail to unpickle
        except Exception:
            pickled = b""
        return cls(pickled, text)

    def exception(self, worker: str) -> Exception:
        """Return the exception to raise, with the remote traceback as a note."""
        if not self.pickled:
            return UnitsFailedError(f"a fit raised an exception that cannot be pickled:\n{self.text}")
        error: Exception = pickle.loads(self.pickled)
        error.add_note(f"Raised on worker {worker}:\n{self.text}")
        return error


@dataclass(frozen=True, slots=True)
class Work:
    """What the fits of one round share on a worker.

    Attributes
    ----------
    token : str
        Of the search: what is kept under another one is forgotten.
    data : Placed or None
        Where X and y are, if they are not in ``round``.
    chains : sequence of tuple of str
        By candidate: the keys of leading pipeline steps that may be shared.
    splits : sequence of str
        Digest of each split.
    timeout : float or None
        Seconds that a fit and its scores may take.
    """

    round: Round
    token: str
    data: Placed | None
    chains: Sequence[tuple[str, ...]]
    splits: Sequence[str]
    timeout: float | None

    def __getstate__(self) -> tuple[Any, ...]:
        sent = self.round if self.data is None else replace(self.round, X=None, y=None)
        return sent, self.token, self.data, self.chains, self.splits, self.timeout

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        for name, value in zip(self.__slots__, state, strict=True):
            object.__setattr__(self, name, value)
        if self.data is not None:
            X, y = self.data.values()
            object.__setattr__(self, "round", replace(self.round, X=X, y=y))

    def fit(self, candidate: int, split: int) -> Scored:
        """Make one fit, sharing what can be."""
        try:
            return self._fit(candidate, split)
        except TrialTimeoutError as error:  # it came outside the fit proper
            if self.round.options["error_score"] == "raise":
                raise
            return self.round.lost(split, f"TrialTimeoutError: {error}")

    def _fit(self, candidate: int, split: int) -> Scored:
        keys = self.chains[candidate]
        with limited(self.timeout):
            if not keys:
                return self.round.fit_and_score(candidate, split)
            sharing = Sharing(KEPT, (self.token, self.splits[split]), keys)
            found = self.round.fit_and_score(
                candidate, split, prepare=lambda pipeline: setattr(pipeline, "memory", sharing), note=sharing.note
            )
        found["fit_time"] += sharing.fitting
        found["score_time"] += sharing.scoring
        return found


def fit_group(unit: Unit, worker: WorkerContext) -> list[Scored | Raised]:
    """Make the fits of one group (the kernel); one that raises ends it."""
    work: Work = worker.shared
    split, candidates = unit.payload
    if any(work.chains):
        forget_others(work.token)
    found: list[Scored | Raised] = []
    for candidate in candidates:
        try:
            found.append(work.fit(candidate, split))
        except Exception as error:
            return [*found, Raised.of(error)]
    return found


_kept_for: list[str] = [""]


def forget_others(token: str) -> None:
    """Drop what is kept for another search than this one."""
    if _kept_for[0] != token:
        _kept_for[0] = token
        KEPT.clear()
        bound(memory_limit())


def forget() -> None:
    """Drop all that is kept."""
    forget_others("")
