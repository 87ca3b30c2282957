"""One call of ``dms.map``: its items as numbered units, its results by number, what failed.

A unit may last a microsecond, so all loops here work on the columns of a group of outcomes and make no
object per unit that nobody asked for. This module writes nothing.
"""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import Any

from daskml_scale.engine.dispatch import OnPayload, Outcomes, dispatch
from daskml_scale.errors import DaskMLError, UnitsFailedError, UsageError
from daskml_scale.plan.units import Outcome, Unit

from . import notebook
from .functions import Sent

logger = logging.getLogger(__name__)

unit = partial(tuple.__new__, Unit)
"""Makes a unit of its three fields in half the time of ``Unit(...)``."""


def retry_policy(retry: Mapping[Any, int] | None) -> dict[str, int]:
    """Return a retry policy by class name, as `dispatch` takes it.

    Raises
    ------
    UsageError
        When a key is no exception, or a number is not positive.
    """
    found = {}
    for kind, times in (retry or {}).items():
        known = kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", "")
        if not known.isidentifier() or (not isinstance(kind, str) and not _is_exception(kind)):
            raise UsageError(f"retry: {kind!r} is no exception class or its name; write {{OSError: 3}}")
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise UsageError(f"retry: {known}: {times!r} is no number of times; write {{{known}: 3}}")
        found[known] = times
    return found


def _is_exception(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)


class Items:
    """The items of a call, numbered; what their iterator raises is kept until all before it is done.

    Attributes
    ----------
    count : int
        Items read so far.
    broken : Exception or None
        What the iterator raised instead of the next item.
    """

    def __init__(self, items: Iterable[Any]) -> None:
        self.count = 0
        self.broken: Exception | None = None
        try:
            self.source = iter(items)
        except TypeError:
            raise UsageError(
                f"items is a {type(items).__name__}, which holds no items; give a list, a range, a generator, ..."
            ) from None
        try:
            self.total: int | None = len(items)  # type: ignore[arg-type]
        except (TypeError, OverflowError):
            self.total = None

    def units(self) -> Iterator[Unit]:
        """Yield a unit per item (the hot path)."""
        number = -1
        try:
            for number, item in enumerate(self.source):
                yield unit((str(number), item, 1.0))
        except Exception as raised:
            self.broken = raised
        finally:
            self.count = number + 1

    def check(self, kept: str) -> None:
        """Raise what the iterator raised, as our error.

        Parameters
        ----------
        kept : str
            What became of the items before it, and what to do.
        """
        if isinstance(self.broken, DaskMLError):
            raise self.broken
        if self.broken is not None:
            where = f"after item {self.count - 1}" if self.count else "before the first one"
            raise UsageError(
                f"items ended {where} with {type(self.broken).__name__}: {self.broken}; {kept}"
            ) from self.broken


@dataclass
class Call:
    """One call of `map`: what it was given, checked."""

    func: Callable[[Any], Any]
    items: Items
    name: str
    client: Any
    resources: Mapping[str, float] | None
    retry: dict[str, int]
    failures: list[tuple[int, Unit, str, str]] = field(default_factory=list)

    def sent(self) -> Callable[[Any], Any]:
        """Return the function in the form that travels; as it is where nothing travels."""
        return self.func if self.client is None else Sent(self.func)

    def groups(
        self,
        kernel: OnPayload,
        units: Iterable[Unit] | None = None,
        total: int | None = None,
        seconds: float | None = None,
    ) -> Iterator[Outcomes]:
        """Return what `dispatch` yields; by default for all items."""
        total = self.items.total if units is None else total
        groups = dispatch(
            kernel,
            None,
            self.items.units() if units is None else units,
            name=self.name,
            client=self.client,
            resources=self.resources,
            total=total,
            seconds_per_weight=seconds,
            retry=self.retry,
            tell=logger.warning,
        )
        return notebook.follow(self.name, "map", total, groups)

    def each(self, groups: Any) -> Iterator[Outcome]:
        """Yield outcomes as they come."""
        with closing(groups):
            for group in groups:
                yield from group
        self.items.check("what finished was yielded before this")

    def ordered(self, groups: Any) -> list[Any]:
        """Return all results by number."""
        results: list[Any] = []
        done = 0
        with closing(groups):
            for group in groups:
                for part in group.parts:
                    numbers = [int(each.key) for each in part.units]
                    results.extend(repeat(None, max(numbers) + 1 - len(results)))
                    for number, value in zip(numbers, part.rows.values, strict=True):
                        results[number] = value
                    self.note_failures(part)
                done += len(group)
        self.items.check("without out= nothing is kept; mend them and call again")
        self.check_failures(done, "")
        return results

    def note_failures(self, part: Any) -> None:
        """Remember what failed in a part of a group."""
        for position, failure in part.rows.failures.items():
            failed = part.units[position]
            self.failures.append((int(failed.key), failed, failure.error, failure.traceback))

    def check_failures(self, tried: int, kept: str) -> None:
        """Raise when items failed.

        Raises
        ------
        UnitsFailedError
            With the traceback of the first one by number.
        """
        if not self.failures:
            return
        number, first, error, trace = min(self.failures, key=lambda failure: failure[0])
        raise UnitsFailedError(
            f"{len(self.failures)} of {tried} items failed{kept}. First: item {number} "
            f"({reprlib.repr(first.payload)}): {error}\n{trace}"
        )
