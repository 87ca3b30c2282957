"""Tables in memory: decoded columns of a dataset, and their encoding for storage.

| kind     | stored as                                        | in memory                     |
|----------|--------------------------------------------------|-------------------------------|
| time     | int64, CF ``units`` since 1970, ``_FillValue``   | datetime64[ns], NaT           |
| category | int32 codes, -1 missing, ``flag_values`` ... (CF)| ``Coded``                     |
| number   | int64 or float64                                 | the same, NaN                 |
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError
from daskml_scale.plan.units import Variable
from daskml_scale.spec.expressions import Coded, Values

NO_TIME = -(2**63)
"""Stored for a missing time; also what NumPy uses for NaT."""
_UNITS = {"seconds since 1970-01-01": 10**9, "nanoseconds since 1970-01-01": 1}


@dataclass(frozen=True, slots=True)
class ColumnType:
    """How one column is stored.

    Attributes
    ----------
    dtype : str
    attrs : mapping
        CF attributes, ``categories`` for the exact labels.
    fill : object
    """

    dtype: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    fill: Any = None

    def variable(self, dim: str, rows: int, chunk: int) -> Variable:
        """Return the schema of a column of a table with ``rows`` rows in chunks of ``chunk``."""
        return Variable(self.dtype, (dim,), (rows,), (max(1, min(chunk, rows)),), None, dict(self.attrs), self.fill)


def column_type(values: Values) -> ColumnType:
    """Return how a column is stored: whole seconds where all its times are, float64 for logic and fractions."""
    if isinstance(values, Coded):
        return ColumnType(
            "int32",
            {
                "flag_values": list(range(len(values.labels))),
                "flag_meanings": " ".join("_".join(label.split()) or "_" for label in values.labels),
                "categories": list(values.labels),
            },
            -1,
        )
    if values.dtype.kind == "M":
        ns = values.astype("datetime64[ns]").view("int64")
        whole = not np.any(ns[~np.isnat(values)] % 10**9)
        units = "seconds since 1970-01-01" if whole else "nanoseconds since 1970-01-01"
        return ColumnType("int64", {"units": units, "calendar": "proleptic_gregorian", "_FillValue": NO_TIME}, NO_TIME)
    if values.dtype.kind == "u" and len(values) and values.max() > np.iinfo("int64").max:
        raise PlanError(f"an integer column goes up to {values.max()}, beyond int64; read it as text, or leave it out")
    if values.dtype.kind in "iu":
        return ColumnType("int64")
    if values.dtype.kind in "fb":
        return ColumnType("float64")
    raise PlanError(f"a column of type {values.dtype} cannot be stored; use numbers, times or text")


def encode(values: Values, kind: ColumnType) -> np.ndarray:
    """Return the stored form of a column, shape (rows,)."""
    if isinstance(values, Coded):
        return values.codes.astype("int32")
    if values.dtype.kind == "M":
        ns = values.astype("datetime64[ns]").view("int64")
        factor = _UNITS[kind.attrs["units"]]
        return ns if factor == 1 else np.where(ns == NO_TIME, NO_TIME, ns // factor)
    return values.astype(kind.dtype)


def decode(raw: np.ndarray, attrs: Mapping[str, Any]) -> Values:
    """Return the in-memory form of stored values."""
    if "categories" in attrs:
        return Coded(raw, tuple(attrs["categories"]))
    factor = _UNITS.get(str(attrs.get("units", "")))
    if factor is not None and raw.dtype.kind == "i":
        ns = raw.astype("int64", copy=False)
        if factor != 1:
            absent = ns == NO_TIME
            ns = ns * factor
            if absent.any():
                ns[absent] = NO_TIME
        return ns.view("datetime64[ns]")
    if str(attrs.get("units", "")).split(" since ")[0] in ("days", "hours", "minutes", "seconds", "milliseconds"):
        return _decode_cf(raw, attrs)
    return raw


def dates(raw: np.ndarray, attrs: Mapping[str, Any]) -> np.ndarray:
    """Return stored times as xarray decodes them: datetime64, or dates of another calendar (noleap, 360_day).

    Raises
    ------
    PlanError
        When cftime is needed, which has the other calendars.
    """
    import xarray as xr

    try:
        return np.asarray(xr.decode_cf(xr.Dataset({"x": ("row", raw, dict(attrs))}))["x"].values)
    except ValueError as error:
        if "cftime" not in str(error):
            raise
        calendar = attrs.get("calendar", "standard")
        raise PlanError(
            f"times in {attrs.get('units')!r} of the calendar {calendar!r} need cftime: pip install "
            "'daskml-scale[netcdf]', here and on the workers"
        ) from None


def nanoseconds(found: np.ndarray) -> np.ndarray:
    """Return dates as datetime64[ns]; a day that other calendars have alone (30 February) as the last of its month.

    Raises
    ------
    PlanError
        When a year does not fit: names it and the remedy.
    """
    if found.dtype.kind == "M" and np.datetime_data(found.dtype)[0] == "ns":
        return found
    if found.dtype.kind == "O":
        days = [(d.year, d.month, min(d.day, monthrange(max(d.year, 1), d.month)[1])) for d in found]
        hours = [f"T{d.hour:02d}:{d.minute:02d}:{d.second:02d}" for d in found]
        texts = [f"{y:04d}-{m:02d}-{d:02d}{hour}" for (y, m, d), hour in zip(days, hours, strict=True)]
        found = np.array(texts, dtype="datetime64[s]")
    years = found.astype("datetime64[Y]").astype("int64")[~np.isnat(found)] + 1970
    odd = years[(years < 1678) | (years > 2261)]
    if odd.size:
        raise PlanError(
            f"a time of the year {odd[0]}: nanoseconds reach from 1678 to 2261; shift the times in the file"
        )
    return found.astype("datetime64[ns]")


def _decode_cf(raw: np.ndarray, attrs: Mapping[str, Any]) -> np.ndarray:
    different, places = np.unique(raw, return_inverse=True)  # many rows of one time
    return nanoseconds(dates(different, attrs))[places].reshape(raw.shape)


def kind_of(variable: Variable) -> str:
    """Return ``category``, ``time``, ``number`` or ``other`` of a stored column."""
    if "categories" in variable.attrs:
        return "category"
    if " since " in str(variable.attrs.get("units", "")):
        return "time"
    return "number" if variable.dtype != "string" and np.dtype(variable.dtype).kind in "iufb" else "other"


def read_columns(url: str, names: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, Values]:
    """Read rows [start, stop) of the named columns, decoded; all rows by default.

    Returns
    -------
    dict of name to array of shape (stop - start,)
    """
    from . import stores

    columns: dict[str, Values] = {}
    for name in names:
        variable = stores.schema(url, name)
        raw = stores.read_region(url, name, [(start, variable.shape[0] if stop is None else stop)])
        columns[name] = decode(raw, variable.attrs)
    return columns


def from_dataset(ds: Any, names: Sequence[str] | None = None) -> dict[str, Values]:
    """Return the decoded columns of an xarray Dataset (its one-dimensional variables by default).

    Text becomes a category with sorted labels; ``None`` and NaN in it are missing.
    """
    wanted = [str(name) for name, variable in ds.variables.items() if variable.ndim == 1] if names is None else names
    columns: dict[str, Values] = {}
    for name in wanted:
        if name not in ds.variables:
            raise PlanError(f"the dataset has no variable {name!r}; it has {', '.join(sorted(map(str, ds.variables)))}")
        variable = ds.variables[name]
        values = np.asarray(variable.values)
        if "categories" in variable.attrs:
            columns[name] = Coded(values.astype("int32"), tuple(variable.attrs["categories"]))
        elif values.dtype.kind in "OUST":
            columns[name] = categorize(values)
        elif values.dtype.kind == "M":
            columns[name] = values.astype("datetime64[ns]")
        elif values.dtype.kind == "b":
            columns[name] = values.astype("float64")
        else:
            columns[name] = values
    return columns


def categorize(values: Any) -> Coded:
    """Return text as a category with sorted labels; missing values get code -1."""
    import pandas as pd

    codes, labels = pd.factorize(pd.Series(values), sort=True)
    return Coded(np.asarray(codes, dtype="int32"), tuple(str(label) for label in labels))
