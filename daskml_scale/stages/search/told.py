"""A search of Python told as events, its fits as units, its trials with scores, for the page and for notebooks.

Nothing is told of a search that ends at once: see `daskml_scale.stages.publishing`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from daskml_scale import events
from daskml_scale.stages import notebook, publishing
from daskml_scale.stages.publishing import Late, Publisher


class Told:
    """What one search has told so far.

    Parameters
    ----------
    name : str
        Of the search, as the page's stage.
    sink : Late
    """

    def __init__(self, name: str, sink: Late) -> None:
        self.name, self.sink = name, sink
        self.began, self.units, self.reused = time.monotonic(), 0, 0
        self.round = -1
        self.scores: list[events.Score] = []
        self.sink(events.StageStarted(time=time.time(), stage=name, stage_kind="search"))

    def planned(self, units: int, reused: int) -> None:
        """A round of so many fits begins; as many again were made before."""
        self.round += 1
        self.units += units
        self.reused += reused
        self.sink(events.StagePlanned(time=time.time(), stage=self.name, units=units, reused=reused))

    def score(self, trial: int, rung: int, score: float, params: str) -> None:
        """A trial has the score of a rung; told with what is committed next."""
        value = float(score) if math.isfinite(score) else None
        self.scores.append(events.Score(trial, rung + max(0, self.round), 0, 1, value, params))

    def committed(self, units: int) -> None:
        """So many fits are done."""
        scores, self.scores = tuple(self.scores), []
        self.units += units if self.round < 0 else 0  # nobody knew how many there would be
        self.sink(events.UnitsCommitted(time=time.time(), stage=self.name, units=units, scores=scores))

    def end(self, state: str, message: str = "") -> None:
        """The search is over, its best model trained."""
        if self.scores:
            self.committed(0)
        took = time.monotonic() - self.began
        self.sink(
            events.StageFinished(
                time=time.time(), stage=self.name, state=state, seconds=took, units=self.units + self.reused,
                reused=self.reused, message=message,
            )
        )  # fmt: skip
        self.sink.close()


class _Both:
    """A publisher, where there is one, and a notebook, where there is one."""

    def __init__(self, shown: events.Sink, published: Publisher | None) -> None:
        self.shown, self.published = shown, published

    def __call__(self, event: events.Event) -> None:
        self.shown(event)
        if self.published is not None:
            self.published(event)

    def close(self) -> None:
        if self.published is not None:
            self.published.close()


@contextmanager
def told(name: str, client: Any | None, *, here: bool = True) -> Iterator[Told | None]:
    """Tell of a search while the block runs, where there is a cluster with a page, or a notebook.

    Parameters
    ----------
    here : bool
        Whether a notebook shall show it.
    """
    shown = notebook.sink(events.ignore) if here else events.ignore
    make = publishing.publisher if client is not None else None
    if make is None and shown is events.ignore:
        yield None
        return
    found = Told(name, Late(lambda: _Both(shown, None if make is None else make(client))))
    try:
        yield found
    except BaseException as error:
        state = "failed" if isinstance(error, Exception) else "interrupted"
        found.end(state, f"{type(error).__name__}: {error}")
        raise
    found.end("ok")
