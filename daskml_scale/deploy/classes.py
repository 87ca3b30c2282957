"""Which workers a cluster of ours should have: their classes and names, and how there come to be more or fewer.

What it changes in distributed's: a number in a worker's name is never used again; shrinking retires workers by name
and releases only those whose data is safe elsewhere (distributed#4069). `members` says the same of other clusters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from distributed.core import Status
from distributed.deploy.spec import SpecCluster

from daskml_scale.scaling.demand import Shape
from daskml_scale.scaling.policy import Limits
from daskml_scale.spec.cluster import OwnSpec

from .members import log_failure, release


class ClassedCluster(SpecCluster):  # type: ignore[misc]
    """Workers in classes; what they have in common with those of any cluster is in `scaled`.

    Attributes
    ----------
    leaving : set of str
        Names of workers that are being retired.
    """

    def __init__(self, spec: OwnSpec, limits: Mapping[str, Limits], *, adapt: bool, **kwargs: Any) -> None:
        self.spec, self.limits = spec, dict(limits)
        self.templates: dict[str, dict[str, Any]] = {}
        self.leaving: set[str] = set()
        self._adapt_at_start = adapt and spec.scaling is not None
        self._numbers = dict.fromkeys(spec.classes, 0)
        super().__init__(**kwargs)

    @property
    def shapes(self) -> list[Shape]:
        """What a worker of each class offers, in the order of the specification."""
        return [
            Shape(name, item.threads, dict(item.resources), item.price_per_hour)
            for name, item in self.spec.classes.items()
        ]

    @property
    def planned(self) -> dict[str, str]:
        """Worker name -> class, of every worker that should exist."""
        return {name: entry["options"]["worker_class"] for name, entry in self.worker_spec.items()}

    def new_worker_spec(self, worker_class: str | None = None) -> dict[str, dict[str, Any]]:
        """Return {name: template} of one more worker of a class (the first class when not named)."""
        chosen = worker_class or next(iter(self.spec.classes))
        name = f"{chosen}-{self._numbers[chosen]}"
        self._numbers[chosen] += 1
        return {name: self.templates[chosen]}

    def use_templates(self, templates: Mapping[str, dict[str, Any]]) -> None:
        """Set what workers are made of and plan those of the start (a backend calls it once).

        A template has ``cls`` and ``options`` as in ``SpecCluster`` and ``memory``, the bytes of a worker;
        ``options["worker_class"]`` names the class.
        """
        self.templates = dict(templates)
        self.new_spec = next(iter(self.templates.values()))
        for name in self.templates:
            limits = self.limits[name]
            for _ in range(limits.minimum if self._adapt_at_start else limits.maximum):
                self.worker_spec.update(self.new_worker_spec(name))

    def add_workers(self, worker_class: str, count: int) -> list[str]:
        """Plan workers and start them in the background; return their names. On the event loop only."""
        names: list[str] = []
        for _ in range(count):
            fresh = self.new_worker_spec(worker_class)
            self.worker_spec.update(fresh)
            names.extend(fresh)
        self._correct_soon()
        return names

    async def retire(self, names: Iterable[str], busy: bool = False) -> list[str]:
        """Retire workers by name and release those that the scheduler confirms.

        Parameters
        ----------
        busy : bool
            Also those with tasks; the tasks run again elsewhere.

        Returns
        -------
        list of str
            The released ones. The rest stays: it had work, or nobody could take its data.
        """
        wanted = [name for name in names if name in self.worker_spec and name not in self.leaving]
        if not wanted:
            return []
        return await release(self, self.leaving, {name: (name,) for name in wanted}, busy)

    async def cancel(self, names: Iterable[str]) -> None:
        """Give up workers that have not arrived; those that just did stay."""
        for name in set(names) - self.observed:
            self.worker_spec.pop(name, None)
        await self._correct_state()

    def _correct_soon(self) -> None:
        if self.status == Status.running:
            self._correct_state().add_done_callback(log_failure)
