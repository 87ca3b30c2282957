"""The feature matrix as estimators need it: its identity for plans, its rows for kernels.

``search``, ``train`` and ``evaluate`` share these functions. Plans call :func:`check_matrix` and
:func:`matrix_inputs` (pure, on a snapshot); kernels call :func:`load_matrix`, which reads the wanted
rows once per process, and give each estimator a copy of its own (:func:`private`). Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.records import digest
from daskml_scale.plan.units import Snapshot, row_ranges
from daskml_scale.spec.expressions import Coded, Values, mask, missing, names
from daskml_scale.stages.estimator import did_you_mean
from daskml_scale.stages.features.seen import Seen

FEATURES, FEATURE_NAMES = "features", "feature"
"""Variables of a feature matrix: the values (row, feature), and the names of the features."""
_BLOCK = 65_536
"""Rows read at a time, in whole shards: what is held besides the result."""


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Rows of a feature matrix that have a target, in the order of the table.

    Attributes
    ----------
    X : ndarray of float32 or float64, shape (rows, features)
        Shared by all kernels of the process and read-only; an estimator gets :func:`private` rows.
    y : ndarray of float64, shape (rows,)
    columns : tuple of str
        Names of the features.
    keys : mapping of name to column, each of shape (rows,)
        The row-key columns that were asked for, decoded.
    seen : ndarray of bool, shape (rows,), or None
        The rows that the recipe of the features learnt from; ``None``: it learnt nothing, or from another table.
    """

    X: np.ndarray
    y: np.ndarray
    columns: tuple[str, ...]
    keys: Mapping[str, Values] = field(default_factory=dict)
    seen: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        return int(self.X.nbytes + self.y.nbytes + 8 * len(self.keys) * len(self.y))


def check_matrix(snapshot: Snapshot, where: str | None = None, columns: Sequence[str] = ()) -> str:
    """Return the target's name after checking that the matrix can be learnt from.

    Parameters
    ----------
    snapshot : Snapshot
    where : str, optional
        Condition on row-key columns.
    columns : sequence of str
        Other row-key columns that will be read.

    Raises
    ------
    PlanError
        When it is not a feature matrix, has no target, or a column is not among those it carries.
    """
    if FEATURES not in snapshot.variables:
        raise PlanError(f"{snapshot.url} is not a feature matrix (no variable {FEATURES!r}); name a features stage")
    target = str(snapshot.attrs.get("target") or "")
    if target not in snapshot.variables:
        raise PlanError(f"{snapshot.url} has no target; name one in the features stage (target: COLUMN)")
    for name in _key_columns(where, columns):
        if name not in _keys(snapshot):
            known = ", ".join(_keys(snapshot)) or "none"
            raise PlanError(
                f"{snapshot.url} carries no column {name!r}{did_you_mean(name, _keys(snapshot))}; "
                f"it carries the table's sort_by columns and its target: {known}"
            )
    return target


def _keys(snapshot: Snapshot) -> list[str]:
    carried = [*snapshot.attrs.get("row_key", []), snapshot.attrs.get("target"), "fold"]
    return [name for name in carried if name in snapshot.variables]


def _key_columns(where: str | None, columns: Sequence[str]) -> list[str]:
    return sorted({*columns, *(names(where) if where else ())})


def matrix_inputs(
    snapshot: Snapshot, where: str | None = None, columns: Sequence[str] = (), features: Sequence[str] = ()
) -> str:
    """Return the digest of all that :func:`load_matrix` reads with the same arguments; for fingerprints and caches.

    Which rows ``where`` selects is only known from the data, so every stored object of the
    variables read counts. ``features`` names those read in place of the common ones.
    """
    target = check_matrix(snapshot, where, columns)
    read = tuple(dict.fromkeys((*(features or (FEATURES,)), target, *_key_columns(where, columns))))
    recipe = snapshot.attrs.get("recipe_hash", "")
    return digest(snapshot.rows, where, recipe, [(name, snapshot.ids.get(name, ())) for name in read])


def matrix_bytes(snapshot: Snapshot) -> int:
    """Return the projected peak bytes of fitting on all rows of a matrix.

    The matrix, the copy that splitting it makes, and the float64 copy that many estimators make.
    """
    features = snapshot.variables[FEATURES]
    cells = features.shape[0] * int(np.prod(features.shape[1:]))
    return cells * (2 * features.itemsize + 8) + 8 * snapshot.rows * (2 + len(_keys(snapshot)))


