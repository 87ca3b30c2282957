"""How many workers a class should have: a pure function of backlog, limits, remembered state and time.

Up at once, down slowly. Enough workers to finish the measured backlog within the horizon, never more than tasks that
can run; what the present ones will have done by the time new ones arrive is subtracted, and workers that still start
are counted. Where durations are unknown the number doubles step by step, as Spark's does. A worker goes only after the
need of a whole window stayed lower, idle ones first, those with the fewest unique bytes first, at most a quarter at a
time (`shrink`); starts that never arrive are given up and tried again after a pause (`startup`).

The module reads no clock and does no I/O; ``controller`` asks it per class, ``deploy.adaptive`` carries decisions out.
"""

from __future__ import annotations

import math
from dataclasses import replace

from .needs import horizon_of, wanted
from .records import ClassSnapshot, Decision, Limits, State
from .shrink import shrunk, stopped

__all__ = ["ClassSnapshot", "Decision", "Limits", "State", "decide", "horizon_of"]

RATE_SECONDS = 60.0
"""Time that `Limits.per_minute` speaks of."""
COLD_SECONDS = 5.0
"""What a task of unknown duration is taken for while the first workers start."""


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
    wants = wanted(snapshot, limits, state)
    allowed, cap, why = _allowed(snapshot, limits)
    have = len(snapshot.workers)
    absent = [worker for worker in snapshot.workers if not worker.ready]
    target = min(max(wants.need, limits.minimum), allowed)
    since = now if state.since is None else state.since
    state = replace(state, since=since, needs=_remembered(state.needs, now - limits.window, (now, target)))
    decision = Decision(
        snapshot.shape.name,
        have,
        have,
        starting=len(absent),
        backlog_seconds=sum(demand.units * (demand.seconds or 0.0) for demand in snapshot.demands),
        reasons=wants.reasons,
        rule="minimum" if limits.minimum > wants.need else wants.rule,
    )
    if max(wants.need, limits.minimum) > allowed:
        decision = replace(decision, reasons=(*decision.reasons, why), caps=(cap,), rule=cap)
    if limits.left is not None and limits.left <= 0 and snapshot.shape.price > 0:
        return stopped(decision, snapshot.workers, 0, "budget", "the total budget is spent"), state
    if have > limits.maximum:
        why = f"the maximum of this class is {limits.maximum}"
        return stopped(decision, snapshot.workers, limits.maximum, "maximum", why), state
    late = tuple(w.name for w in absent if w.asked is not None and now - w.asked > snapshot.startup.patience)
    if late:
        reason = f"{len(late)} did not arrive within {snapshot.startup.patience:.3g} s and are given up"
        reasons = (*decision.reasons, reason)
        return replace(decision, need=have - len(late), cancel=late, overdue=True, rule="late", reasons=reasons), state
    fresh = min(max(wants.fresh, limits.minimum), allowed)
    if fresh > have:
        return _grown(decision, fresh - have, snapshot, limits, state, now)
    keep, hold = min(state.needs[0][1], allowed), min(max(state.needs[0][1], wants.later), allowed)
    if keep < have and now - since >= limits.window:
        decision = shrunk(decision, snapshot, keep, hold, limits, now)
    return decision, state


def _grown(
    decision: Decision, count: int, snapshot: ClassSnapshot, limits: Limits, state: State, now: float
) -> tuple[Decision, State]:
    """Ask for workers, as far as back-off, rate and what is left of the money allow."""
    startup, price = snapshot.startup, snapshot.shape.price
    if price > 0 and limits.left is not None:
        hours = (startup.mean + horizon_of(limits, startup.mean)) / 3600
        most = max(0, math.floor(limits.left / (price * hours) + 1e-9) - decision.have)
        if most < count:
            why = f"{limits.left:.2f} is left in all, which pays {decision.have + most} workers for one horizon"
            decision = replace(decision, reasons=(*decision.reasons, why), caps=("budget",), rule="budget")
            count = most
    if now < startup.until:
        why = f"{startup.misses} tries in a row brought no worker: the next one is in {startup.until - now:.3g} s"
        return replace(decision, reasons=(*decision.reasons, why), caps=("back-off",), rule="back-off"), state
    if limits.per_minute is not None:
        recent = tuple(entry for entry in state.launched if entry[0] > now - RATE_SECONDS)
        room = max(0, limits.per_minute - sum(number for _, number in recent))
        if room < count:
            why = f"at most {limits.per_minute} workers of this class are asked for in a minute"
            decision = replace(decision, reasons=(*decision.reasons, why), caps=(*decision.caps, "rate"), rule="rate")
            count = room
        state = replace(state, launched=(*recent, (now, count)) if count else recent)
    return replace(decision, need=decision.have + count, launch=count), state


def _ramped(snapshot: ClassSnapshot, limits: Limits, state: State, now: float) -> State:
    """Advance the doubling: at most twice the workers that are ready, once per ramp time.

    While nobody is there yet those that start are doubled, as far as tasks of `COLD_SECONDS` would ask for.
    """
    unknown = [demand for demand in snapshot.demands if demand.seconds is None]
    if not unknown:
        return replace(state, ramp=0, ramped=now) if state.ramp else state
    ready = sum(worker.ready for worker in snapshot.workers)
    if state.ramp == 0:
        return replace(state, ramp=max(1, ready), ramped=now)
    pause = min(limits.ramp, max(1.0, snapshot.startup.mean)) if limits.cheap else limits.ramp
    if now - state.ramped < pause:
        return state
    base = ready
    if not ready:
        slots = sum(demand.runnable / snapshot.shape.slots(demand.resources) for demand in unknown)
        likely = math.ceil(slots * COLD_SECONDS / horizon_of(limits, snapshot.startup.mean))
        base = min(len(snapshot.workers), likely // 2)
    return replace(state, ramp=max(state.ramp, 2 * base), ramped=now)


def _allowed(snapshot: ClassSnapshot, limits: Limits) -> tuple[int, str, str]:
    """Return the most workers, the name of the limit that sets it, and a sentence about it."""
    price = snapshot.shape.price
    choices = [(limits.maximum, "maximum", f"at most {limits.maximum} workers of this class")]
    if price > 0 and limits.spend is not None:
        most = max(0, math.floor(limits.spend / price + 1e-9))
        money = f"{max(0.0, limits.spend):.2f} per hour is left for this class at {price:.2f} each"
        choices.append((most, "budget", f"{money}: at most {most}"))
    return min(choices, key=lambda choice: choice[0])


def _remembered(
    needs: tuple[tuple[float, int], ...], oldest: float, entry: tuple[float, int]
) -> tuple[tuple[float, int], ...]:
    """Add a need and drop what is too old or not larger than it."""
    return (*(old for old in needs if old[0] >= oldest and old[1] > entry[1]), entry)
