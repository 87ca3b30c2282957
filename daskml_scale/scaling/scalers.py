"""Who decides in a simulated cluster: our policy, as on a live one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .controller import Controller, Money
from .demand import Shape
from .policy import Limits
from .usage import Orders, Seen


class BacklogScaler:
    """The policy of this package.

    Parameters
    ----------
    shapes, limits, startups, money
        As of `Controller`.
    interval : float
        Seconds between two looks.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        limits: Mapping[str, Limits],
        startups: Mapping[str, float],
        money: Money | None = None,
        interval: float = 1.0,
    ) -> None:
        self.interval = interval
        self.controller = Controller(shapes, limits, startups, money)

    def step(self, seen: Seen, now: float) -> Orders:
        """Return what the policy decides."""
        decisions = self.controller.step(seen.demands, seen.workers, now)
        return Orders(
            {decision.worker_class: decision.launch for decision in decisions},
            [name for decision in decisions for name in (*decision.retire, *decision.stop)],
            [name for decision in decisions for name in decision.cancel],
        )


class FixedScaler:
    """A number of workers from the beginning to the end."""

    interval = 10.0

    def __init__(self, shape: Shape, workers: int) -> None:
        self.shape, self.workers = shape, workers

    def step(self, seen: Seen, now: float) -> Orders:
        """Ask for what is missing."""
        return Orders({self.shape.name: self.workers - len(seen.workers[self.shape.name])})
