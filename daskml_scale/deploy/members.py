"""The workers of a cluster that is not ours, in classes: what `adaptive.BacklogAdaptive` needs of any ``SpecCluster``.

Entries of ``worker_spec`` that are made alike form a class; what is known of a class comes from its template, and
from its first registered worker when the template does not say. Workers go as in our own clusters: retired by name
through the scheduler, released only when it confirms. A name that was used is not used again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from distributed.core import Status

from daskml_scale.errors import UsageError
from daskml_scale.scaling.demand import Shape
from daskml_scale.scaling.policy import Limits

logger = logging.getLogger(__name__)

UNLIMITED = 100_000
"""Workers of a class when nobody set a maximum."""
DEFAULT = "worker"
_THREADS = ("nthreads", "ncores", "threads", "cores")
_TOGETHER = "cores"
"""Of dask-jobqueue: of all processes of a job."""


class Members:
    """The workers of a ``SpecCluster``.

    Parameters
    ----------
    cluster : distributed.SpecCluster
    limits : Limits
        Of the class that the cluster makes new workers of; the other classes stay as they are at least. They count
        workers, of which an entry may stand for several: those of a job.

    Attributes
    ----------
    leaving : set of str
        Names of workers that are being retired.

    Raises
    ------
    UsageError
        When the cluster cannot make new workers.
    """

    def __init__(self, cluster: Any, limits: Limits) -> None:
        if getattr(cluster, "new_spec", None) is None or not hasattr(cluster, "worker_spec"):
            raise UsageError(
                f"{type(cluster).__name__} has no template of a worker (a SpecCluster's new_spec), so nothing can add "
                "workers to it; use a cluster class that scales"
            )
        self.cluster = cluster
        self.leaving: set[str] = set()
        self.templates: dict[str, Mapping[str, Any]] = {}
        self._class_of: dict[str, str] = {}
        self._learnt: dict[str, tuple[int, dict[str, float]]] = {}
        self._used: set[Any] = set()
        self._default = self._class(cluster.new_spec)
        each = len(cluster.new_spec.get("group", (0,)))
        least, most = -(-limits.minimum // each), max(1, limits.maximum // each)
        self.limits = {self._default: replace(limits, minimum=min(least, most), maximum=most)}
        self.learn(())

    # What there is

    @property
    def planned(self) -> dict[str, str]:
        """Entry -> class, of every worker that should exist."""
        return {str(name): self._class(entry) for name, entry in self.cluster.worker_spec.items()}

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Entry -> names of its workers, of those that stand for several."""
        found = self.cluster.worker_spec
        return {
            str(name): tuple(f"{name}{suffix}" for suffix in entry["group"])
            for name, entry in found.items()
            if "group" in entry
        }

    @property
    def shapes(self) -> list[Shape]:
        """What a worker of each class offers."""
        return [self._shape(name) for name in self.templates]

    def learn(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take threads and resources of classes from registered workers; classes that are new stay as they are."""
        for name, number in Counter(self.planned.values()).items():
            self.limits.setdefault(name, Limits(minimum=number, maximum=number))
        owners = {member: name for name, members in self.groups.items() for member in members}
        planned, sizes = self.planned, {name: len(members) for name, members in self.groups.items()}
        for row in rows:
            entry = owners.get(row["name"], row["name"])
            if (found := planned.get(entry)) is not None and found not in self._learnt:
                number = sizes.get(entry, 1)
                resources = {key: float(value) * number for key, value in row["resources"].items()}
                self._learnt[found] = (int(row["nthreads"]) * number, resources)

    def _shape(self, name: str) -> Shape:
        if name in self._learnt:
            return Shape(name, *self._learnt[name])
        template = self.templates[name]
        options, number = template.get("options", {}), len(template.get("group", (0,)))
        said = next((key for key in _THREADS if options.get(key)), "")
        threads = int(options[said]) * (1 if said == _TOGETHER else number) if said else number
        return Shape(name, threads, {k: v * number for k, v in _resources(options.get("resources")).items()})

    def _class(self, entry: Mapping[str, Any]) -> str:
        """Return the class of workers that are made like this one."""
        options = {key: value for key, value in entry.get("options", {}).items() if key != "name"}
        made = repr((entry["cls"], sorted(options.items(), key=lambda item: item[0]), entry.get("group")))
        if made not in self._class_of:
            resources = _resources(options.get("resources"))
            name = "+".join(sorted(key.lower() for key in resources)) or DEFAULT
            while name in self.templates:
                name += "-other"
            self._class_of[made], self.templates[name] = name, entry
        return self._class_of[made]

    # Growing and shrinking

    def add_workers(self, worker_class: str, count: int) -> list[str]:
        """Plan workers and start them in the background; return their names. On the event loop only."""
        cluster, names = self.cluster, []
        self._used.update(cluster.worker_spec)
        for _ in range(count):
            ((name, entry),) = cluster.new_worker_spec().items()
            while name in self._used:
                cluster._i += 1
                ((name, entry),) = cluster.new_worker_spec().items()
            self._used.add(name)
            cluster.worker_spec[name] = entry if worker_class == self._default else dict(self.templates[worker_class])
            names.append(str(name))
        if cluster.status == Status.running:
            cluster._correct_state().add_done_callback(log_failure)
        return names

    async def retire(self, names: Iterable[str], busy: bool = False) -> list[str]:
        """Retire entries by name; release those whose every worker the scheduler confirms. Return these."""
        keys = {str(key): key for key in self.cluster.worker_spec}
        wanted = [name for name in names if name in keys and name not in self.leaving]
        if not wanted:
            return []
        groups = self.groups
        entries = {keys[name]: groups.get(name, (name,)) for name in wanted}
        return await release(self.cluster, self.leaving, entries, busy)

    async def cancel(self, names: Iterable[str]) -> None:
        """Give up entries of which no worker has arrived; those that just did stay."""
        keys = {str(key): key for key in self.cluster.worker_spec}
        here, groups = {str(name) for name in self.cluster.observed}, self.groups
        for name in names:
            if name in keys and not here.intersection(groups.get(name, (name,))):
                self.cluster.worker_spec.pop(keys[name], None)
        await self.cluster._correct_state()


def _resources(given: Any) -> dict[str, float]:
    """Return resources from a mapping, or from the command line's ``"GPU=1 MEM=2"``."""
    if isinstance(given, str):
        pairs: Sequence[Sequence[str]] = [item.split("=", 1) for item in given.replace(",", " ").split() if "=" in item]
        return {key: float(value) for key, value in pairs}
    return {key: float(value) for key, value in (given or {}).items()}


async def release(cluster: Any, leaving: set[str], entries: Mapping[Any, Sequence[str]], busy: bool) -> list[str]:
    """Retire entries of a ``worker_spec`` and drop those whose every worker the scheduler confirms.

    Parameters
    ----------
    leaving : set of str
        Has their names meanwhile.
    entries : mapping
        Key of an entry -> names of its workers.
    busy : bool
        Also those with tasks.

    Returns
    -------
    list of str
        Names of the entries that were dropped.
    """
    names = {str(key) for key in entries}
    leaving.update(names)
    try:
        asked = [name for listed in entries.values() for name in listed]
        gone = set(await cluster.scheduler_comm.daskml_retire(names=asked, busy=busy))
        released = [key for key, listed in entries.items() if gone.issuperset(listed)]
        for key in released:
            cluster.worker_spec.pop(key, None)
    finally:
        leaving.difference_update(names)
    if released:
        await cluster._correct_state()
    return [str(key) for key in released]


def log_failure(task: Any) -> None:
    """Log what went wrong in the background."""
    if not task.cancelled() and task.exception() is not None:
        logger.warning("a change of the number of workers failed: %s", task.exception())
