"""Steps on the history of an entity: lags, differences, rolling statistics, exponential means, last values.

The history of a row is the rows with equal ``match`` columns that were recorded (``at``) in
``(known_at - within, known_at]``, in the order of time and then of the table, up to the row itself. The
row itself is its newest event where it is recorded by ``known_at`` and is not the target or computed
from it. ``within`` bounds what a unit of work must read: older events do not count. Steps whose history is an
associative scan need no bound: what is known of an entity is carried from chunk to chunk.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .base import Duration
from .step_base import EventStep, Step

Positive = Annotated[int, Field(ge=1, le=10_000)]


class HistoryStep(EventStep):
    """Base of the steps of this module."""

    within: Duration

    def spans(self) -> tuple[str, ...]:
        return (self.within,)


class CarriedStep(HistoryStep):
    """Base of steps on a history that may be as long as the table: a small state of it is carried along."""

    within: Duration | None = None  # type: ignore[assignment]

    def spans(self) -> tuple[str, ...]:
        return () if self.within is None else (self.within,)


class Lag(HistoryStep):
    """The value of the n-th event before the row itself, 1 being the last: ``<of>_lag_<n>``."""

    step: ClassVar[str] = "lag"
    lags: Annotated[list[Positive], Field(min_length=1)]

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{self.of}_lag_{number}" for number in self.lags)


class Diff(HistoryStep):
    """The newest event's value less that of the n-th event before it: ``<of>_diff_<n>``."""

    step: ClassVar[str] = "diff"
    lags: Annotated[list[Positive], Field(min_length=1)]

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{self.of}_diff_{number}" for number in self.lags)


class Rolling(HistoryStep):
    """Statistics of the newest ``events`` events, missing ones left out: ``<of>_<stat>_last_<events>``.

    Without a value all but ``count`` are NaN; ``std`` (divisor n - 1) needs two.
    """

    step: ClassVar[str] = "rolling"
    events: Positive
    stats: Annotated[list[Literal["mean", "sum", "count", "min", "max", "std"]], Field(min_length=1)]

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{self.of}_{stat}_last_{self.events}" for stat in self.stats)


class ExponentialMean(CarriedStep):
    """Mean weighted by ``0.5 ** (age / half_life)``, age by ``at``: ``<of>_ewm_<half_life>``."""

    step: ClassVar[str] = "exponential_mean"
    half_life: Duration

    def outputs(self) -> tuple[str, ...]:
        return (f"{self.of}_ewm_{self.half_life.replace(' ', '')}",)


class Since(CarriedStep):
    """Seconds from the last event whose ``of`` is neither 0 nor missing to ``known_at``: ``<of>_since``."""

    step: ClassVar[str] = "since"

    def outputs(self) -> tuple[str, ...]:
        return (f"{self.of}_since",)


class ForwardFill(CarriedStep):
    """The newest value that is not missing: ``<of>_filled``."""

    step: ClassVar[str] = "forward_fill"

    def outputs(self) -> tuple[str, ...]:
        return (f"{self.of}_filled",)


HISTORY_STEPS: tuple[type[Step], ...] = (Lag, Diff, Rolling, ExponentialMean, Since, ForwardFill)
