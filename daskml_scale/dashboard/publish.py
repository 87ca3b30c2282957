"""Publish a driver's events to the Dask scheduler, where the workflow plugin shows them.

The sink only appends to a short list; a thread of its own talks to the scheduler, so a slow, broken or
absent scheduler costs a run nothing. Commits, which are frequent, are summed up and sent at most twice
a second; everything else goes at once, in order. Nothing is sent again piece by piece: after a failure,
every ten seconds of activity and at the end a message carries the whole progress, which the publisher
folds along. So a scheduler that was restarted, or got the page late, shows the right numbers soon; one that
took another's place is told maps and trials as well.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

from daskml_scale.dashboard import private
from daskml_scale.dashboard.detail import Detail, brief
from daskml_scale.dashboard.progress import Progress, fold
from daskml_scale.events import TOPIC, Event, StageFinished, UnitsCommitted
from daskml_scale.plan.cells import cells

logger = logging.getLogger("daskml_scale.dashboard")

INTERVAL = 0.5
"""Shortest time in seconds between two messages that hold only commits."""
WHOLE = 10.0
"""Seconds after which a message carries the whole progress instead of events."""
MAX_PENDING = 1000
"""Events kept for a scheduler that does not answer; beyond, the whole progress is sent instead."""


def merge(pending: Sequence[Event], event: Event) -> list[Event]:
    """Return the events to send after one more; a commit is summed into the last one of its stage.

    Commits of different stages change places with each other, never with another event.
    """
    events = list(pending)
    if isinstance(event, UnitsCommitted):
        for index in range(len(events) - 1, -1, -1):
            old = events[index]
            if not isinstance(old, UnitsCommitted):
                break
            if (old.run, old.stage) == (event.run, event.stage):
                events[index] = replace(
                    event,
                    units=old.units + event.units,
                    failed=old.failed + event.failed,
                    rows=old.rows + event.rows,
                    seconds=old.seconds + event.seconds,
                    quarantined=old.quarantined + event.quarantined,
                    cost=max(old.cost, event.cost),
                    cells=cells((*old.cells, *event.cells)),
                    scores=(*old.scores, *event.scores),
                )
                return events
    if isinstance(event, StageFinished):
        event = replace(event, result={})  # the page does not show it, and it may hold what msgpack cannot
    return [*events, event]


def wait(pending: Sequence[Event], sent: float, now: float) -> float:
    """Return how many seconds to wait before ``pending`` is sent; the last message went at ``sent``."""
    if all(isinstance(event, UnitsCommitted) for event in pending):
        return max(0.0, sent + INTERVAL - now)
    return 0.0


class Publisher:
    """An event sink that forwards to the scheduler. Use as a context manager, or call ``close``.

    Parameters
    ----------
    client : distributed.Client
    progress : Progress, optional
        What happened before, to be shown by a scheduler that has not seen it.

    Attributes
    ----------
    messages : int
        Delivered messages.
    """

    def __init__(self, client: Any, progress: Progress | None = None) -> None:
        self.client = client
        self.messages = 0
        self._progress = progress or Progress()
        self._detail = Detail()
        self._whole = progress is not None
        self._known = private.scheduler_id(client)
        self._again = False
        """The scheduler may have lost maps and trials."""
        self._told = time.monotonic()
        self._pending: list[Event] = []
        self._closing = self._failing = False
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None

    def __call__(self, event: Event) -> None:
        """Take an event; returns at once and never raises."""
        with self._wake:
            if self._closing:
                return
            self._progress = fold(self._progress, event)
            self._detail.take(event)
            self._pending = merge(self._pending, event)
            if len(self._pending) > MAX_PENDING:
                self._whole = self._again = True
                del self._pending[:-1]
            if self._thread is None:
                self._thread = threading.Thread(target=self._send_all, name="daskml-publisher", daemon=True)
                self._thread.start()
            self._wake.notify()

    def take_over(self, before: Publisher) -> None:
        """Go on for a publisher that is closed: the new scheduler is told everything."""
        with self._wake:
            self._progress, self._detail = before._progress, before._detail
            self._whole = self._again = True

    def close(self, timeout: float = 5.0) -> None:
        """Deliver what is pending, for at most ``timeout`` seconds. Later events are dropped."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send_all(self) -> None:
        sent = 0.0
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._pending or self._closing)
                while not self._closing and (left := wait(self._pending, sent, time.monotonic())):
                    self._wake.wait(left)
                sent = time.monotonic()
                message = self._message(sent)
            if not message:
                return  # closing, and nothing is left
            self._send(message)

    def _message(self, now: float) -> list[tuple[str, Any]]:
        """Take what is pending, as (kind of item, what it holds); the lock is held."""
        pending, self._pending = self._pending, []
        if pending and (known := private.scheduler_id(self.client)) not in ("", self._known):
            self._known, self._whole, self._again = known, True, True
        if not self._whole and (not pending or not (self._closing or now - self._told >= WHOLE)):
            return [("", event) for event in pending]
        again, self._again = self._again, False
        self._whole, self._told = False, now
        if again:
            return [("progress", self._progress), ("detail", self._detail.to_dict())]
        return [("progress", self._progress), *(("of", event) for event in pending if not brief(event))]

    def _send(self, message: list[tuple[str, Any]]) -> None:
        try:
            items = [(kind, held if isinstance(held, dict) else held.to_dict()) for kind, held in message]
            self.client.log_event(TOPIC, [{kind: data} if kind else data for kind, data in items])
        except Exception as error:
            with self._wake:
                self._whole = self._again = not self._closing
            if not self._failing:
                logger.warning(
                    "The scheduler does not take progress events (%s: %s); the run goes on, its page may be stale.",
                    type(error).__name__,
                    error,
                )
            self._failing = True
        else:
            self._failing = False
            self.messages += 1


def publisher(client: Any, progress: Progress | None = None) -> Publisher:
    """Return a sink that shows a run's events on the scheduler of ``client``; close it at the end of the run."""
    return Publisher(client, progress)
