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
        with lock:
            if not ended:
                fired = True
                _raise_in(thread, TrialTimeoutError)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except TrialTimeoutError:
        raise TrialTimeoutError(f"the fit took longer than trial_timeout={seconds:g} s") from None
    finally:
        with lock:
            ended = True
        timer.cancel()
        if fired:
            _let_it_come()


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))


def _let_it_come() -> None:
    """Have an exception that is on its way arrive here, not in what follows the block."""
    with suppress(TrialTimeoutError):
        time.sleep(0)
