"""The stages of a workflow in their order, several at a time where that is asked for; tries and time limits of each.

A failure stops what else is at work; what it committed stays. Stages at work beside others have threads of their
own and stop at the next look (between units, twice a second on a cluster). Nothing here knows what a stage is.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from daskml_scale.errors import DaskMLError, Exit

LONGEST_PAUSE = 60.0
"""Seconds between two tries."""


class StageTimeoutError(DaskMLError):
    """A stage took longer than its ``timeout:``; what it committed stays."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How often a stage is tried again, and the seconds that a try may take (``None`` is for ever)."""

    retries: int = 0
    timeout: float | None = None


def startable(
    waiting: Iterable[str], needs: Mapping[str, Collection[str]], done: Collection[str], free: int
) -> list[str]:
    """Return which stages to start now: the first ones that wait for nothing, as many as there are places."""
    ready = [name for name in waiting if all(other in done for other in needs[name])]
    return ready[: max(0, free)]


def pause(attempt: int) -> float:
    """Return the seconds after the ``attempt``-th try that failed."""
    return min(LONGEST_PAUSE, 2.0 ** (attempt - 1))


def retried(error: BaseException) -> bool:
    """Return whether another try may help: not when the arguments are wrong, or somebody stopped it."""
    lasting = (Exit.USAGE, Exit.CONFLICT, Exit.CANCELLED, Exit.INTERRUPTED)
    return isinstance(error, Exception) and not (isinstance(error, DaskMLError) and error.exit_code in lasting)


ASKED = threading.Event()
"""Somebody asked this process to stop: its exception may be lost inside an import or a destructor."""


class Walk:
    """One walk over the stages of a workflow.

    Parameters
    ----------
    order : sequence of str
        Each stage after those that it needs.
    needs : mapping of stage to stages
    work : callable (name, check)
        Does a stage; calls ``check`` often, which raises when it must stop.
    limits : mapping of stage to Limits
    tell : callable (name, text)
        Receives a line about a try that failed.
    at_once : int
    """

    def __init__(
        self,
        order: Sequence[str],
        needs: Mapping[str, Collection[str]],
        work: Callable[[str, Callable[[], None]], None],
        limits: Mapping[str, Limits],
        tell: Callable[[str, str], None],
        at_once: int = 1,
    ) -> None:
        self.order, self.needs, self.work, self.limits, self.tell = order, needs, work, limits, tell
        self.at_once = at_once
        self.stopping = threading.Event()

    def to_the_end(self) -> None:
        """Do all stages; raise the first error, when nothing is at work any more."""
        if self.at_once == 1:
            for name in self.order:
                self._tried(name)
            return
        ended: queue.SimpleQueue[tuple[str, BaseException | None]] = queue.SimpleQueue()
        waiting, done, threads = list(self.order), set[str](), dict[str, threading.Thread]()

        def one(name: str) -> None:
            try:
                self._tried(name)
            except BaseException as error:
                ended.put((name, error))
            else:
                ended.put((name, None))

        try:
            while waiting or threads:
                for name in startable(waiting, self.needs, done, self.at_once - len(threads)):
                    waiting.remove(name)
                    threads[name] = threading.Thread(target=one, args=(name,), name=f"stage {name}", daemon=True)
                    threads[name].start()
                name, error = ended.get()
                threads.pop(name).join()
                if error is not None:
                    raise error
                done.add(name)
        finally:
            self.stopping.set()
            for thread in threads.values():
                thread.join()

    def _tried(self, name: str) -> None:
        limits = self.limits[name]
        for attempt in range(1, limits.retries + 2):
            try:
                self.work(name, self._check(name, limits))
                return
            except Exception as error:
                if attempt > limits.retries or not retried(error):
                    raise
                seconds = pause(attempt)
                first = str(error).partition("\n")[0]
                self.tell(name, f"try {attempt} of {limits.retries + 1} failed ({first}); again in {seconds:.0f} s")
                if self.stopping.wait(seconds):
                    raise

    def _check(self, name: str, limits: Limits) -> Callable[[], None]:
        deadline = None if limits.timeout is None else time.monotonic() + limits.timeout

        def check() -> None:
            if self.stopping.is_set() or ASKED.is_set():
                raise KeyboardInterrupt
            if deadline is not None and time.monotonic() > deadline:
                raise StageTimeoutError(
                    f"{name}: it took longer than its timeout of {limits.timeout:g} s; what it committed stays, so the "
                    "same command goes on from there; raise timeout:, or use more workers"
                )

        return check
