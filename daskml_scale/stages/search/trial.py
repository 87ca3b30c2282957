"""What a trial of an adaptive search is, and who suggests it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ._compat import Scored


class Sampler(Protocol):
    """Who suggests the parameters of trials.

    Attributes
    ----------
    raw : mapping of trial to anything picklable
        What the sampler wants to know again after a crash, beside the parameters.
    learns : bool
        Whether what it suggests depends on the scores so far: then few trials are asked for ahead.
    """

    raw: dict[int, Any]
    learns: bool

    def ask(self, trial: int) -> dict[str, Any] | None:
        """Return the parameters of a new trial; None when there are no more."""
        ...

    def report(self, trial: int, resource: int, scores: Any) -> None:
        """Learn the mean scores of a trial after so much of its resource."""
        ...

    def end(self, trial: int, resource: int, scores: Any, stopped: bool) -> None:
        """Learn that a trial gets no more; called once or more."""
        ...

    def state(self) -> bytes | None:
        """Return what the sampler must not forget, if anything, pickled."""
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


def mean_scores(parts: Sequence[Scored]) -> Any:
    """Return the mean score over splits; a dict for several metrics."""
    scores = [part["test_scores"] for part in parts]
    if isinstance(scores[0], dict):
        return {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}
    return float(np.mean(scores))
