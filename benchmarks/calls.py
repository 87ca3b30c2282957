"""What the workers call in `dispatch`: functions of one argument, the same for us and for every peer.

Those that take a while return how long they took, so that "busy" means the same for all. Computing spins for
a number of steps, not for a time: on a busy machine it takes longer, as real work does.
"""

from __future__ import annotations

import ctypes
import os
import time
from functools import cache

Took = tuple[float, float]
"""(seconds on the clock, seconds of CPU) of a call."""


def tiny(number: int) -> int:
    """About 1 us."""
    return sum(range(number % 7 + 40))


def spin(steps: int) -> int:
    """Compute for so many steps."""
    total = 0
    for step in range(steps):
        total += step & 3
    return total


def computing(steps: int) -> Took:
    """Compute for so many steps."""
    started, busy = time.perf_counter(), time.thread_time()
    spin(steps)
    return time.perf_counter() - started, time.thread_time() - busy


def sleeping(seconds: float) -> Took:
    """Sleep; the clock says how long it really was."""
    started = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - started, 0.0


def length(payload: bytes) -> int:
    """Return how long a payload is."""
    return len(payload)


def crashing(argument: tuple[str, int, int, bool]) -> int:
    """Append a byte to (file), compute for (steps), and end the process by a segmentation fault if (guilty)."""
    path, number, steps, guilty = argument
    os.write(_opened(path), b".")
    spin(steps)
    if guilty:
        ctypes.string_at(0)
    return number


@cache
def _opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
