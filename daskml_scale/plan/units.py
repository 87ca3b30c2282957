"""Frozen records that pass between planning, dispatch and commit. No I/O, no clock.

A stage reads **snapshots** of its inputs, plans **units**, the engine returns **outcomes**, and the
driver commits them as ledger **records** (``plan.records``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from .why import Why


class Unit(NamedTuple):
    """The smallest piece of work that is dispatched, committed and reused.

    A named tuple and no dataclass: a stage may have millions, and a tuple is made three times as fast.

    Attributes
    ----------
    key : str
        Deterministic and unique within its stage, for example ``rows/000003``.
    payload : object
        Small (a few hundred bytes), picklable: indices, not data.
    weight : float
        Relative size, in the unit of the stage's duration estimate (seconds per weight).
    """

    key: str
    payload: Any = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one unit.

    Attributes
    ----------
    value : object
        What the kernel returned; ``None`` when it failed.
    error : str
        Empty, or one line naming the exception.
    traceback : str
        The remote traceback of a failed unit.
    seconds : float
        Kernel time on the worker.
    worker : str
        Name of the worker; ``local`` in process.
    """

    unit: Unit
    value: Any = None
    error: str = ""
    traceback: str = ""
    seconds: float = 0.0
    worker: str = "local"
    attempt: int = 1

    @property
    def ok(self) -> bool:
        return not self.error


