"""Which workers go: those that never arrived first, then idle ones, least unique bytes and longest idle first. Pure.

Never a busy one, never the last place for somebody's data, never so many that what is in memory fills more than half of
what remains (the share that distributed's own ``workers_to_close`` keeps). A cap that busy workers may pass is none, so
there are two exceptions: when the total budget is spent, and when a person lowers the maximum below what is there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from .demand import WorkerView
from .records import ClassSnapshot, Decision, Limits

HEADROOM = 2.0
"""Memory that must remain, in units of what is held."""


def shrunk(decision: Decision, snapshot: ClassSnapshot, keep: int, hold: int, limits: Limits, now: float) -> Decision:
    """Give up workers down to ``hold``, and to ``keep`` those that idle for longer than a start takes.

    Parameters
    ----------
    keep : int
        Largest need of the window.
    hold : int
        The same with work that is known to come, ``>= keep``.
    """
    most = max(1, math.floor(limits.shrink * decision.have))
    absent = [worker.name for worker in snapshot.workers if not worker.ready]
    cancel = tuple(absent[-min(most, max(0, decision.have - hold)) :]) if decision.have > hold else ()
    left = decision.have - len(cancel)
    patience = max(limits.keep_idle, limits.hold_startups * snapshot.startup.mean) if hold > keep else limits.keep_idle
    going: list[WorkerView] = []
    for worker in _idle(snapshot.workers, limits.keep_idle, now):
        idle = now - worker.idle_since if worker.idle_since is not None else 0.0
        floor = keep if idle >= patience else hold
        if len(going) + len(cancel) < most and left - len(going) > floor:
            going.append(worker)
    going = _safe(going, snapshot)
    if not (cancel or going):
        return decision
    reason = f"no more than {keep} were needed for {limits.window:.3g} s and {limits.keep_idle:.3g} s idle are over"
    return replace(
        decision,
        need=left - len(going),
        retire=tuple(worker.name for worker in going),
        cancel=cancel,
        reasons=(*decision.reasons, reason),
        rule="idle",
    )


def _idle(workers: Sequence[WorkerView], keep_idle: float, now: float) -> list[WorkerView]:
    """Return the ready workers that idle for long enough, best to lose first."""
    idle = [w for w in workers if w.ready and w.idle_since is not None and now - w.idle_since >= keep_idle]
    idle.sort(key=lambda worker: (worker.unique_bytes, worker.idle_since, worker.name))
    return idle


def _safe(going: list[WorkerView], snapshot: ClassSnapshot) -> list[WorkerView]:
    """Keep back those whose data would have no place, or would fill the others; those with the most bytes first."""
    names = {worker.name for worker in going}
    staying = [worker for worker in snapshot.workers if worker.ready and worker.name not in names]
    held = sum(worker.nbytes for worker in snapshot.workers)
    memory = sum(worker.memory for worker in staying)
    limited = all(worker.memory for worker in snapshot.workers if worker.ready)
    while going and going[-1].unique_bytes:
        nowhere = not staying and not snapshot.refuge
        full = limited and not snapshot.refuge and memory < HEADROOM * held
        if not (nowhere or full):
            break
        kept = going.pop()
        staying.append(kept)
        memory += kept.memory
    return going


def stopped(decision: Decision, workers: Sequence[WorkerView], keep: int, cap: str, reason: str) -> Decision:
    """End workers down to ``keep``, busy ones too: those that start first, then idle ones, then the emptiest."""
    going = sorted(workers, key=lambda w: (w.ready, w.idle_since is None, w.unique_bytes, w.name))[
        : len(workers) - keep
    ]
    return replace(
        decision,
        need=keep,
        stop=tuple(worker.name for worker in going if worker.ready),
        cancel=tuple(worker.name for worker in going if not worker.ready),
        reasons=(*decision.reasons, reason),
        caps=(cap,),
        rule=cap,
    )
