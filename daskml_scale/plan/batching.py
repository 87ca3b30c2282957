"""How many units go into the next Dask task, and how many tasks are in flight. Pure.

Dask costs 1 to 2 ms of one scheduler core per task, so W slots share about 1/o tasks a second. A task
should therefore last ``max(0.2 s, 2 o W)``: long enough that the scheduler is at most half busy. The
first tasks of a stage are probes of one unit (a remembered duration skips them); after the first
timing the size jumps to its target and follows an EWMA of seconds per unit weight. Towards the end
tasks shrink to a share of what is left (guided self-scheduling, Polychronopoulos and Kuck, 1987).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

MIN_SECONDS = 0.2
"""Shortest duration that a task aims at (joblib's MIN_IDEAL_BATCH_DURATION is the same)."""
MAX_UNITS = 16_384
MAX_BYTES = 1 << 20
TASKS_PER_SLOT = 2
"""Tasks in flight per slot: one runs, one waits on the worker, so that no slot idles for a round trip."""


@dataclass(frozen=True, slots=True)
class Batching:
    """State of the batch size of one dispatch.

    Attributes
    ----------
    seconds_per_weight : float or None
        EWMA; ``None`` until something was measured or remembered.
    overhead : float
        Seconds of scheduler and client time per task.
    """

    seconds_per_weight: float | None = None
    overhead: float = 0.0017
    smoothing: float = 0.3

    def measured(self, seconds: float, weight: float) -> Batching:
        """Return the state after a batch of ``weight`` took ``seconds`` of kernel time."""
        if weight <= 0:
            return self
        fresh = max(seconds, 1e-9) / weight
        if self.seconds_per_weight is None:
            return replace(self, seconds_per_weight=fresh)
        # A jump of an order of magnitude is believed at once: the EWMA would take dozens of batches.
        if not 0.1 < fresh / self.seconds_per_weight < 10:
            return replace(self, seconds_per_weight=fresh)
        blended = self.smoothing * fresh + (1 - self.smoothing) * self.seconds_per_weight
        return replace(self, seconds_per_weight=blended)

    def target_seconds(self, slots: int) -> float:
        """Return how long a task should last with ``slots`` slots."""
        return max(MIN_SECONDS, 2 * self.overhead * slots)


def take(
    batching: Batching,
    weights: Sequence[float],
    *,
    left: float,
    slots: int,
    sizes: Sequence[int] | None = None,
    max_units: int = MAX_UNITS,
    max_bytes: int = MAX_BYTES,
) -> int:
    """Return how many of the next units to send as one task, at least 1.

    Parameters
    ----------
    weights : sequence of float
        Of the units that wait, in order (a look-ahead is enough).
    left : float
        Weight of all units not sent yet, these included.
    slots : int
        Tasks that the cluster runs at a time.
    sizes : sequence of int, optional
        Bytes of each payload.
    """
    if batching.seconds_per_weight is None:
        return 1
    most = batching.target_seconds(slots) / batching.seconds_per_weight
    # The last tasks take a share of what is left, so that all slots end together.
    most = min(most, left / (2 * max(1, slots)))
    count, weight, size = 0, 0.0, 0
    for position, unit_weight in enumerate(weights[:max_units]):
        weight += unit_weight
        size += sizes[position] if sizes is not None else 0
        if count and (weight > most or size > max_bytes):
            break
        count += 1
    return max(1, count)


def window(slots: int, per_slot: int = TASKS_PER_SLOT) -> int:
    """Return how many tasks to keep in flight."""
    return max(1, math.ceil(slots * per_slot))
