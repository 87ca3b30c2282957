"""``dms.map``: any function over any items, as units: batched, windowed, isolated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from daskml_scale.engine.client import current_client
from daskml_scale.engine.dispatch import dispatch
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import UnitsFailedError
from daskml_scale.plan.units import Unit

T = TypeVar("T")


@dataclass(frozen=True)
class _Call:
    func: Callable[[Any], Any]

    def __call__(self, unit: Unit, worker: WorkerContext) -> Any:
        return self.func(unit.payload)


def map(func: Callable[[Any], T], items: Iterable[Any], *, client: Any | None = None) -> list[T]:
    """Apply a function to every item in parallel and return the results in the order of the items.

    Items are sent in tasks of measured size, so that a million small calls cost little; one failing
    call does not disturb the others.

    Parameters
    ----------
    func : callable of one item
        Picklable by cloudpickle.
    items : iterable
        May be a generator; it is read a bounded look-ahead at a time.
    client : distributed.Client, optional
        The default client if there is one, else this process.

    Raises
    ------
    UnitsFailedError
        After all items were tried: how many failed, and the traceback of the first one.
    """
    units = (Unit(f"{number:012d}", item) for number, item in enumerate(items))
    results: dict[str, T] = {}
    failed = []
    used = current_client() if client is None else client
    for outcomes in dispatch(_Call(func), None, units, name=getattr(func, "__name__", "map").strip("<>"), client=used):
        for outcome in outcomes:
            if outcome.ok:
                results[outcome.unit.key] = outcome.value
            else:
                failed.append(outcome)
    if failed:
        first = min(failed, key=lambda outcome: outcome.unit.key)
        raise UnitsFailedError(
            f"{len(failed)} of {len(failed) + len(results)} items failed. First: item {int(first.unit.key)} "
            f"({first.unit.payload!r}): {first.error}\n{first.traceback}"
        )
    return [results[key] for key in sorted(results)]
