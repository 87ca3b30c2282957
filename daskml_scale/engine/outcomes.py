"""Finished units of one flush, as columns: a million outcomes are not a million objects.

``for outcome in outcomes`` makes `Outcome` objects one at a time, for those who want them; a caller in a
hurry reads the columns. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

from daskml_scale.plan.units import Outcome, Unit

from .task import Failure, Rows


@dataclass(frozen=True, slots=True)
class Finished:
    """The units that one task finished.

    Attributes
    ----------
    units : list of Unit
        As many as ``rows`` has values.
    attempt : int
        How often they were sent, this time included.
    """

    units: list[Unit]
    rows: Rows
    worker: str
    attempt: int = 1

    def outcome(self, position: int) -> Outcome:
        """Return one of them as an object."""
        failure = self.rows.failures.get(position)
        return Outcome(
            self.units[position],
            self.rows.values[position],
            failure.error if failure else "",
            failure.traceback if failure else "",
            self.rows.nanoseconds[position] / 1e9,
            self.worker,
            self.attempt,
        )

    def only(self, positions: Sequence[int]) -> Finished:
        """Return the part with these positions, in this order."""
        rows = Rows()
        for new, old in enumerate(positions):
            rows.values.append(self.rows.values[old])
            rows.nanoseconds.append(self.rows.nanoseconds[old])
            if old in self.rows.failures:
                rows.failures[new] = self.rows.failures[old]
        return Finished([self.units[old] for old in positions], rows, self.worker, self.attempt)

    def without_retries(self, retry: Mapping[str, int]) -> tuple[Finished, list[Unit]]:
        """Split off the failed units that a retry policy sends again.

        Parameters
        ----------
        retry : mapping of exception class name to int
            How often a unit that raised this class, or a class below it, is sent again.
        """
        if not retry:
            return self, []
        again = {
            position
            for position, failure in self.rows.failures.items()
            if max((retry[kind] for kind in failure.kinds if kind in retry), default=0) >= self.attempt
        }
        if not again:
            return self, []
        rest = self.only([position for position in range(len(self.units)) if position not in again])
        return rest, [self.units[position] for position in sorted(again)]


@dataclass(slots=True)
class Outcomes(Sequence[Outcome]):
    """A group of outcomes in completion order.

    Attributes
    ----------
    parts : list of Finished
        One per task.
    """

    parts: list[Finished] = field(default_factory=list)
    _length: int = 0

    def add(self, part: Finished) -> None:
        """Append what a task finished."""
        if part.units:
            self.parts.append(part)
            self._length += len(part.units)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Outcome]:
        for part in self.parts:
            yield from map(part.outcome, range(len(part.units)))

    @overload
    def __getitem__(self, index: int) -> Outcome: ...
    @overload
    def __getitem__(self, index: slice) -> list[Outcome]: ...
    def __getitem__(self, index: int | slice) -> Outcome | list[Outcome]:
        if isinstance(index, slice):
            return list(self)[index]
        position = index + self._length if index < 0 else index
        if position >= 0:
            for part in self.parts:
                if position < len(part.units):
                    return part.outcome(position)
                position -= len(part.units)
        raise IndexError(index)


def failed(units: list[Unit], failure: Failure, attempt: int, worker: str = "") -> Finished:
    """Return units that all failed for one reason."""
    rows = Rows([None] * len(units), dict.fromkeys(range(len(units)), failure))
    rows.nanoseconds.extend([0] * len(units))
    return Finished(units, rows, worker, attempt)
