"""Kernels of the steps that look at one row at a time: arrays in, float64 features out.

Every value depends on its own row alone, so results do not depend on how a table is chunked. All but calendar
parts are written in the array API: NumPy arrays and those of another library (CuPy on a GPU) run through the
same lines, and the result is an array of the library that came in.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from daskml_scale.spec.expressions import Coded, Values

_PANDAS = {"dayofweek": "day_of_week", "dayofyear": "day_of_year"}
"""Names of parts in pandas where they differ from ours."""


def namespace(array: Any) -> Any:
    """Return the array library of an array, as the array API has it."""
    if isinstance(array, np.ndarray):  # most are, and asking takes as long as computing a block
        return _numpy()
    from array_api_compat import array_namespace

    return array_namespace(array)


@lru_cache(maxsize=1)
def _numpy() -> Any:
    from array_api_compat import array_namespace

    return array_namespace(np.empty(0))


def device(array: Any) -> Any:
    """Return where the values of an array are: on a GPU, say."""
    from array_api_compat import device as found

    return found(array)


def date_parts(instants: np.ndarray, parts: Sequence[str], zone: str) -> list[np.ndarray]:
    """Return calendar parts in a time zone; NaN where the instant is missing.

    Parameters
    ----------
    instants : ndarray of datetime64, shape (rows,)
        UTC.
    parts : sequence of str
        Of :data:`daskml_scale.spec.steps.DATE_PARTS`.
    zone : str
        IANA name; its rules decide hours around a change to or from summer time.
    """
    import pandas as pd

    local = pd.DatetimeIndex(instants.astype("datetime64[ns]")).tz_localize("UTC").tz_convert(zone)

    def part(name: str) -> np.ndarray:
        if name == "minute_of_day":
            return np.asarray(part("hour") * 60 + part("minute"))
        if name == "week":
            return np.asarray(local.isocalendar()["week"].to_numpy(dtype="float64", na_value=np.nan))
        return np.asarray(getattr(local, _PANDAS.get(name, name)), dtype="float64")

    return [part(name) for name in parts]


def cyclical(values: np.ndarray, period: float) -> list[np.ndarray]:
    """Return sine and cosine of ``2 pi values / period``, each of shape (rows,)."""
    xp = namespace(values)
    with np.errstate(invalid="ignore"):
        angle = values * (2 * np.pi / period)
        return [xp.sin(angle), xp.cos(angle)]


def ordinal(column: Coded, categories: Sequence[str], unknown: int) -> np.ndarray:
    """Return the position of each row's label in ``categories``; ``unknown`` for other labels and missing ones."""
    position = {label: float(code) for code, label in enumerate(categories)}
    return by_label(column, [position.get(label, float(unknown)) for label in column.labels], float(unknown))


def by_label(column: Coded, table: Sequence[float], absent: float) -> np.ndarray:
    """Return the number of each row's label, float64; ``absent`` where the category is missing."""
    xp, codes = namespace(column.codes), column.codes
    numbers = xp.asarray([*table, absent], dtype=xp.float64, device=device(codes))
    return xp.take(numbers, xp.where(codes < 0, len(table), codes))  # type: ignore[no-any-return]


def numbers(column: Values) -> np.ndarray:
    """Return a numeric column as float64; the column itself where it is."""
    if isinstance(column, Coded):
        raise TypeError("a column of categories is not numeric")
    if isinstance(column, np.ndarray) and column.dtype == np.float64:
        return column
    xp = namespace(column)
    if not xp.isdtype(column.dtype, ("bool", "integral", "real floating")):
        raise TypeError(f"a column of {column.dtype} is not numeric")
    return xp.astype(column, xp.float64, copy=False)  # type: ignore[no-any-return]


def spread(width: float) -> float:
    """Return what a step divides by: 1 for a column that is constant but for rounding (10 eps, as scikit-learn)."""
    return width if width >= 10 * np.finfo("float64").eps else 1.0
