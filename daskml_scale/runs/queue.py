"""Whose turn it is: at most so many runs at once per cluster, one per store, the more urgent first.

A submitted run has its own process from the start; it waits for its turn and asks the registry, which
decides in one transaction by `next_to_start`. Nobody hands turns out, so nobody can die with them: a run
whose process is gone, or whose lease ran out, holds no turn. A run in a terminal starts at once, and counts.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from daskml_scale.errors import SpecError, StoreError

from .begin import arrived
from .state import RunRecord, state_at

if TYPE_CHECKING:
    from .records import Registry

AT_ONCE = 1
"""Runs at a time on a cluster whose definition does not say: each starts workers for the whole machine."""
QUICKEST, SLOWEST = 0.25, 10.0
"""Seconds between two looks of a waiting run: of the next one, and of one far behind."""
PATIENCE = 600.0
"""Seconds for which a waiting run goes on asking a registry that cannot be used."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What decides about the turn of a live run.

    Attributes
    ----------
    state : str
        queued | running
    queue : str
        The cluster that it uses.
    most : int
        Runs at once that the definition of this cluster allowed when this run was submitted.
    lease_until, created : float
        Seconds since the epoch.
    """

    id: str
    state: str
    queue: str
    store: str
    priority: int
    most: int
    created: float
    lease_until: float


def next_to_start(runs: Iterable[Turn], now: float) -> tuple[str, ...]:
    """Return the queued runs that may start now, in their order: urgent ones first, then as they came.

    A run that has to wait for its store lets others pass; one that waits for its cluster does not.

    Parameters
    ----------
    runs : iterable of Turn
        All live runs.
    now : float
        Seconds since the epoch. Who holds no lease now neither holds nor gets a turn.
    """
    alive = [run for run in runs if state_at(run.state, run.lease_until, now) != "lost"]
    working = [run for run in alive if run.state == "running"]
    waiting = sorted((run for run in alive if run.state == "queued"), key=waiting_order)
    busy, stores = Counter(run.queue for run in working), {run.store for run in working}
    newest_last = sorted(alive, key=lambda run: (run.created, run.id))
    most = {run.queue: run.most for run in newest_last}  # the newest definition counts
    chosen = []
    for run in waiting:
        if busy[run.queue] < max(1, most[run.queue]) and run.store not in stores:
            chosen.append(run.id)
            busy[run.queue] += 1
            stores.add(run.store)
    return tuple(chosen)


def waiting_order(run: Turn) -> tuple[int, float, str]:
    """Return what sorts waiting runs."""
    return -run.priority, run.created, run.id


def before(runs: Iterable[Turn], name: str) -> int:
    """Return how many runs on its cluster go before a run that waits: those at work, and those ahead in the queue."""
    listed = list(runs)
    mine = next(run for run in listed if run.id == name)
    return sum(
        run.queue == mine.queue and (run.state == "running" or waiting_order(run) < waiting_order(mine))
        for run in listed
    )


def at_once(cluster: str, none: str) -> int:
    """Return how many runs a cluster takes at once: what its definition says; without one, as many as there are cores.

    Parameters
    ----------
    none : str
        The name that stands for no cluster.
    """
    if cluster == none:
        return len(os.sched_getaffinity(0))
    from daskml_scale.spec.find import find_cluster
    from daskml_scale.spec.load import load_cluster

    from .named import find

    found = find(cluster)
    try:
        definition = load_cluster(find_cluster(found.definition if found is not None else cluster))
    except SpecError:
        if found is None:
            raise
        return AT_ONCE  # a cluster that runs may outlive its file
    return getattr(definition, "runs", None) or AT_ONCE  # not every backend has a queue of its own


def patience(ahead: int) -> float:
    """Return the seconds until the next look of a run with so many before it."""
    return min(SLOWEST, QUICKEST * (1 + ahead))


def wait_turn(
    registry: Registry,
    run: RunRecord,
    told: Callable[[str], None],
    *,
    host: str,
    pid: int,
    sleep: Callable[[float], None] = time.sleep,
) -> RunRecord:
    """Wait until a queued run has its turn, and return it as running under this process.

    Parameters
    ----------
    told : callable
        Receives one line when it has to wait.

    Raises
    ------
    ConflictError
        When it was cancelled, or another process took it.
    StoreError
        When the registry could not be used for ten minutes.
    """
    waited, trouble, heard = False, "", time.monotonic()
    while True:
        try:
            found = registry.take_turn(run, host=host, pid=pid, now=time.time())
        except StoreError as error:
            if time.monotonic() - heard > PATIENCE:
                raise
            if not trouble:
                told(f"{error}; the run goes on asking")
            trouble = str(error)
            sleep(SLOWEST)
            continue
        finally:
            arrived()
        trouble, heard = "", time.monotonic()
        if not isinstance(found, int):
            return found
        if not waited:
            told(f"run {run.id} waits for its turn: {found} before it on {run.queue}, or its store is in use")
            waited = True
        sleep(patience(found))
