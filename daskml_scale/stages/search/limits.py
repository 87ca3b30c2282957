"""A limit on the seconds of one trial: raises in the thread that runs it.

The exception comes between two steps of Python; a single long compiled call ends first. It reaches the
estimator's code as any exception would, so what scikit-learn makes of a failing fit holds here too.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

ATTEMPTS = 5
"""How often it is raised, a second apart, until the block is left."""


class TrialTimeoutError(TimeoutError):
    """A fit and its scores took longer than ``trial_timeout`` seconds."""

    def __str__(self) -> str:
        return super().__str__() or "the fit took longer than trial_timeout"


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Raise `TrialTimeoutError` in this thread when the block takes longer than so many seconds; None is no limit."""
    if seconds is None:
        yield
        return
    thread, lock = threading.get_ident(), threading.Lock()
    ended = fired = False

    def end() -> None:
        nonlocal fired
        # Where it meets a callback of the garbage collector or a destructor, Python drops the exception.
        for _ in range(ATTEMPTS):
            with lock:
                if ended:
                    return
                fired = True
                _raise_in(thread, TrialTimeoutError)
            time.sleep(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    try:
        timer.start()
        yield
    except TrialTimeoutError:
        raise TrialTimeoutError(f"the fit took longer than trial_timeout={seconds:g} s") from None
    finally:
        while not ended or fired:
            with suppress(TrialTimeoutError):  # it may come at any of these statements
                with lock:
                    ended = True
                timer.cancel()
                if fired:
                    time.sleep(0)  # let it come here, not in what follows the block
                    fired = False


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
