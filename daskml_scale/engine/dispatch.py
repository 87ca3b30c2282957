"""Dispatch: units in, groups of finished outcomes out, through Dask tasks of measured size.

The generator keeps a bounded window of tasks on the cluster and yields outcomes as they finish, at
least every second or half window. Futures are released when the caller asks for the next group: what
was committed in between is durable before Dask forgets it, and a dying worker makes nobody recompute
what is done. Without a client the same kernels run in this process.

What may go wrong on a cluster is in `flight`. This module writes nothing and knows no stage.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from typing import Any, cast

from daskml_scale.errors import ClusterError, UsageError
from daskml_scale.plan.batching import MAX_UNITS, MIN_SECONDS, Batching
from daskml_scale.plan.units import Unit

from .flight import FLUSH_SECONDS, WAITS_FOR_NOTHING, Flight
from .lookahead import LookAhead
from .outcomes import Finished, Outcomes
from .task import Kernel, Limits, OnPayload, calls, run_units
from .worker import WorkerContext

__all__ = ["Kernel", "OnPayload", "Outcomes", "dispatch"]

SLAB_SECONDS = 0.2
"""In process: units run between two looks at the clock that may flush."""
MAX_SLAB = 1024
_END, _PAUSED = object(), object()


def dispatch(
    kernel: Kernel,
    shared: Any,
    units: Iterable[Unit | None],
    *,
    name: str,
    client: Any | None = None,
    resources: Mapping[str, float] | None = None,
    total: int | None = None,
    seconds_per_weight: float | None = None,
    retry: Mapping[str, int] | None = None,
    weight: float | None = None,
    reconnect: Callable[[], Any] | None = None,
    tell: Callable[[str], None] | None = None,
    check: Callable[[], None] | None = None,
    aim: float = MIN_SECONDS,
) -> Generator[Outcomes, None, None]:
    """Run units and yield groups of outcomes in completion order.

    Parameters
    ----------
    kernel : callable (unit, worker context) -> picklable value
        Importable by the workers, or picklable by cloudpickle. `OnPayload` is cheaper for tiny units.
    shared : object
        Sent once per worker process; ``worker.shared`` in the kernel.
    units : iterable of Unit or None
        May be a generator; it is read a bounded look-ahead at a time. ``None`` means "nothing now": the
        generator is asked again after the next group was yielded.
    name : str
        Of the stage: in task keys and in the backlog.
    client : distributed.Client, optional
        Without one the units run here, one after the other.
    resources : mapping, optional
        Dask resources that each task needs.
    total : int, optional
        Number of units, when ``units`` cannot tell.
    seconds_per_weight : float, optional
        Remembered duration; skips the probing tasks.
    retry : mapping of exception class name to int, optional
        How often a unit that raises this, or a class below it, is sent again. Others fail at once.
    weight : float, optional
        Share of the cluster beside other runs, relative to theirs; by default Dask configuration
        ``daskml-scale.weight`` (``DASK_DASKML_SCALE__WEIGHT`` in the environment), else 1.
    reconnect : callable, optional
        Gives a new client when the scheduler is gone for good.
    tell : callable, optional
        Receives one line for everything unusual: what happened and why.
    check : callable, optional
        Called between units, and twice a second on a cluster: what it raises ends the dispatch.
    aim : float
        Seconds that a task shall last at least, while there are many units left. More than the default where units
        take about as long, nobody waits for single ones, and the workers need all cores: a task costs the driver,
        the scheduler and the worker some 10 ms together.

    Raises
    ------
    ClusterError
        When the scheduler is gone and does not come back. Committed work stays.
    """
    if total is None and isinstance(units, Sized):
        total = len(units)
    if client is None:
        yield from _in_process(kernel, shared, units, name, dict(retry or {}), check or _nothing)
        return
    flight = Flight(
        kernel,
        shared,
        LookAhead(units, total),
        name=name,
        client=client,
        resources=dict(resources or {}),
        batching=Batching(seconds_per_weight, aim=aim),
        retry=dict(retry or {}),
        weight=own_weight() if weight is None else weight,
        reconnect=reconnect,
        tell=tell,
        check=check or _nothing,
    )
    try:
        yield from flight.groups()
    finally:
        flight.close()


def _nothing() -> None:
    """Find nothing that speaks against going on."""


def own_weight() -> float:
    """Return the configured weight of this process's runs.

    Raises
    ------
    UsageError
        When it is no positive number.
    """
    import dask.config

    found = dask.config.get("daskml-scale.weight", 1.0)
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 < found < float("inf"):
        raise UsageError(f"Dask configuration daskml-scale.weight is {found!r}; give a positive number, 1 is usual")
    return float(found)


def _in_process(
    kernel: Kernel,
    shared: Any,
    units: Iterable[Unit | None],
    name: str,
    retry: Mapping[str, int],
    check: Callable[[], None],
) -> Iterator[Outcomes]:
    context = WorkerContext(shared=shared, threads=len(os.sched_getaffinity(0)))
    group, flushed, slab = Outcomes(), time.monotonic(), 1
    again: deque[tuple[Unit, int]] = deque()
    source = iter(units)
    exhausted, broken = False, None
    while again or not exhausted:
        check()
        attempt = again[0][1] if again else 1
        batch: list[Unit] = []
        while again and again[0][1] == attempt and len(batch) < slab:
            batch.append(again.popleft()[0])
        asked = None if batch else _read(source, batch, slab)
        exhausted = exhausted or asked is _END or isinstance(asked, Exception)
        broken = asked if isinstance(asked, Exception) else broken
        if batch:
            started = time.monotonic()
            columns = [u.key for u in batch], [u.payload for u in batch], [u.weight for u in batch]
            rows = run_units(*calls(kernel, *columns, context), Limits(SLAB_SECONDS))
            again.extendleft((unit, attempt) for unit in reversed(batch[len(rows) :]))
            part = Finished(batch[: len(rows)], rows, "local", attempt)
            part, refused = part.without_retries(retry)
            again.extend((unit, attempt + 1) for unit in refused)
            group.add(part)
            quick = time.monotonic() - started < SLAB_SECONDS / 4 and len(rows) == len(batch)
            slab = min(MAX_SLAB, slab * 2) if quick else max(1, len(rows) // 2)
        late = time.monotonic() - flushed >= FLUSH_SECONDS
        if group and (late or len(group) >= MAX_UNITS or asked is _PAUSED):
            yield group
            group, flushed = Outcomes(), time.monotonic()
        elif asked is _PAUSED and not again:
            raise ClusterError(f"{name}: {WAITS_FOR_NOTHING}")
    if group:
        yield group
    if broken is not None:
        raise broken


def _read(source: Iterator[Unit | None], batch: list[Unit], most: int) -> object:
    """Read units into ``batch``; return why it ended before ``most``, what the source raised included."""
    try:
        for _ in range(most):
            unit = next(source, _END)
            if unit is _END:
                return _END
            if unit is None:
                return _PAUSED
            batch.append(cast("Unit", unit))
    except Exception as raised:
        return raised
    return None
