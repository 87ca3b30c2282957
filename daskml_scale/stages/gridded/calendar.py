"""Which times of a cube belong together: the calendar month or day of the year of every time step.

Made from the time coordinate alone, once per process that needs it; it refuses one that climatologies and lags
cannot rest on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError
from daskml_scale.plan.records import digest
from daskml_scale.spec.expressions import Coded, mask
from daskml_scale.storage import tables

GROUPS = {"month": 12, "dayofyear": 366}
"""Kind of climatology -> number of its groups."""


@dataclass(frozen=True, eq=False)
class Calendar:
    """Groups of the time steps.

    Attributes
    ----------
    groups : mapping of kind to ndarray of int, shape (times,)
        Of every time step, from 0.
    fit : ndarray of bool, shape (times,)
        The times that climatologies are learnt from.
    """

    groups: Mapping[str, np.ndarray]
    fit: np.ndarray

    @classmethod
    def of(
        cls, name: str, raw: np.ndarray, attrs: Mapping[str, Any], kinds: tuple[str, ...], where: str | None
    ) -> Calendar:
        """Look at the time coordinate.

        Parameters
        ----------
        name : str
            Of the coordinate.
        raw : ndarray, shape (times,)
            As stored.
        attrs : mapping
            Of the coordinate: units and calendar (CF), by which months and days of the year are told.
        kinds : tuple of str
            Keys of ``GROUPS``.
        where : str or None
            Condition on the time.

        Raises
        ------
        PlanError
            When these are no rising times, or ``where`` selects none.
        """
        import xarray as xr

        times = tables.decode(raw, attrs)
        if isinstance(times, Coded) or times.dtype.kind != "M":
            raise PlanError(f"{name} holds no times, so there are no months; give it CF units such as days since")
        stays = raw[1:] <= raw[:-1]  # as numbers, perhaps unsigned: 360_day has days that datetime64 has not
        if np.isnat(times).any() or stays.any():
            at = int(np.argmax(np.append(stays, True)))
            raise PlanError(f"{name} does not rise at position {at + 1:,}; sort the cube by time, without duplicates")
        when = xr.DataArray(tables.dates(raw, attrs), dims=name).dt
        found = {kind: getattr(when, kind).values - 1 for kind in kinds}
        fit = mask(where, {name: times}) if where else np.ones(len(times), dtype=bool)
        if kinds and len(times) and not fit.any():
            raise PlanError(
                f"none of the {len(times):,} times is selected by {where!r}: there is nothing to learn from"
            )
        return cls({kind: np.asarray(found[kind], dtype="int64") for kind in kinds}, np.broadcast_to(fit, len(times)))

    def identities(self, block: int) -> list[str]:
        """Return what tells the months of a block of time from others, block by block: more times change no other."""
        starts = range(0, len(self.fit), block)
        groups = sorted(self.groups.items())
        return [
            digest(
                [(kind, found[at : at + block].tolist()) for kind, found in groups], self.fit[at : at + block].tolist()
            )
            for at in starts
        ]

    def learnt(self, kind: str, start: int, stop: int) -> np.ndarray:
        """Return the groups of times [start, stop), -1 for those that are not learnt from."""
        return np.where(self.fit[start:stop], self.groups[kind][start:stop], -1)
