"""What is known of an entity before a chunk: the state of exponential means, last values and times since an event.

Each chunk keeps one small state per entity; states join associatively, in the order of time. A chunk all of
whose events are older than anything a range of rows looks at is taken by its state; the others are read. So a
history may be as long as the table while a unit reads a few chunks. Bounds and states hold no later event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError
from daskml_scale.plan.records import digest
from daskml_scale.spec.base import seconds
from daskml_scale.spec.expressions import Values
from daskml_scale.spec.steps_history import CarriedStep, ExponentialMean, Since

from .aggregate import joined_columns, packed
from .kernels import numbers
from .keys import Keys
from .summary import pack, unpack

MOST_STATES = 2_000_000
"""Most states of entities, over all chunks, that are kept."""
NEVER = -(2**63)


@dataclass(frozen=True, eq=False)
class State:
    """State of entities; arrays of one shape.

    Attributes
    ----------
    time : ndarray of int64
        Of the newest event that counts, ns since 1970; ``NEVER`` without one.
    row : ndarray of int64
        Its number in the table.
    total, weight : ndarray of float64
        Exponential mean: weighted sum and weights as of ``time``. Forward fill: the newest value. Else 0.
    """

    time: np.ndarray
    row: np.ndarray
    total: np.ndarray
    weight: np.ndarray

    @classmethod
    def empty(cls, size: int) -> State:
        zero = np.zeros(size)
        return cls(np.full(size, NEVER), np.full(size, -1), zero, zero)

    def at(self, places: np.ndarray) -> State:
        """Return the states at places; none where a place is negative."""
        none, found = places < 0, np.maximum(places, 0)
        if not len(self.time):
            return State.empty(len(places))
        return State(
            np.where(none, NEVER, self.time[found]),
            np.where(none, -1, self.row[found]),
            np.where(none, 0.0, self.total[found]),
            np.where(none, 0.0, self.weight[found]),
        )

    def joined(self, other: State, step: CarriedStep) -> State:
        """Return the state after both, entity by entity; associative."""
        later = (other.time > self.time) | ((other.time == self.time) & (other.row > self.row))
        time = np.where(later, other.time, self.time)
        row = np.where(later, other.row, self.row)
        if not isinstance(step, ExponentialMean):
            return State(time, row, np.where(later, other.total, self.total), np.zeros(len(time)))
        mine, theirs = decay(step, self.time, time), decay(step, other.time, time)
        return State(
            time, row, self.total * mine + other.total * theirs, self.weight * mine + other.weight * theirs
        )  # fmt: skip


def decay(step: ExponentialMean, time: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Return ``0.5 ** (age / half_life)``; 0 for what never was."""
    never = time == NEVER
    age = (np.where(never, 0, now) - np.where(never, 0, time)).astype("float64")
    return np.where(never, 0.0, np.exp2(-age / (seconds(step.half_life) * 1e9)))


def counts_for(step: CarriedStep, values: np.ndarray) -> np.ndarray:
    """Return which events a step counts: those with a value, finite for a mean, and for ``since`` not 0."""
    if isinstance(step, ExponentialMean):
        return np.asarray(np.isfinite(values))
    present = ~np.isnan(values)
    return np.asarray(present & (values != 0) if isinstance(step, Since) else present)


def scan(step: CarriedStep, columns: Mapping[str, Values], rows: int, start: int) -> dict[str, Any]:
    """Return the entities of a chunk and their states: a JSON value.

    Parameters
    ----------
    start : int
        Number of the chunk's first row in the table.
    """
    by = [columns[name] for name in step.match]
    keys = Keys(by, rows)
    present = np.flatnonzero(keys.own >= 0)
    first = np.zeros(keys.size if len(present) else 0, dtype="int64")
    first[keys.own[present][::-1]] = present[::-1]
    times, values = np.asarray(columns[step.at]), numbers(columns[step.of])
    used = present[~np.isnat(times[present]) & counts_for(step, values[present])]
    instants = times.astype("datetime64[ns]").view("int64")
    used = used[np.lexsort((instants[used], keys.own[used]))]
    size, group = len(first), keys.own[used]
    total: np.ndarray = np.zeros(size)
    weight: np.ndarray = np.zeros(size)
    place: np.ndarray = np.full(size, -1)
    place[group] = used  # the last one of each entity stays
    time = np.where(place < 0, NEVER, instants[place])
    if isinstance(step, ExponentialMean):
        share = decay(step, instants[used], time[group])
        total = np.bincount(group, share * values[used], minlength=size)
        weight = np.bincount(group, share, minlength=size).astype("float64")
    elif size:
        total = np.where(place < 0, 0.0, values[place])
    state = State(time, np.where(place < 0, -1, place + start), total, weight)
    return {
        "keys": [packed(column[first]) for column in by],
        "state": [pack(array) for array in vars(state).values()],
    }


