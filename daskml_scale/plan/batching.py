"""How many units go into the next Dask task, and how many tasks are in flight. Pure.

Dask costs 1 to 2 ms of one scheduler core per task, so W slots share about 1/o tasks a second. A task
therefore aims at ``max(0.2 s, o W / 0.35)``: a full cluster then keeps its scheduler busy for a third of the
time, which leaves room for heartbeats and for filling it (`scaling.simulate`). The overhead ``o`` is measured while a
stage runs. Where slots wait long between two tasks (far or busy machines), tasks last longer than 0.2 s as well; the
engine leaves that wait at its default, only the simulation measures it. The first tasks of a stage are probes of one
unit (a remembered duration skips them); then the size jumps, no further than the evidence carries.

Units may differ a thousandfold, so the estimate is a mean over the last tasks that knows how much weight
and how much spread stand behind it. Towards the end tasks shrink by the factoring rule (Hummel, Schonberg
and Flynn, 1992): a share of what is left that becomes smaller with the spread, and no smaller than what
dispatching costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import repeat

MIN_SECONDS, MAX_SECONDS = 0.2, 2.0
"""Duration that a task aims at where slots are few: the shortest (as joblib's), and the longest where they wait."""
WAIT_SHARE = 0.03
"""Of a task's duration that its slot waits for it, as far as `MAX_SECONDS` allows."""
MAX_UNITS = 16_384
MAX_BYTES = 1 << 20
TASKS_PER_SLOT = 2
"""Tasks in flight per slot: one runs, one waits on the worker, so that no slot idles for a round trip."""
SCHEDULER_SHARE = 0.35
"""Largest share of the scheduler's time that a cluster takes once it is filled, however coarse the units are."""
EVIDENCE = 64
"""A task holds at most this many times the weight that was measured so far: few probes do not tell the mean."""
MEMORY = 8
"""Tasks that the estimate remembers, and tasks' worth of seconds; a quarter of the slots where that is more."""
SURPRISE = 2.0
"""Factor between a task and the estimate, beyond four standard deviations, that is taken for a change."""
FORGET = 4.0
"""By what a change divides the weight of the past; where units are alike one task suffices and all is forgotten."""
EVEN = 0.25
"""Spread up to which units count as alike."""
MIN_OVERHEAD, MAX_OVERHEAD = 2e-4, 2e-2
"""Seconds per task that a measurement of the overhead is believed to be within."""
GAPS = 4
"""Times the gap below which tasks do not shrink at the end."""
MAX_GAP = 0.5
"""Seconds that a measurement of the gap is believed to be at most."""


@dataclass(frozen=True, slots=True)
class Batching:
    """State of the batch size of one dispatch.

    Attributes
    ----------
    seconds_per_weight : float or None
        Mean of the last tasks; ``None`` until something was measured or remembered.
    overhead : float
        Seconds of scheduler time per task on this cluster.
    gap : float
        Seconds that a slot waits between two tasks: messages to the scheduler and back, and its own start.
    aim : float
        Seconds that a task shall last at least, as long as there are many.
    evidence : float
        Weight behind the mean; 0 for a remembered one.
    total : float
        Weight of all that was measured.
    spread : float
        Variance of the seconds of a unit of weight 1, relative to the square of their mean.
    """

    seconds_per_weight: float | None = None
    overhead: float = 0.0017
    evidence: float = 0.0
    spread: float = 0.0
    total: float = 0.0
    gap: float = 0.003
    aim: float = MIN_SECONDS

    def measured(self, seconds: float, weight: float, *, squares: float | None = None, slots: int = 1) -> Batching:
        """Return the state after a task of ``weight`` took ``seconds`` of kernel time.

        Parameters
        ----------
        squares : float, optional
            Sum over its units of seconds squared by weight. Without it the task counts as units that are
            all alike.
        slots : int
            Tasks that the cluster runs at a time.
        """
        if weight <= 0:
            return self
        seconds = max(seconds, 1e-9)
        fresh = seconds / weight
        squares = seconds * fresh if squares is None else max(squares, seconds * fresh)
        kept = self._kept(fresh, weight, squares / (seconds * fresh) - 1, slots)
        mean = fresh if self.seconds_per_weight is None else self.seconds_per_weight
        evidence = kept + weight
        blended = (kept * mean + seconds) / evidence
        second_moment = (kept * mean * mean * (1 + self.spread) + squares) / evidence
        return replace(
            self,
            seconds_per_weight=blended,
            evidence=evidence,
            spread=max(0.0, second_moment / (blended * blended) - 1),
            total=self.total + weight,
        )

    def _kept(self, fresh: float, weight: float, spread: float, slots: int) -> float:
        """Return the weight of the past beside a task of ``fresh`` seconds per weight and its own spread."""
        mean = self.seconds_per_weight
        if mean is None:
            return 0.0
        memory = max(MEMORY, slots / 4)
        limit = memory * self.target_seconds(slots) / mean
        kept = min(self.evidence * (1 - 1 / memory), limit) if self.evidence else limit
        # What spread explains is no change: a task of few uneven units may take many times the mean. Far less
        # than the mean is common where the tail is heavy, so only even units are believed to have become quick.
        spread = max(spread, self.spread)
        noise = SURPRISE * (1 + 4 * math.sqrt(spread / weight))
        if spread < EVEN:
            return kept if mean / noise < fresh < mean * noise else 0.0
        return kept if fresh < mean * noise else kept / FORGET

    def overhead_measured(self, seconds_per_task: float) -> Batching:
        """Return the state after tasks cost the scheduler so much each; outliers count a little only."""
        if not seconds_per_task > 0:
            return self
        fresh = max(seconds_per_task, MIN_OVERHEAD)
        return replace(self, overhead=_blended(self.overhead, min(fresh, MAX_OVERHEAD)))

    def waited(self, seconds: float) -> Batching:
        """Return the state after a slot waited so long for a task, while tasks were there; outliers count little."""
        if not seconds >= 0:
            return self
        return replace(self, gap=_blended(self.gap, min(seconds, MAX_GAP)))

    @property
    def per_slot(self) -> int:
        """Tasks in flight per slot: one while they are probes, since a second one would tell nothing more."""
        return 1 if self.seconds_per_weight is None else TASKS_PER_SLOT

    def target_seconds(self, slots: int) -> float:
        """Return how long a task should last with ``slots`` slots."""
        return max(self.aim, min(self.gap / WAIT_SHARE, MAX_SECONDS), self.overhead * slots / SCHEDULER_SHARE)

    def bounds(self, left: float, slots: int, overtaken: float = 0.0) -> tuple[float, float]:
        """Return the least and the most weight of the next task.

        A task takes units up to the most; where that leaves it below the least (units are coarse), it takes
        one more: the scheduler could not keep up with smaller ones.

        Parameters
        ----------
        left : float
            Weight of all units not sent yet; infinite while nobody knows.
        overtaken : float
            Seconds that probes are out which others overtook, see `Probes`.
        """
        if self.seconds_per_weight is None or left <= 0:
            return 0.0, 0.0
        slots = max(1, slots)
        per_second = 1 / (self.seconds_per_weight + (overtaken / self.total if self.total else 0.0))
        most = self.target_seconds(slots) * per_second
        if self.evidence:
            most = min(most, EVIDENCE * self.evidence)
        least = self.overhead * slots / SCHEDULER_SHARE * per_second
        # Factoring: half of what is left in a round over all slots; less where units are uneven, so that the
        # longest task of a round (by the normal approximation) ends before what is left would. Below a few gaps,
        # or the time in which the scheduler sends a round, smaller tasks would end later, not sooner.
        fair = left / slots
        uneven = math.sqrt(2 * self.spread * math.log(slots)) if slots > 1 else 0.0
        part = min(fair / 2, ((math.sqrt(uneven * uneven + 4 * fair) - uneven) / 2) ** 2)
        part = max(part, max(self.overhead * slots, GAPS * self.gap) * per_second)
        return min(least, most, part), min(most, part)


def _blended(known: float, fresh: float) -> float:
    return known + 0.1 * (min(fresh, 4 * max(known, MIN_OVERHEAD)) - known)


@dataclass(slots=True)
class Probes:
    """The probes of a dispatch, in the order in which they were sent.

    Those that come back first are the short ones. Where units are uneven they tell a mean that is far too
    small, and tasks of that size would last for ages. A probe that a later one overtook is known to be longer
    than the time it is out; these times, added to what was measured, make the estimate right in order of
    magnitude (exactly so for exponential durations), and change nothing where units are alike.
    """

    sums: list[float] = field(default_factory=lambda: [0.0])
    """Of the times at which the probes were sent, up to each of them."""
    reach: int = 0
    """Largest number of a probe that ended."""
    ended: int = 0
    ended_sum: float = 0.0
    """Of the times at which those that ended had been sent."""

    def sent(self, now: float) -> int:
        """Note that a probe goes out at ``now`` (seconds, any steady clock) and return its number."""
        self.sums.append(self.sums[-1] + now)
        return len(self.sums) - 1

    def end(self, number: int) -> None:
        """Note that a probe is done, or lost: nothing is to be learnt from it any more."""
        self.reach = max(self.reach, number)
        self.ended += 1
        self.ended_sum += self.sums[number] - self.sums[number - 1]

    def overtaken(self, now: float) -> float:
        """Return the seconds since the overtaken probes were sent, all together."""
        return max(0.0, (self.reach - self.ended) * now - (self.sums[self.reach] - self.ended_sum))


def take(
    batching: Batching,
    weights: Iterable[float],
    *,
    left: float,
    slots: int,
    overtaken: float = 0.0,
    sizes: Iterable[int] | None = None,
    max_units: int = MAX_UNITS,
    max_bytes: int = MAX_BYTES,
) -> int:
    """Return how many of the next units to send as one task, at least 1.

    Reads no more of ``weights`` and ``sizes`` than it takes, and one. See `take_uniform` for units that are alike.

    Parameters
    ----------
    weights : iterable of float
        Of the units that wait, in order (a look-ahead is enough).
    left : float
        Weight of all units not sent yet, these included; infinite while nobody knows.
    slots : int
        Tasks that the cluster runs at a time, for all runs together.
    overtaken : float
        See `Probes`.
    sizes : iterable of int, optional
        Bytes of each payload.
    """
    least, most = batching.bounds(left, slots, overtaken)
    count, weight, size = 0, 0.0, 0
    for unit_weight, unit_size in zip(weights, repeat(0) if sizes is None else sizes, strict=False):
        size += unit_size
        if count and (count >= max_units or size > max_bytes or (weight >= least and weight + unit_weight > most)):
            break
        weight += unit_weight
        count += 1
    return max(1, count)


def take_uniform(
    batching: Batching,
    waiting: int,
    *,
    left: float,
    slots: int,
    overtaken: float = 0.0,
    weight: float = 1.0,
    size: int = 0,
    max_units: int = MAX_UNITS,
    max_bytes: int = MAX_BYTES,
) -> int:
    """Return what `take` does for ``waiting`` units of equal weight and size, without looking at each.

    Parameters
    ----------
    weight : float
        Of each unit, positive.
    size : int
        Bytes of each payload.
    """
    least, most = batching.bounds(left, slots, overtaken)
    count = max(math.floor(most / weight), math.ceil(least / weight))
    if size > 0:
        count = min(count, max_bytes // size)
    return max(1, min(count, waiting, max_units))


def window(slots: int, per_slot: float = TASKS_PER_SLOT, share: float = 1.0) -> int:
    """Return how many tasks to keep in flight, at least 1.

    Parameters
    ----------
    share : float
        Of the cluster that this run may have, see `share`. The scheduler serves tasks in the order in which
        they arrive, so a run gets slots in proportion to what it has in flight.
    """
    return max(1, math.ceil(slots * per_slot * share - 1e-9))


def share(weight: float, others: Iterable[float]) -> float:
    """Return the share of a cluster that belongs to a run of ``weight`` beside active runs of weights ``others``."""
    total = weight + sum(others)
    return weight / total if total > 0 else 1.0
