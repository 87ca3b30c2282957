"""``dms.map``: any function over any items, as units: batched, windowed, isolated, and with ``out=`` durable.

The parts are `calls` (items, outcomes, failures) and `map_results` (what ``out=`` keeps); this module checks
arguments and joins them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, overload

from daskml_scale.engine.client import current_client
from daskml_scale.engine.dispatch import OnPayload
from daskml_scale.errors import UsageError
from daskml_scale.plan.units import Outcome
from daskml_scale.storage.results import Results

from .accounting import LAST, StageRow
from .calls import Call, Items, retry_policy
from .map_results import Durable

T = TypeVar("T")


@overload
def map(
    func: Callable[[Any], T], items: Iterable[Any], *, out: None = None, name: str | None = None,
    resources: Mapping[str, float] | None = None, retry: Mapping[Any, int] | None = None, client: Any | None = None,
    as_completed: Literal[False] = False,
) -> list[T]: ...  # fmt: skip
@overload
def map(
    func: Callable[[Any], T], items: Iterable[Any], *, out: str | os.PathLike[str], name: str | None = None,
    resources: Mapping[str, float] | None = None, retry: Mapping[Any, int] | None = None, client: Any | None = None,
    as_completed: Literal[False] = False,
) -> Results: ...  # fmt: skip
@overload
def map(
    func: Callable[[Any], T], items: Iterable[Any], *, as_completed: Literal[True],
    out: str | os.PathLike[str] | None = None, name: str | None = None, resources: Mapping[str, float] | None = None,
    retry: Mapping[Any, int] | None = None, client: Any | None = None,
) -> Iterator[Outcome]: ...  # fmt: skip
def map(
    func: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    out: str | os.PathLike[str] | None = None,
    name: str | None = None,
    resources: Mapping[str, float] | None = None,
    retry: Mapping[Any, int] | None = None,
    client: Any | None = None,
    as_completed: bool = False,
) -> Any:
    """Apply a function to every item in parallel and return the results in the order of the items.

    Items are sent in tasks of measured size, so that a million small calls cost little; one failing
    call does not disturb the others.

    Parameters
    ----------
    func : callable of one item
        Picklable by cloudpickle.
    items : iterable
        May be a generator; it is read a bounded look-ahead at a time.
    out : str, optional
        URL of a folder in which results are kept as they come. The same call again runs only items that are
        new, changed or failed, or all when the function's code changed. Results must then be data: numbers,
        text, bytes, lists, dicts, NumPy arrays and scalars.
    name : str, optional
        On the dashboard; the function's name by default.
    resources : mapping, optional
        Dask resources that each task needs: ``{"GPU": 1}``.
    retry : mapping, optional
        Exception class or its name -> how often an item that raises it is tried again. Others fail at once.
    client : distributed.Client, optional
        The default client if there is one, else this process.
    as_completed : bool
        Return an iterator of `Outcome` instead, as items finish; a failed one has its ``error``, nothing is
        raised for it. ``outcome.unit.key`` is the number of the item, ``outcome.unit.payload`` the item (not
        for a result that ``out`` had already).

    Returns
    -------
    list, Results (with ``out``: a sequence that reads from its folder) or iterator of Outcome

    Raises
    ------
    UsageError
        When an argument is wrong, or ``items`` itself raises: results in ``out`` stay.
    UnitsFailedError
        After all items were tried: how many failed, and the traceback of the first one.
    """
    used = _client(client)
    call = Call(
        func,
        Items(items),
        _name(func, name),
        used,
        resources,
        retry_policy(retry),
    )
    if not callable(func):
        raise UsageError(f"func is a {type(func).__name__}, which cannot be called; give a function of one item")
    if out is not None:
        durable = Durable(call, out)
        return durable.outcomes() if as_completed else durable.results()
    groups = call.groups(OnPayload(call.sent()))
    if as_completed:
        return call.each(groups)
    began = time.monotonic()
    results = call.ordered(groups)
    LAST.append(StageRow(call.name, "map", len(results), 0, time.monotonic() - began, len(results)))
    return results


def _client(client: Any | None) -> Any | None:
    if client is None:
        return current_client()
    if not hasattr(client, "submit") or not hasattr(client, "scheduler_info"):
        raise UsageError(f"client is a {type(client).__name__}; give a distributed Client (cluster.get_client())")
    if client.asynchronous or client.status != "running":
        state = "of an event loop" if client.asynchronous else client.status
        raise UsageError(f"client is {state}; give one that is running and made with asynchronous=False")
    return client


def _name(func: Any, name: str | None) -> str:
    if name is not None and not (isinstance(name, str) and name.strip()):
        raise UsageError(f"name is {name!r}; give a few letters, or leave it out")
    inner = getattr(func, "func", func)  # of a partial
    return name or str(getattr(inner, "__name__", type(inner).__name__)).strip("<>")