@dataclass(frozen=True, slots=True)
class Variable:
    """Schema of one stored array.

    Attributes
    ----------
    dtype : str
        NumPy name, byte order of the machine: ``int64``, ``float32``.
    shape, chunks : tuple of int
        In elements, per dimension.
    shards : tuple of int or None
        Elements per shard; ``None`` where the chunk is the stored object.
    attrs : mapping
        JSON attributes (CF).
    """

    dtype: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)
    fill: Any = None
    """Value of elements never written; ``None`` means 0 or NaN by dtype."""
    codec: str = ""
    """How values are compressed, see ``storage.arrays.compressors``; empty is the usual way."""

    @property
    def write_unit(self) -> tuple[int, ...]:
        """Elements per stored object: the shard, else the chunk."""
        return self.shards or self.chunks

    @property
    def objects(self) -> tuple[int, ...]:
        """Stored objects per dimension."""
        return tuple(-(-size // unit) for size, unit in zip(self.shape, self.write_unit, strict=True))

    @property
    def itemsize(self) -> int:
        """Bytes per element; a pointer and a short text where the texts have no fixed length."""
        return 32 if self.dtype == "string" else np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A dataset as a plan sees it: schema and identities of its stored objects, no data.

    Attributes
    ----------
    ids : mapping
        Variable -> one id per stored object, in C order of the grid of objects: a digest of the encoded
        bytes and of the variable's dtype and attributes (what a code means is input too).
        Empty when the dataset is not written yet (a dry run): ``known`` is then False.
    """

    url: str
    dim: str
    """The row dimension."""
    rows: int
    variables: Mapping[str, Variable]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        return bool(self.ids)

    def later(self, name: str) -> Sequence[str]:
        """Return the ids of the objects of a variable; those that nobody knows yet are found when they are asked for.

        A tuple, where all are known; where not, a unit without a record to compare with need not wait for them.
        """
        later = getattr(self.ids, "later", None)
        found: Sequence[str] = self.ids.get(name, ()) if later is None or name not in self.ids else later(name)
        return found

    def row_ids(self, variables: Sequence[str], start: int, stop: int, *, later: bool = False) -> tuple[str, ...]:
        """Return the ids of the objects of ``variables`` that hold rows [start, stop); with ``later`` of no others."""
        found: list[str] = []
        for name in variables:
            variable = self.variables[name]
            size, width = variable.write_unit[0], prod(variable.objects[1:])
            ids = self.later(name) if later else self.ids.get(name, ())
            found.extend(ids[start // size * width : -(-stop // size) * width])
        return tuple(found)

    def region_ids(self, name: str, region: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
        """Return the ids of the objects of a variable that hold a region, in C order.

        Parameters
        ----------
        region : mapping of dimension to (start, stop)
            In elements; a dimension that it does not name is read whole.
        """
        variable, ids = self.variables[name], self.ids.get(name, ())
        offsets: tuple[int, ...] = (0,)
        for dim, size, unit, count in zip(
            variable.dims, variable.shape, variable.write_unit, variable.objects, strict=True
        ):
            start, stop = region.get(dim, (0, size))
            offsets = tuple(
                before * count + at for before in offsets for at in range(start // unit, -(-stop // unit))
            )  # fmt: skip
        return tuple(ids[offset] for offset in offsets) if ids else ()


@dataclass(frozen=True, slots=True)
class FileId:
    """An input file: its content hash, size in bytes, and where it is."""

    url: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Template:
    """A dataset to create before units write into it.

    Attributes
    ----------
    small : mapping
        Values of arrays that the driver writes at once (names of features, classes); their
        variables are in ``variables`` too.
    """

    dim: str
    rows: int
    variables: Mapping[str, Variable]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    small: Mapping[str, Any] = field(default_factory=dict)

    def snapshot(self, url: str) -> Snapshot:
        """Return the snapshot of this dataset before anything is written."""
        return Snapshot(url, self.dim, self.rows, self.variables, self.attrs)


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a fingerprint that all units of a pass share; each has its own reason when it changes."""

    code: str = ""
    model: str = ""
    parameters: str = ""
    schema: str = ""


Reads: TypeAlias = "str | Callable[[], str]"
"""Digest of what a unit reads, or what finds it once the unit has read it."""


class Needs(Protocol):
    """What the projected memory of a unit is made of."""

    def refusal(self, limit: int) -> str:
        """Return why it does not fit into ``limit`` bytes, and what would."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass of a stage: what to run now, what is reused, and why.

    Attributes
    ----------
    units : tuple of Unit
        To run, in order.
    inputs : mapping of key to str, or to what finds it
        Digest of the inputs that each unit in ``units`` reads, kept in its record to explain later re-runs. A function
        where they are identified only when they are read: called when the unit is committed.
    reused : int
        Units whose committed record is still valid.
    reasons : mapping of str to int
        Why units run -> how many: new, input changed, model changed, parameters changed, code changed, output schema
        changed, output missing, output torn, output altered, failed before, format changed.
    why : Why
        Why each unit in ``units`` runs.
    later : int
        Units expected in later passes of the same stage (an estimate, 0 when this is the last).
    shared : object
        Picklable; sent once per worker process and given to the kernel as ``worker.shared``.
    template : Template or None
        Dataset to create before the units run.
    grid : str
        For people: ``17 shards of 20,000 rows``.
    memory : int
        Projected peak bytes of one unit.
    need : Needs or None
        What these bytes are made of; a stage of blocks of a grid gives ``plan.memory.Need``.
    beside : mapping of str to Template
        Datasets to create before the units run that the stage removes when it is finished, by URL.
    rows : int
        Rows covered by all units of the pass, reused ones included.
    parts : Parts
        What all units of the pass share in their fingerprints.
    keys : tuple of str
        Every unit that the stage consists of so far: those of this pass and of earlier ones.
    """

    units: tuple[Unit, ...] = ()
    inputs: Mapping[str, Reads] = field(default_factory=dict)
    reused: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    why: Why = field(default_factory=Why)
    later: int = 0
    shared: Any = None
    template: Template | None = None
    grid: str = ""
    memory: int = 0
    need: Needs | None = None
    beside: Mapping[str, Template] = field(default_factory=dict)
    rows: int = 0
    parts: Parts = field(default_factory=Parts)
    keys: tuple[str, ...] = ()


def row_ranges(rows: int, size: int) -> list[tuple[int, int]]:
    """Split ``rows`` into ranges [start, stop) of ``size``; the last may be shorter."""
    return [(start, min(start + size, rows)) for start in range(0, rows, size)]


def row_key(start: int, size: int, prefix: str = "rows") -> str:
    """Return the key of the unit that starts at row ``start`` in a grid of ``size`` rows."""
    return f"{prefix}/{start // size:08d}"
