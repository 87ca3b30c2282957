"""Work that Python starts on a cluster, published to the cluster's page: a stage, a search.

What publishes lies above this room and is set by the package (`daskml_scale`), as `publisher`. Nothing is told of work
that ends at once: two messages would cost more than it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from daskml_scale import events

AFTER = 0.25
"""Seconds of work before anything is told."""


class Publisher(Protocol):
    """A sink that forwards, and says with `close` what is left."""

    def __call__(self, event: events.Event) -> None: ...

    def close(self) -> None: ...


publisher: Callable[[Any], Publisher] | None = None
"""Makes the sink for a client; none where only a room was imported, as on a worker."""


class Late:
    """A sink that makes its publisher when the work has lasted a moment, and then tells all since the beginning."""

    def __init__(self, make: Callable[[], Publisher]) -> None:
        self.make, self.began = make, time.monotonic()
        self.made: Publisher | None = None
        self.kept: list[events.Event] = []

    def __call__(self, event: events.Event) -> None:
        if self.made is None:
            self.kept.append(event)
            if time.monotonic() - self.began < AFTER:
                return
            self.made, kept, self.kept = self.make(), self.kept, []
            for one in kept:
                self.made(one)
        else:
            self.made(event)

    def close(self) -> None:
        if self.made is not None:
            self.made.close()


@contextmanager
def published(client: Any | None) -> Iterator[events.Sink]:
    """Give a sink that publishes on a cluster while the block runs; one that ignores, where there is none."""
    if publisher is None or client is None or callable(client):
        yield events.ignore
        return
    make = publisher
    sink = Late(lambda: make(client))
    try:
        yield sink
    finally:
        sink.close()
