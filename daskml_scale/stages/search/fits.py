"""The fits of a search on a Dask cluster: one unit per (candidate, split), data placed once per worker.

A fit that raises is an answer, not a failure of the engine: it comes back as a value, is never tried
again, and reaches the caller as the exception that the estimator raised. Only workers that die are
tried again. This module knows nothing of ranking or refit: scikit-learn does those.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from daskml_scale.engine.dispatch import dispatch
from daskml_scale.engine.suspects import POISON
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import UnitsFailedError
from daskml_scale.plan.units import Outcome, Unit

from ._compat import Call, Round, Scored, gather

LOST = ("WorkerLost", POISON)
"""How the error of a unit starts that took its process with it."""


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


def fit_one(unit: Unit, worker: WorkerContext) -> Scored | Raised:
    """Fit and score one (candidate, split) of ``worker.shared`` (the kernel)."""
    work: Round = worker.shared
    try:
        return work.fit_and_score(*unit.payload)
    except Exception as error:
        return Raised.of(error)


def run_on(client: Any, calls: Sequence[Call], name: str) -> list[Scored]:
    """Run the calls of one round on a cluster; return their results in order.

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
    n_splits = len(work.splits)
    units = [Unit(f"fit/{number:06d}", divmod(number, n_splits)) for number in range(len(calls))]
    found: dict[str, Scored] = {}
    groups: Any = dispatch(fit_one, work, units, name=name, client=client)
    with closing(groups):  # at an exception: gives up what is still running
        for group in groups:
            found.update((outcome.unit.key, _result(outcome, work)) for outcome in group)
    return [found[unit.key] for unit in units]


def _result(outcome: Outcome, work: Round) -> Scored:
    if isinstance(outcome.value, Raised):
        raise outcome.value.exception(outcome.worker)
    if outcome.ok:
        result: Scored = outcome.value
        return result
    if outcome.error.startswith(LOST) and work.options["error_score"] != "raise":
        return work.lost(outcome.unit.payload[1], outcome.error)
    raise UnitsFailedError(f"{outcome.unit.key}: {outcome.error}\n{outcome.traceback}".rstrip())
