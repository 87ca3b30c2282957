"""What a scaling decision is made of: limits, one class as it is, what is remembered, what is to be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .demand import Demand, Shape, WorkerView
from .startup import Startup


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decision may do. Times in seconds, money in any one currency.

    Attributes
    ----------
    minimum, maximum : int
        Workers of the class; the maximum and the money win over the minimum.
    horizon : float
        Aim to finish the backlog within this time.
    startup_weight : float
        A horizon below this share of the start-up time makes no sense and is raised to it.
    cheap : bool
        The workers cost nothing and live on this machine: a person who starts a cluster on a laptop
        expects its cores to be used, so the horizon shrinks to a few start-up times (see `horizon_of`).
    cheap_floor, cheap_startups : float
        Of that rule: ``max(cheap_floor, cheap_startups * start-up)``.
    window : float
        A scale-down looks at the largest need of this time.
    keep_idle : float
        Time without work before a worker may go.
    hold_startups : float
        While work is known to come, an idle worker is kept for so many start-up times: starting another one
        costs as much (the rent-or-buy rule; at most twice the cost of knowing the future).
    ramp : float
        Time between two doublings while durations are unknown.
    shrink : float
        Largest share of the workers that one decision retires (at least one worker).
    per_minute : int or None
        Most workers asked for in any 60 s.
    spend : float or None
        Money per hour that the class may cost; ``None`` is unlimited.
    left : float or None
        Money that is left in all; at 0 the workers are stopped, busy ones too.
    """

    minimum: int = 0
    maximum: int = 1
    horizon: float = 30.0
    startup_weight: float = 0.75
    cheap: bool = False
    cheap_floor: float = 5.0
    cheap_startups: float = 3.0
    window: float = 30.0
    keep_idle: float = 20.0
    hold_startups: float = 1.0
    ramp: float = 5.0
    shrink: float = 0.25
    per_minute: int | None = None
    spend: float | None = None
    left: float | None = None


@dataclass(frozen=True, slots=True)
class ClassSnapshot:
    """One class at one moment: its workers (starting ones too) and the demands assigned to it.

    Attributes
    ----------
    startup : Startup
        As learnt so far.
    refuge : bool
        Whether workers of other classes are ready, which could take data.
    """

    shape: Shape
    workers: Sequence[WorkerView] = ()
    demands: Sequence[Demand] = ()
    startup: Startup = field(default_factory=Startup)
    refuge: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """What the policy remembers of a class. Bounded by the window.

    Attributes
    ----------
    since : float or None
        First decision; nothing goes before a whole window was seen.
    needs : tuple of (time, workers)
        Needs of the window that no later one exceeds (falling, so the first is the maximum).
    ramp, ramped : int, float
        Workers granted to work of unknown duration, and when that last changed.
    launched : tuple of (time, workers)
        Asked for in the last minute, where that is limited.
    """

    since: float | None = None
    needs: tuple[tuple[float, int], ...] = ()
    ramp: int = 0
    ramped: float = 0.0
    launched: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with one class now.

    Attributes
    ----------
    have : int
        Workers that run or start.
    need : int
        Workers after this decision.
    launch : int
        Workers to ask for.
    retire : tuple of str
        Idle workers to retire.
    cancel : tuple of str
        Workers to give up that never arrived.
    stop : tuple of str
        Workers to end, busy ones too: the money is spent, or there are more than the maximum.
    overdue : bool
        Whether those in ``cancel`` took too long.
    starting : int
        Of those that it has, not there yet.
    backlog_seconds : float
        Known work, in worker-thread seconds.
    reasons : tuple of str
        Why, in sentences; never empty.
    caps : tuple of str
        Which limits held it back: ``maximum``, ``budget``, ``rate``, ``back-off``.
    rule : str
        The rule that set the number: a cap, or ``work``, ``parallelism``, ``ramp``, ``minimum``, ``memory``, ``idle``,
        ``late``, ``present``.
    """

    worker_class: str
    have: int
    need: int
    launch: int = 0
    retire: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    overdue: bool = False
    starting: int = 0
    backlog_seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    caps: tuple[str, ...] = ()
    rule: str = "present"

    @property
    def changes(self) -> bool:
        """Whether anything has to be done."""
        return bool(self.launch or self.retire or self.cancel or self.stop)
