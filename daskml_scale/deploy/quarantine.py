"""For how long a host that fails is left alone: longer with each failure in a row. Pure; takes the time."""

from __future__ import annotations

from dataclasses import dataclass

PAUSES = (5.0, 15.0, 60.0, 300.0)
"""Seconds that a host is left alone after the n-th failure in a row."""
FAULTS = 2
"""Processes in a row that ended before they were ready: then the host is to blame."""


@dataclass
class Quarantine:
    """What is held against one host; ``now`` is any steady clock, seconds."""

    failures: int = 0
    faults: int = 0
    until: float = 0.0

    def fail(self, now: float) -> float:
        """Begin anew; return for how long."""
        pause = PAUSES[min(self.failures, len(PAUSES) - 1)]
        self.failures += 1
        self.until = now + pause
        return pause

    def fault(self) -> bool:
        """Take that a process there ended before it was ready; return whether the host is to blame."""
        self.faults = (self.faults + 1) % FAULTS
        return self.faults == 0

    def absolve(self) -> None:
        """Take that a process there became ready."""
        self.failures = self.faults = 0

    def rest(self, now: float) -> float:
        """Return the seconds that are left."""
        return max(0.0, self.until - now)
