"""How many workers a backlog asks for, before any limit. Pure.

Of each demand ``min(runnable, units * seconds / horizon) / slots``, summed. Launched is only what remains to be done
when a new worker could be there; held is what would be needed, were everything that is known to come runnable now.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .records import ClassSnapshot, Limits, State

FEW_WAVES = 4
"""Up to so many tasks one after the other on a slot their number is rounded: 1.5 waves take as long as 2."""
MEMORY_SHARE = 0.6
"""Of the memory, filled by results; more workers are wanted above it, as Dask's own rule has it."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What the backlog asks for, before any limit.

    Attributes
    ----------
    need : int
        Workers that would finish it within the horizon.
    fresh : int
        The same, after what the present ones do until new ones could arrive: only this launches.
    later : int
        The same, were all that is known to come runnable now: only this holds idle ones.
    rule : str
        Which bound set ``need``.
    """

    need: int
    fresh: int
    later: int
    rule: str
    reasons: tuple[str, ...]


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


def wanted(snapshot: ClassSnapshot, limits: Limits, state: State) -> Wants:
    """Return what the backlog asks for."""
    if not snapshot.demands:
        memory = _by_memory(snapshot)
        return Wants(memory, 0, 0, "memory" if memory else "present", ("no work is waiting",))
    startup = snapshot.startup.mean
    horizon = horizon_of(limits, startup)
    runnable, total, work, unknown, now, later = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for demand in snapshot.demands:
        slots = snapshot.shape.slots(demand.resources)
        runnable += demand.runnable / slots
        total += demand.units / slots
        if demand.seconds is None:
            unknown += demand.runnable / slots
        else:
            work += demand.units * demand.seconds / slots
            wanted_here = demand.units / slots / _waves(demand.seconds, horizon)
            now += min(demand.runnable / slots, wanted_here)
            later += wanted_here
    ready = sum(worker.ready for worker in snapshot.workers)
    by_ramp = min(state.ramp, _ceil(unknown)) if unknown else 0
    by_memory = _by_memory(snapshot)
    least = max(by_ramp, by_memory, 1 if runnable else 0)
    parallel = _ceil(runnable)
    need = min(parallel, max(_ceil(now), least))
    left = max(0.0, 1.0 - ready * startup / work) if work else 0.0
    fresh = min(parallel, max(_ceil(now * left), least))
    rule = "work"
    if parallel <= max(_ceil(now), least):
        rule = "parallelism"
    elif least > now:
        rule = "ramp" if by_ramp >= by_memory else "memory"
    reasons = _reasons(snapshot, work, horizon, unknown, state.ramp, parallel, rule)
    return Wants(need, fresh, min(_ceil(total), max(_ceil(later), by_ramp)), rule, reasons)


def _reasons(
    snapshot: ClassSnapshot, work: float, horizon: float, unknown: float, ramp: int, parallel: int, rule: str
) -> tuple[str, ...]:
    names, reasons = _listing(demand.name for demand in snapshot.demands), []
    if work:
        reasons.append(f"{names}: {work:.3g} s of work per worker slot, to be done in {horizon:.3g} s")
    if unknown:
        reasons.append(f"{names}: some durations are unknown, {ramp} at first and twice as many step by step")
    if rule == "parallelism":
        reasons.append(f"{parallel} can work at the same time")
    if rule == "memory":
        reasons.append("their results fill more than 60 % of the memory")
    return tuple(reasons) or (f"{names}: next to no work is left",)


def _waves(seconds: float, horizon: float) -> float:
    """Return how many tasks of this length a slot does within the horizon.

    Few ones are rounded up to whole tasks: one and a half take as long as two.
    """
    waves = horizon / max(seconds, 1e-9)
    return float(max(1, _ceil(waves))) if waves <= FEW_WAVES else waves


def _by_memory(snapshot: ClassSnapshot) -> int:
    """Workers of which the results held now would fill 60 %, at most twice those there are."""
    held = sum(worker.nbytes for worker in snapshot.workers)
    memory = max((worker.memory for worker in snapshot.workers), default=0)
    return min(2 * len(snapshot.workers), _ceil(held / (MEMORY_SHARE * memory))) if held and memory else 0


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)


def _listing(names: Iterable[str]) -> str:
    found = sorted(set(names))
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
