"""How many workers a class should have: a pure function of backlog, limits, remembered state and time.

Up at once, down slowly. Enough workers to finish the measured backlog within the horizon, never more
than tasks that can run; workers that still start are counted. Where durations are unknown the number
doubles step by step, as Spark's does. A worker goes only after the need of a whole window stayed
lower, idle ones first, those with the fewest unique bytes first, at most a quarter at a time.

The module reads no clock and does no I/O; ``deploy.adaptive`` carries decisions out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .demand import Demand, Shape, WorkerView


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decision may do. Times in seconds, money per hour.

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
    ramp : float
        Time between two doublings while durations are unknown.
    shrink : float
        Largest share of the workers that one decision retires (at least one worker).
    spend : float or None
        Money per hour that the class may cost; ``None`` is unlimited.
    """

    minimum: int = 0
    maximum: int = 1
    horizon: float = 30.0
    startup_weight: float = 0.5
    cheap: bool = False
    cheap_floor: float = 5.0
    cheap_startups: float = 3.0
    window: float = 30.0
    keep_idle: float = 20.0
    ramp: float = 5.0
    shrink: float = 0.25
    spend: float | None = None


@dataclass(frozen=True, slots=True)
class ClassSnapshot:
    """One class at one moment: its workers (starting ones too) and the demands assigned to it.

    Attributes
    ----------
    startup : float
        Seconds from asking for a worker to its registration, as learnt so far.
    """

    shape: Shape
    workers: Sequence[WorkerView] = ()
    demands: Sequence[Demand] = ()
    startup: float = 2.0


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
    """

    since: float | None = None
    needs: tuple[tuple[float, int], ...] = ()
    ramp: int = 0
    ramped: float = 0.0


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
    backlog_seconds : float
        Known work, in worker-thread seconds.
    reasons : tuple of str
        Why, in sentences; never empty.
    caps : tuple of str
        Which limits held it back: ``maximum``, ``budget``.
    """

    worker_class: str
    have: int
    need: int
    launch: int = 0
    retire: tuple[str, ...] = ()
    cancel: tuple[str, ...] = ()
    backlog_seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    caps: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether anything has to be done."""
        return bool(self.launch or self.retire or self.cancel)


def horizon_of(limits: Limits, startup: float) -> float:
    """Return the time in which the backlog should be finished, seconds.

    ``max(horizon, startup_weight * startup)``; where workers are cheap the horizon itself is at most
    ``max(cheap_floor, cheap_startups * startup)``: with a start-up of 1.5 s a backlog of more than 5 s
    already uses a second core, and one that is over before a new process could help does not.
    """
    horizon = limits.horizon
    if limits.cheap:
        horizon = min(horizon, max(limits.cheap_floor, limits.cheap_startups * startup))
    return max(horizon, limits.startup_weight * startup)


def decide(snapshot: ClassSnapshot, limits: Limits, state: State, now: float) -> tuple[Decision, State]:
    """Decide how many workers one class should have.

    Parameters
    ----------
    now : float
        Seconds, the clock of `WorkerView.idle_since`; never decreasing from call to call.

    Returns
    -------
    Decision, State
        The state goes into the next call.
    """
    state = _ramped(snapshot, limits, state, now)
    need, reasons = _need(snapshot, limits, state)
    allowed, caps, cap_reasons = _allowed(snapshot.shape, limits)
    wanted = min(max(need, limits.minimum), allowed)
    needs = _remembered(state.needs, now - limits.window, (now, wanted))
    since = now if state.since is None else state.since
    state = replace(state, since=since, needs=needs)
    have = len(snapshot.workers)
    held = max(need, limits.minimum) > allowed
    decision = Decision(
        snapshot.shape.name,
        have,
        max(have, wanted),
        launch=max(0, wanted - have),
        backlog_seconds=sum(demand.units * (demand.seconds or 0.0) for demand in snapshot.demands),
        reasons=(*reasons, *(cap_reasons if held else ())),
        caps=caps if held else (),
    )
    keep = min(needs[0][1], allowed)
    if keep < have and now - since >= limits.window:
        decision = _shrunk(decision, snapshot.workers, keep, limits, now)
    return decision, state


def _unknown(snapshot: ClassSnapshot) -> float:
    """Workers that work of unknown duration could use."""
    return sum(d.runnable / snapshot.shape.slots(d.resources) for d in snapshot.demands if d.seconds is None)


def _ramped(snapshot: ClassSnapshot, limits: Limits, state: State, now: float) -> State:
    """Advance the doubling: at most twice the workers that are ready, once per ramp time."""
    if _unknown(snapshot) <= 0:
        return replace(state, ramp=0, ramped=now)
    ready = max(1, sum(worker.ready for worker in snapshot.workers))
    if state.ramp == 0:
        return replace(state, ramp=ready, ramped=now)
    pause = min(limits.ramp, max(1.0, snapshot.startup)) if limits.cheap else limits.ramp
    if now - state.ramped < pause:
        return state
    return replace(state, ramp=max(state.ramp, 2 * ready), ramped=now)


def _need(snapshot: ClassSnapshot, limits: Limits, state: State) -> tuple[int, list[str]]:
    """Workers that the backlog asks for, before any limit."""
    horizon = horizon_of(limits, snapshot.startup)
    parallel, work, reasons = 0.0, 0.0, []
    for demand in snapshot.demands:
        slots = snapshot.shape.slots(demand.resources)
        parallel += demand.runnable / slots
        if demand.seconds is not None:
            work += demand.units * demand.seconds / slots
    unknown = _unknown(snapshot)
    by_work = _ceil(work / horizon)
    by_ramp = min(state.ramp, _ceil(unknown)) if unknown else 0
    need = min(_ceil(parallel), max(by_work, by_ramp, 1 if parallel else 0))
    if not snapshot.demands:
        return 0, ["no work is waiting"]
    names = _listing(demand.name for demand in snapshot.demands)
    if work:
        reasons.append(f"{names}: {work:.3g} s of work per worker slot, to be done in {horizon:.3g} s")
    if unknown:
        reasons.append(f"{names}: some durations are unknown, {state.ramp} at first and twice as many step by step")
    if _ceil(parallel) <= max(by_work, by_ramp):
        reasons.append(f"{_ceil(parallel)} can work at the same time")
    return need, reasons or [f"{names}: next to no work is left"]


def _allowed(shape: Shape, limits: Limits) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """Return the most workers, the names of the limits that set it, and sentences about them."""
    if limits.spend is None or shape.price <= 0:
        return limits.maximum, ("maximum",), (f"at most {limits.maximum} workers of this class",)
    affordable = max(0, math.floor(limits.spend / shape.price + 1e-9))
    if affordable >= limits.maximum:
        return limits.maximum, ("maximum",), (f"at most {limits.maximum} workers of this class",)
    money = f"{max(0.0, limits.spend):.2f} per hour is left for this class at {shape.price:.2f} each"
    return affordable, ("budget",), (f"{money}: at most {affordable}",)


def _remembered(
    needs: tuple[tuple[float, int], ...], oldest: float, entry: tuple[float, int]
) -> tuple[tuple[float, int], ...]:
    """Add a need and drop what is too old or not larger than it."""
    return (*(old for old in needs if old[0] >= oldest and old[1] > entry[1]), entry)


def _shrunk(decision: Decision, workers: Sequence[WorkerView], keep: int, limits: Limits, now: float) -> Decision:
    """Give up workers: those that never arrived, then idle ones, least unique bytes and longest idle first."""
    count = min(decision.have - keep, max(1, math.floor(limits.shrink * decision.have)))
    absent = [worker.name for worker in workers if not worker.ready]
    idle = [
        worker
        for worker in workers
        if worker.ready and worker.idle_since is not None and now - worker.idle_since >= limits.keep_idle
    ]
    idle.sort(key=lambda worker: (worker.unique_bytes, worker.idle_since, worker.name))
    cancel = tuple(absent[:count])
    retire = tuple(worker.name for worker in idle[: count - len(cancel)])
    if not (cancel or retire):
        return decision
    reason = f"no more than {keep} were needed for {limits.window:.3g} s and {limits.keep_idle:.3g} s idle are over"
    left = decision.have - len(cancel) - len(retire)
    return replace(decision, need=left, retire=retire, cancel=cancel, reasons=(*decision.reasons, reason))


def learnt_startup(known: float, measured: float, weight: float = 0.3) -> float:
    """Return the start-up estimate after one more measurement (an exponential average), seconds."""
    return known + weight * (measured - known)


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)


def _listing(names: Iterable[str]) -> str:
    found = sorted(set(names))
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