def load_matrix(
    url: str, ids: str, where: str | None, worker: WorkerContext
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return the rows of ``where`` that have a target; read once per process.

    Parameters
    ----------
    url : str
        Of the feature matrix.
    ids : str
        From :func:`matrix_inputs`: equal ids mean equal data.
    where : str or None
        Condition over row-key columns, for example ``sched < time('2013-11-01')``; None takes all rows.
    worker : WorkerContext

    Returns
    -------
    X : ndarray, shape (rows, features)
        Read-only; in the type of the store.
    y : ndarray of float64, shape (rows,)
    columns : tuple of str
        Names of the features.
    """
    matrix = load_rows(url, ids, where, worker)
    return matrix.X, matrix.y, matrix.columns


def load_rows(
    url: str,
    ids: str,
    where: str | None,
    worker: WorkerContext,
    columns: Sequence[str] = (),
    features: str = FEATURES,
) -> Matrix:
    """Return :func:`load_matrix`'s rows together with the row-key ``columns``; ``features`` is the variable read."""
    key = ("matrix", url, ids, where, tuple(columns), features)
    return worker.cache.get(key, lambda: read_rows(url, where, columns, features), lambda matrix: matrix.nbytes)


def private(values: np.ndarray, rows: slice | np.ndarray | None = None) -> np.ndarray:
    """Return rows of a shared array that an estimator may change: always a writable copy.

    Estimators with ``copy=False`` change their input, and scikit-learn's trees take no read-only array
    where values are missing (1.9). :func:`matrix_bytes` counts this copy.

    Parameters
    ----------
    values : ndarray, shape (rows, ...)
    rows : slice or ndarray of int, optional
        All rows by default.
    """
    taken = values if rows is None else values[rows]
    return taken.copy() if np.may_share_memory(taken, values) else taken


def read_rows(url: str, where: str | None, columns: Sequence[str] = (), variable: str = FEATURES) -> Matrix:
    """Read the rows of ``where`` that have a target, block by block: only the wanted rows are held."""
    from daskml_scale.storage import stores
    from daskml_scale.storage.tables import read_columns

    # Not ``open_dataset``: its indexes are computed through Dask, and a task that does so waits for a free worker.
    group = stores.open_group(url, "r")
    target, features = group.attrs["target"], group[variable]
    keys = read_columns(url, _key_columns(where, [*columns, target]))
    wanted = _wanted(url, target, where, keys)
    X = np.empty((int(wanted.sum()), features.shape[1]), features.dtype)
    unit, done = (features.shards or features.chunks)[0], 0
    for start, stop in row_ranges(features.shape[0], max(1, _BLOCK // unit) * unit):
        chosen = wanted[start:stop]
        if count := int(chosen.sum()):
            X[done : done + count] = features[start:stop][chosen]
            done += count
    y = np.asarray(keys[target][wanted], dtype="float64")
    for array in (X, y):
        array.flags.writeable = False
    saw = group.attrs.get("saw")
    seen = None if saw is None else Seen.from_json(saw).mask(np.flatnonzero(wanted))
    return Matrix(X, y, columns_of(url), {name: keys[name][wanted] for name in columns}, seen)


def check_unseen(url: str, seen: np.ndarray | None, what: str, remedy: str) -> None:
    """Refuse to score rows that the recipe of their features learnt from.

    Parameters
    ----------
    seen : ndarray of bool or None
        Of the rows to be scored.

    Raises
    ------
    PlanError
    """
    if seen is not None and seen.any():
        raise PlanError(
            f"{int(seen.sum()):,} of the {len(seen):,} rows {what} are rows that the recipe of {url} learnt from, so "
            f"the score would be too good; {remedy}"
        )


def all_seen(snapshot: Snapshot) -> bool:
    """Return whether the recipe of a feature matrix learnt from every row of it."""
    saw = snapshot.attrs.get("saw")
    return saw is not None and snapshot.rows > 0 and saw["rows"] == snapshot.rows


def read_part(
    url: str, where: str | None, start: int, stop: int, *, features: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Read the rows of [start, stop) that match ``where`` and have a target: X, and y of float64.

    Without ``features`` X has no columns and nothing is read for it.
    """
    from daskml_scale.storage import stores
    from daskml_scale.storage.tables import read_columns

    group = stores.open_group(url, "r")
    target = group.attrs["target"]
    keys = read_columns(url, _key_columns(where, [target]), start, stop)
    wanted = ~missing(keys[target])
    if where:
        wanted &= mask(where, keys)
    y = np.asarray(keys[target][wanted], dtype="float64")
    X = group[FEATURES][start:stop][wanted] if features and len(y) else np.empty((len(y), 0))
    return X, y


def columns_of(url: str) -> tuple[str, ...]:
    """Return the names of the features of a matrix."""
    from daskml_scale.storage import stores

    return tuple(map(str, stores.open_group(url, "r")[FEATURE_NAMES][...]))


def _wanted(url: str, target: str, where: str | None, keys: Mapping[str, Values]) -> np.ndarray:
    """Return which rows match ``where`` and have a target; refuses when none does, saying which of the two it is."""
    known = ~missing(keys[target])
    matched = mask(where, keys) if where else np.ones_like(known)
    if where and len(known) and not matched.any():
        raise PlanError(f"{url}: none of the {len(known):,} rows matches where: {where}{_extent(where, keys)}")
    if not (matched & known).any():
        rows = f"{int(matched.sum()):,} rows{f' that match where: {where}' if where else ''}"
        raise PlanError(f"{url}: none of the {rows} has a value of the target {target!r}")
    return np.asarray(matched & known)


def _extent(where: str, keys: Mapping[str, Values]) -> str:
    """Return ``"; sched runs from 2013-01-01 to 2013-12-31"`` for the columns of a condition."""
    found = []
    for name in names(where):
        values = keys[name]
        if isinstance(values, Coded):
            found.append(f"{name} is one of {', '.join(values.labels[:10])}{', ...' * (len(values.labels) > 10)}")
        elif not missing(values).all():
            low, high = (str(bound).removesuffix(".000000000") for bound in (np.nanmin(values), np.nanmax(values)))
            found.append(f"{name} runs from {low} to {high}")
    return "".join(f"; {text}" for text in found)
