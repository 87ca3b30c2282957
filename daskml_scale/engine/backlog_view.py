"""``dms.backlog()``: what a cluster still has to do, for people. Asks the scheduler once and decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daskml_scale import html
from daskml_scale.errors import ClusterError, UsageError

from .backlog import read_backlog
from .client import current_client
from .reporter import installed

_HEADER = ("work", "kind", "units left", "runnable", "in flight", "seconds each", "seconds left", "needs")


@dataclass(frozen=True, slots=True)
class BacklogRow:
    """Work of one kind: a stage of ours, or the tasks of one name of other code.

    Attributes
    ----------
    kind : str
        ``stage`` or ``tasks``.
    units : int
        Not finished, those in flight included.
    runnable : int
        Of these, could run now if there were workers.
    in_flight : int
        Of these, on the cluster (``stage``) or on a worker (``tasks``).
    seconds_each : float or None
        Of one unit, measured; ``None`` when nobody knows yet.
    resources : mapping
        What one task needs.
    """

    name: str
    kind: str
    units: int
    runnable: int
    in_flight: int
    seconds_each: float | None
    resources: Mapping[str, float]

    @property
    def seconds(self) -> float | None:
        """Worker-seconds left; ``None`` when unknown."""
        return None if self.seconds_each is None else self.units * self.seconds_each

    def cells(self) -> tuple[object, ...]:
        """Return the cells of a table."""
        needs = ", ".join(f"{name} {amount:g}" for name, amount in self.resources.items())
        counts = (self.units, self.runnable, self.in_flight)
        return (self.name, self.kind, *counts, _brief(self.seconds_each), _brief(self.seconds), needs)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a cluster still has to do, at one moment.

    Attributes
    ----------
    time : float
        Of the scheduler, seconds since the epoch.
    rows : tuple of BacklogRow
        Stages first, each in the order of its last report.
    workers, slots, busy : int
        Workers, their threads, and workers that have something to do.
    """

    time: float
    rows: tuple[BacklogRow, ...]
    workers: int
    slots: int
    busy: int

    @property
    def seconds(self) -> float:
        """Worker-seconds left, as far as known."""
        return sum(row.seconds or 0.0 for row in self.rows)

    @property
    def units(self) -> int:
        """Units left."""
        return sum(row.units for row in self.rows)

    def _title(self) -> str:
        workers = f"{self.workers} worker{'s'[: self.workers != 1]} ({self.slots} slots, {self.busy} busy)"
        return f"Backlog: {self.units:,} units, {_brief(self.seconds)} worker-seconds; {workers}"

    def __repr__(self) -> str:
        lines = [_HEADER, *(tuple(_text(cell) for cell in row.cells()) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADER))]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([self._title(), *(line.rstrip() for line in table if self.rows)])

    def _repr_html_(self) -> str:
        return html.table(_HEADER, (row.cells() for row in self.rows), title=self._title())


def _brief(seconds: float | None) -> str:
    return "?" if seconds is None else f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def _text(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def of_snapshot(found: Mapping[str, Any]) -> Backlog:
    """Return the backlog of a scheduler's snapshot (``backlog.snapshot``)."""
    stages = [
        BacklogRow(
            row["stage"], "stage", row["units_left"], row["runnable"], row["in_flight"], row["seconds_per_unit"],
            row["resources"],
        )
        for row in found["stages"]
    ]  # fmt: skip
    tasks = [
        BacklogRow(
            row["prefix"], "tasks", row["waiting"] + row["ready"] + row["processing"], row["ready"] + row["processing"],
            row["processing"], row["seconds"], row["resources"],
        )
        for row in found["tasks"]
    ]  # fmt: skip
    workers = found["workers"]
    return Backlog(
        found["time"],
        (*stages, *tasks),
        len(workers),
        sum(worker["nthreads"] for worker in workers),
        sum(worker["processing"] > 0 for worker in workers),
    )


def backlog(client: Any | None = None) -> Backlog:
    """Return what a cluster still has to do: our stages, and the tasks of other code. A table in Jupyter.

    Parameters
    ----------
    client : distributed.Client, optional
        The default client if there is one.

    Raises
    ------
    UsageError
        When there is no client.
    ClusterError
        When the scheduler does not answer, or daskml-scale is not installed there.
    """
    used = current_client() if client is None else client
    if used is None:
        raise UsageError("there is no Dask client in this process; give one: dms.backlog(client)")
    if not installed(used):
        raise ClusterError(
            "the scheduler does not answer, or cannot import daskml_scale; check that it runs, and install the "
            "package there"
        )
    return of_snapshot(read_backlog(used))
