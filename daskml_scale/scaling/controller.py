"""One brain for all classes of a cluster: learns start-ups, adds up money, asks the policy. No clock, no I/O.

The live cluster (``deploy.adaptive``) and the simulated one (`fleet`) are driven by this same class, so what a
simulation says is what the cluster would do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .demand import Demand, Shape, WorkerView, assign
from .policy import ClassSnapshot, Decision, Limits, State, decide
from .startup import Startup


@dataclass(frozen=True, slots=True)
class Money:
    """Caps on what all classes cost together; ``None`` is unlimited."""

    per_hour: float | None = None
    total: float | None = None


class Controller:
    """Decides for every class of a cluster, step by step.

    Parameters
    ----------
    shapes : sequence of Shape
        The classes.
    limits : mapping
        Class -> `Limits`; read at every step, so it may change.
    startups : mapping
        Class -> first guess of the seconds from asking for a worker to its registration.
    money : Money

    Attributes
    ----------
    startups : dict
        Class -> `Startup`, learnt.
    spent : float
        What the workers have cost since the first step.
    decisions : dict
        Class -> last `Decision`.
    infeasible : tuple of str
        Demands that no class can serve, as sentences.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        limits: Mapping[str, Limits],
        startups: Mapping[str, float],
        money: Money | None = None,
    ) -> None:
        self.shapes = {shape.name: shape for shape in shapes}
        self.limits, self.money = limits, money or Money()
        self.startups = {name: Startup.guess(startups[name]) for name in self.shapes}
        self.spent = 0.0
        self.decisions: dict[str, Decision] = {}
        self.infeasible: tuple[str, ...] = ()
        self._states: dict[str, State] = {}
        self._asked: dict[str, float] = {}
        self._arrived: dict[str, float] = {}
        self._came: dict[str, list[tuple[float, float]]] = {}
        self._last: float | None = None

    def know(self, shapes: Iterable[Shape]) -> None:
        """Take what workers offer as they show it, and classes that came later."""
        for shape in shapes:
            self.shapes[shape.name] = shape
            self.startups.setdefault(shape.name, next(iter(self.startups.values()), Startup()))

    def step(
        self, demands: Iterable[Demand], workers: Mapping[str, Sequence[WorkerView]], now: float
    ) -> list[Decision]:
        """Decide for every class; who carries it out calls again with what came of it."""
        elapsed = 0.0 if self._last is None else max(0.0, now - self._last)
        now = now if self._last is None else max(now, self._last)
        seen = {name: self._timed(name, workers.get(name, ()), now) for name in self.shapes}
        self._asked = {view.name: _since(view, now) for views in seen.values() for view in views if not view.ready}
        given, self.infeasible = assign(demands, list(self.shapes.values()))
        cost = sum(shape.price * len(seen[name]) for name, shape in self.shapes.items())
        self.spent += cost * elapsed / 3600
        self._last = now
        ready = {name: any(view.ready for view in views) for name, views in seen.items()}
        for name, shape in self.shapes.items():
            limits = replace(
                self.limits[name],
                spend=None
                if self.money.per_hour is None
                else self.money.per_hour - cost + shape.price * len(seen[name]),
                # What the next step would only notice when it is spent.
                left=None if self.money.total is None else self.money.total - self.spent - cost * elapsed / 3600,
            )
            snapshot = ClassSnapshot(
                shape,
                seen[name],
                given[name],
                self.startups[name],
                refuge=any(there for other, there in ready.items() if other != name),
            )
            decision, self._states[name] = decide(snapshot, limits, self._states.get(name, State()), now)
            if decision.overdue and now - self._arrived.get(name, -math.inf) > self.startups[name].patience:
                # Nobody came in all that time: not one lost worker, but a cloud that has none.
                self.startups[name] = self.startups[name].missed(now)
            cost += shape.price * decision.launch
            self.decisions[name] = decision
        return list(self.decisions.values())

    def _timed(self, name: str, views: Sequence[WorkerView], now: float) -> Sequence[WorkerView]:
        """Learn from arrivals; give those that start the time since when they do."""
        came = self._came.setdefault(name, [])
        for view in views:
            if view.ready and view.name in self._asked:
                asked = self._asked[view.name]
                self.startups[name] = self.startups[name].arrived(now - asked)
                self._arrived[name] = now
                came.append((asked, now - asked))
        oldest = min((_since(view, now) for view in views if not view.ready), default=math.inf)
        if whole := [seconds for asked, seconds in came if asked < oldest]:
            self.startups[name] = self.startups[name].learnt(whole)
            self._came[name] = [entry for entry in came if entry[0] >= oldest]
        if all(view.ready or view.asked is not None for view in views):
            return views
        return [
            view if view.ready or view.asked is not None else replace(view, asked=self._asked.get(view.name, now))
            for view in views
        ]


def _since(view: WorkerView, now: float) -> float:
    return now if view.asked is None else view.asked
