"""A pandas DataFrame as a table of a recipe, and its features as a DataFrame: for scikit-learn's ``Pipeline``.

Nothing is computed here; the rows keep their index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from daskml_scale.errors import UsageError

from .program import Program

if TYPE_CHECKING:
    from .bound import Bound
    from .planner import Ready


def is_frame(data: Any) -> bool:
    """Return whether data is a pandas DataFrame."""
    return type(data).__name__ == "DataFrame" and type(data).__module__.partition(".")[0] == "pandas"


def dataset(data: Any, program: Program, y: Any = None) -> Any:
    """Return a DataFrame as a Dataset in memory, with its target; other data as it is.

    Raises
    ------
    UsageError
        When ``y`` does not go with the data.
    """
    if not is_frame(data):
        if y is not None:
            raise UsageError("y is for a DataFrame; a Dataset has its target among its variables: leave y away")
        return data
    import xarray as xr

    columns = {str(name): _column(data[name]) for name in data.columns}
    if y is not None and program.target is not None and program.target not in columns:
        target = np.asarray(y, dtype="float64")
        if target.shape != (len(data),):
            raise UsageError(f"y has shape {target.shape}, the table {len(data)} rows; give one number for each")
        columns[program.target] = target
    return xr.Dataset({name: ("row", values) for name, values in columns.items()}, attrs={"row_dim": "row"})


def _column(series: Any) -> np.ndarray:
    import pandas as pd

    kind = series.dtype
    if isinstance(kind, pd.DatetimeTZDtype):
        series = series.dt.tz_convert(None)
        return np.asarray(series.to_numpy(), dtype="datetime64[ns]")
    if getattr(kind, "kind", "O") == "M":
        return np.asarray(series.to_numpy(), dtype="datetime64[ns]")
    if pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind):
        if pd.api.types.is_integer_dtype(kind) and not series.isna().any():
            return np.asarray(series.to_numpy(dtype="int64"))
        return np.asarray(series.to_numpy(dtype="float64", na_value=np.nan))
    values = series.astype(object)
    return np.asarray(values.where(values.notna(), None), dtype=object)


def features(bound: Bound, ready: Ready, index: Any) -> Any:
    """Return the features of all rows as a DataFrame of float64."""
    import pandas as pd

    rows, program = bound.planner.rows.rows, ready.program
    matrix = np.empty((0, len(program.features)))
    if rows:
        matrix = ready.transformer.matrix(0, rows, ready.halo(0, rows), dtype="float64")
    return pd.DataFrame(matrix, index=index, columns=list(program.features))
