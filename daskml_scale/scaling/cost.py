"""What work cost: busy seconds, what stood idle beside it, money, and what reuse saved. Pure; takes ``now``.

Workers cost from the first unit of a pass to its last, busy or not: the money of a stage is the price of
all workers that were there, and its idle share says how much of that did nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Meter:
    """Runs while a stage has workers.

    Attributes
    ----------
    busy : float
        Seconds that kernels took, summed over workers.
    capacity : float
        Seconds that slots were there.
    money : float
        In the currency of the prices.
    rows : int
        Rows of units that ran.
    since : float
        When it was last read; ``None`` while it stands still.
    slots, price : int, float
        As last read: tasks that run at a time, and the price of all workers per hour.
    """

    busy: float = 0.0
    capacity: float = 0.0
    money: float = 0.0
    rows: int = 0
    since: float | None = None
    slots: int = 0
    price: float = 0.0

    def at(self, now: float) -> Meter:
        """Return the meter brought forward to ``now``."""
        if self.since is None:
            return self
        passed = max(0.0, now - self.since)
        return replace(
            self,
            capacity=self.capacity + passed * self.slots,
            money=self.money + passed * self.price / 3600,
            since=self.since + passed,
        )

    def seen(self, now: float, slots: int, price: float) -> Meter:
        """Return the meter running with so many slots from ``now`` on."""
        return replace(self.at(now), since=now, slots=slots, price=price)

    def stopped(self, now: float) -> Meter:
        """Return the meter standing still from ``now`` on."""
        return replace(self.at(now), since=None)

    def worked(self, seconds: float, rows: int) -> Meter:
        """Return the meter after units that took so long and made so many rows."""
        return replace(self, busy=self.busy + seconds, rows=self.rows + rows)

    @property
    def idle_share(self) -> float:
        """Part of the slots' time in which no kernel ran, 0 to 1; 0 when nothing ran."""
        return min(1.0, max(0.0, 1 - self.busy / self.capacity)) if self.capacity > 0 else 0.0

    @property
    def per_thousand(self) -> float:
        """Money per 1,000 rows that were made; 0 when none were."""
        return 1000 * self.money / self.rows if self.rows else 0.0
