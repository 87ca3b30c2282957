"""One rung of one trial on one split, on a worker: train from where it stopped, score, hand the model back.

The model travels pickled with the result and with the next segment, so a worker that dies takes none with
it. A whole fit, of a search that stops nobody, runs exactly as a fit of the other searches does.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import Any

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.units import Unit

from ._compat import Scored
from .bins import shared_bins
from .chunks import chunk_rows, some
from .fidelity import Fidelity, rows_of
from .limits import TrialTimeoutError, limited
from .prefixes import KEPT, Sharing, chain, separated
from .work import Raised, Work, forget_others

MOST_STATE_BYTES = 256 << 20
"""A larger model is not kept; its trial starts again when it is promoted."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What a unit of an adaptive search is asked for.

    Attributes
    ----------
    start, stop : int
        Resource before and after.
    state : bytes or None
        The pickled model; without it the trial is trained from nothing.
    keep : bool
        Whether the model may be wanted again.
    """

    split: int
    params: dict[str, Any]
    start: int
    stop: int
    state: bytes | None
    keep: bool


@dataclass(frozen=True, slots=True)
class Run:
    """Results of a segment.

    Attributes
    ----------
    state : bytes or None
    """

    scored: Scored
    state: bytes | None = None


@dataclass(frozen=True, slots=True)
class AdaptiveWork:
    """What all segments of a search share on a worker."""

    work: Work
    fidelity: Fidelity


def run_segment(unit: Unit, worker: WorkerContext) -> Run | Raised:
    """Run one segment (the kernel)."""
    shared: AdaptiveWork = worker.shared
    segment: Segment = unit.payload
    try:
        with limited(shared.work.timeout):
            return _run(shared.work, shared.fidelity, segment)
    except TrialTimeoutError as error:
        if shared.work.round.options["error_score"] == "raise":
            return Raised.of(error)
        return Run(shared.work.round.lost(segment.split, f"TrialTimeoutError: {error}"))
    except Exception as error:
        return Raised.of(error)


def _run(work: Work, fidelity: Fidelity, segment: Segment) -> Run:
    round, split = work.round, segment.split
    keys = chain(round.estimator, segment.params, tuple(getattr(round.X, "shape", ())))
    rows = rows_of(round.splits[split][0], split, segment.stop) if fidelity.kind == "n_samples" else None
    sharing = None
    forget_others(work.token)
    if keys:
        sharing = Sharing(KEPT, (work.token, work.splits[split], None if rows is None else len(rows)), keys)
    more: dict[str, Any] = {}
    if sharing is not None:
        more = {"prepare": lambda pipeline: setattr(pipeline, "memory", sharing), "note": sharing.note}
    if fidelity.kind == "whole":
        scored, state = replace(round, candidates=[segment.params]).fit_and_score(0, split, **more), None
    else:
        model = pickle.loads(segment.state) if segment.state is not None else None
        start = segment.start if model is not None else 0

        def train(model: Any, X: Any, y: Any, of_fit: Any, classes: Any) -> Any:
            with shared_bins(model, KEPT):
                return fidelity.train(model, X, y, start, segment.stop, of_fit, classes)

        parts = None
        if fidelity.kind == "chunks":
            parts = some(chunk_rows(round.X, round.splits[split][0], split), start, segment.stop)
        scored, model = round.segment(segment.params, split, train, rows=rows, model=model, parts=parts, **more)
        state = _pickled(separated(model)) if model is not None and segment.keep and fidelity.goes_on else None
    if sharing is not None:
        scored["fit_time"] += sharing.fitting
        scored["score_time"] += sharing.scoring
    return Run(scored, state)


def _pickled(model: Any) -> bytes | None:
    import cloudpickle

    found: bytes = cloudpickle.dumps(model)
    return found if len(found) <= MOST_STATE_BYTES else None
