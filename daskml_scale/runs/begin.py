"""The first moment of a submitted run's process: only so many start up at once as there are cores.

A run imports for a second of a core before it can ask for its turn. When a hundred are submitted at once, all of them
together take minutes for it, and none gets anywhere. So each begins as a bare interpreter, which waits for one of a
few locks and then becomes the run (the same process, by ``exec``). The lock stays with the process until `arrived`;
one that dies gives it back, since the operating system does. Nobody waits for ever: see `LONGEST`.

The command lines that plan such runs are kept to a few in the same way, for a shorter time (`among_few`).

This module must import nothing but the standard library: a hundred of it wait at once.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

FEWEST = 2
"""Runs that start up at once on a single core: one that is suspended just then does not hold all others up."""
LOOK_SECONDS = 0.1
LONGEST = 600.0
"""Seconds after which a run starts whatever the others do."""
PLANNING = 60.0
"""The same of a command line."""
HELD = "DASKML_SCALE_STARTS"
"""Variable with the descriptor of the lock, from the bare interpreter to the run."""


def places() -> int:
    """Return how many runs may start up at once."""
    return max(FEWEST, len(os.sched_getaffinity(0)))


def place(folder: str) -> int | None:
    """Return the descriptor of a free place, which is taken now; ``None`` when there is none.

    Parameters
    ----------
    folder : str
        Where the locks lie, made when absent.
    """
    os.makedirs(folder, exist_ok=True)
    for number in range(places()):
        descriptor = os.open(os.path.join(folder, str(number)), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            return descriptor
    return None


def awaited(folder: str, longest: float = LONGEST) -> int | None:
    """Wait for a place and return its descriptor; ``None`` when that took too long, or no lock can be made."""
    deadline = time.monotonic() + longest
    while time.monotonic() < deadline:
        try:
            descriptor = place(folder)
        except OSError:
            return None
        if descriptor is not None:
            return descriptor
        time.sleep(LOOK_SECONDS)
    return None


@contextmanager
def among_few(folder: str) -> Iterator[None]:
    """Let the block run in few processes at once; one that waited for long goes on whatever the others do.

    Parameters
    ----------
    folder : str
        Of the locks.
    """
    descriptor = awaited(folder, PLANNING)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def arrived() -> None:
    """Give the place back: this run has told the registry that it waits, or works."""
    held = os.environ.pop(HELD, "")
    if held:
        os.close(int(held))


def main() -> None:
    """Wait for a place, then become the run."""
    folder, *words = sys.argv[1:]
    descriptor = awaited(folder)
    if descriptor is not None:
        os.set_inheritable(descriptor, True)
        os.environ[HELD] = str(descriptor)
    os.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    main()