@dataclass(frozen=True, eq=False)
class Carried:
    """The states of one step after every chunk, in the order of the chunks' newest events.

    Attributes
    ----------
    keys : Keys
        Of the entities of all chunks.
    place : ndarray of int64, rising
        Entity x (chunks + 1) + how many chunks are joined, of each state.
    newest : ndarray of int64, shape (chunks,)
        Newest event of each chunk, ns since 1970.
    entities : list of ndarray
        Entities of each chunk.
    """

    step: CarriedStep
    keys: Keys
    place: np.ndarray
    states: State
    newest: np.ndarray
    entities: list[np.ndarray]

    @classmethod
    def merge(cls, step: CarriedStep, position: int, newest: np.ndarray, parts: Sequence[Mapping[str, Any]]) -> Carried:
        """Join the states of all chunks, given in unit order.

        Raises
        ------
        PlanError
            When there are too many of them.
        """
        found = [State(*_unpacked(part["state"])) for part in parts]
        sizes = [len(state.time) for state in found]
        if sum(sizes) > MOST_STATES:
            raise PlanError(
                f"steps[{position}].{step.step}: {sum(sizes):,} states of entities in {len(parts):,} chunks, more than "
                f"{MOST_STATES:,}; give within:, then a unit reads the rows that it looks back over"
            )
        columns = [joined_columns([part["keys"][number] for part in parts]) for number in range(len(step.match))]
        keys = Keys(columns, sum(sizes))
        ends = np.cumsum([0, *sizes])
        entities = [keys.own[first:last] for first, last in pairwise(ends)]
        now, places, states = State.empty(keys.size), [], []
        for joined, chunk in enumerate(np.argsort(newest, kind="stable"), start=1):
            own = entities[chunk]
            state = now.at(own).joined(found[chunk], step)
            now = State(*(_put(array, own, new) for array, new in zip(_arrays(now), _arrays(state), strict=True)))
            places.append(own * (len(parts) + 1) + joined)
            states.append(state)
        place = np.concatenate([np.empty(0, dtype="int64"), *places])
        order = np.argsort(place)
        every = [
            np.concatenate([_arrays(State.empty(0))[field], *(_arrays(s)[field] for s in states)]) for field in range(4)
        ]
        return cls(step, keys, place[order], State(*(array[order] for array in every)), newest, entities)

    def joined(self, before: int) -> int:
        """Return how many chunks lie wholly before an instant."""
        return int((self.newest < before).sum())

    def look(self, entities: np.ndarray, before: int) -> State:
        """Return the states of entities from all chunks that lie wholly before an instant."""
        chunks = len(self.newest) + 1
        wanted = entities * chunks + self.joined(before)
        found = np.searchsorted(self.place, wanted, "right") - 1
        fits = (found >= 0) & (entities >= 0)
        fits &= (
            np.where(fits, self.place[np.maximum(found, 0)] // chunks == entities, False) if len(self.place) else False
        )
        return self.states.at(np.where(fits, found, -1))

    def digest(self, first: int, last: int, before: int) -> str:
        """Return the digest of what is carried to the entities of chunks [first, last)."""
        own = np.unique(np.concatenate([np.empty(0, dtype="int64"), *self.entities[first:last]]))
        return digest([pack(array) for array in _arrays(self.look(own, before))])


def _arrays(state: State) -> list[np.ndarray]:
    return [state.time, state.row, state.total, state.weight]


def _put(array: np.ndarray, places: np.ndarray, values: np.ndarray) -> np.ndarray:
    array = array.copy()
    array[places] = values
    return array


def _unpacked(texts: Sequence[str]) -> list[np.ndarray]:
    return [unpack(text, kind) for text, kind in zip(texts, ("int64", "int64", "float64", "float64"), strict=True)]
