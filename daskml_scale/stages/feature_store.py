"""Features of entities at given times, from the feature sets of a store: for training, and for prediction.

``historical`` answers for any (entity, time): the newest row of the entity that was known by then, never a later
one. ``latest`` is the same question asked for now, so both give equal values. Keys and times of a set are read
whole; of the matrix only the rows that are asked for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from daskml_scale.artifacts.feature_sets import Catalogue, FeatureVersion
from daskml_scale.errors import StoreError, UsageError
from daskml_scale.spec.base import seconds
from daskml_scale.spec.explain import nearest
from daskml_scale.spec.expressions import Coded, Values
from daskml_scale.storage import files, stores, tables

from .feature_set import described
from .features.keys import Keys
from .features.timeline import Timeline
from .matrix import FEATURES

if TYPE_CHECKING:
    import pandas as pd

ROW_TIME = "{name}__time"
"""Column that says when the row of a set was known."""


@dataclass(frozen=True)
class Wanted:
    """One set of which features are asked for.

    Attributes
    ----------
    name : str
    version : FeatureVersion
    features : tuple of str
    """

    name: str
    version: FeatureVersion
    features: tuple[str, ...]


class FeatureSets:
    """The feature sets of a store.

    Parameters
    ----------
    store : str
        URL of the store's root.

    Examples
    --------
    >>> sets = dms.feature_sets("runs/fleet")                                  # doctest: +SKIP
    >>> sets.historical(frame[["vehicle", "time"]], ["fleet-health"])          # doctest: +SKIP
    >>> sets.latest(frame[["vehicle"]], ["fleet-health:vibration_mean_last_24"])  # doctest: +SKIP
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.catalogue = Catalogue(files.normal(store))

    def list(self) -> list[dict[str, Any]]:
        """Return name, newest version, entity, time and number of features of every set."""
        found = []
        for name in self.catalogue.names():
            newest = self.catalogue.get(name).get()
            found.append({"name": name, "version": newest.number, "entity": list(newest.entity), "time": newest.time,
                          "features": len(newest.features)})  # fmt: skip
        return found

    def show(self, name: str) -> Sequence[dict[str, Any]]:
        """Return all versions of a set, newest first."""
        return [{**asdict(version), "entity": list(version.entity), "features": list(version.features)}
                for version in reversed(self.catalogue.get(name).versions)]  # fmt: skip

    def register(
        self,
        name: str,
        matrix: str | os.PathLike[str],
        *,
        entity: str | Sequence[str],
        time: str,
        within: str | None = None,
    ) -> int:
        """Register a feature matrix as the newest version of a set, and return the version's number.

        Parameters
        ----------
        name : str
            A plain word.
        matrix : str
            URL of what a ``features`` stage, or ``Recipe.transform(out=)``, wrote.
        entity : str or sequence of str
            Key columns of the matrix that name an entity.
        time : str
            Key column that says when a row's features are known.
        within : str, optional
            How old a row may be and still count: ``7d``.

        Raises
        ------
        PlanError
            When the matrix has no such key columns, or its features are not known at ``time``.
        """
        columns = (entity,) if isinstance(entity, str) else tuple(entity)
        version = described(files.normal(matrix), columns, time, within)
        return self.catalogue.register(_word(name), version).number

    def historical(self, entities: Any, names: str | Sequence[str], *, time: str = "time") -> pd.DataFrame:
        """Return features as they were known at given times.

        Parameters
        ----------
        entities : pandas.DataFrame
            One row per question: the entity columns of the sets, and a time.
        names : str or sequence of str
            ``SET``, ``SET:FEATURE``, ``SET@2`` or ``SET@2:FEATURE``.
        time : str
            Column of the times in ``entities``.

        Returns
        -------
        pandas.DataFrame
            The columns of ``entities``, then the features, missing where nothing was known, and
            ``<set>__time``: when the row that was found was known. In the order of ``entities``.
        """
        frame = _frame(entities)
        if time not in frame.columns:
            raise UsageError(f"the entities have no column {time!r}; name the one of the times by time=")
        return self._answer(frame, _times(frame[time], time), names)

    def latest(self, entities: Any, names: str | Sequence[str]) -> pd.DataFrame:
        """Return the newest features of entities, for a prediction now. See :meth:`historical`."""
        frame = _frame(entities)
        now = np.full(len(frame), np.datetime64(int(time.time() * 1e9), "ns"))
        return self._answer(frame, now, names)

    def _answer(self, frame: pd.DataFrame, times: np.ndarray, names: str | Sequence[str]) -> pd.DataFrame:
        import pandas as pd

        wanted = [self._wanted(text) for text in ([names] if isinstance(names, str) else names)]
        made: dict[str, np.ndarray] = {}
        for each in wanted:
            clash = set(each.features).intersection((*frame.columns, *made))
            if clash:
                raise UsageError(
                    f"{min(clash)!r} is asked for twice, or is a column of the entities; rename or leave it out"
                )
            made.update(self._features(each, frame, times))
        return pd.concat([frame, pd.DataFrame(made, index=frame.index)], axis=1)

    def _wanted(self, text: str) -> Wanted:
        left, _, feature = text.partition(":")
        name, _, number = left.partition("@")
        if number and not number.isdigit():
            raise UsageError(f"{text!r}: write SET, SET:FEATURE, SET@2 or SET@2:FEATURE")
        version = self.catalogue.get(name).get(int(number) if number else None)
        if feature and feature not in version.features:
            known = ", ".join(version.features[:20])
            raise UsageError(
                f"feature set {name} has no {feature!r}{nearest(feature, version.features)}; it has {known}"
            )
        return Wanted(name, version, (feature,) if feature else version.features)

    def _features(self, wanted: Wanted, frame: pd.DataFrame, times: np.ndarray) -> dict[str, np.ndarray]:
        version, url = wanted.version, self.catalogue.matrix(wanted.version)
        self._check_recipe(wanted, url)
        absent = [name for name in version.entity if name not in frame.columns]
        if absent:
            raise UsageError(f"the entities have no column {absent[0]!r}, by which {wanted.name} knows them")
        columns = tables.read_columns(url, [*version.entity, version.time])
        known = np.asarray(columns[version.time])
        asked = [_column(frame[name], columns[name], name) for name in version.entity]
        row, found = newest([columns[name] for name in version.entity], known, asked, times, version.within)
        values = _rows(url, row, found, [version.features.index(name) for name in wanted.features])
        made = {name: values[:, at] for at, name in enumerate(wanted.features)}
        when = np.full(len(times), np.datetime64("NaT", "ns"))
        when[found] = known[row[found]].astype("datetime64[ns]")
        return {**made, ROW_TIME.format(name=wanted.name): when}

    def _check_recipe(self, wanted: Wanted, url: str) -> None:
        if not stores.exists(url):
            raise StoreError(f"{url}, which feature set {wanted.name} points to, is gone; run the stage that writes it")
        attrs = stores.open_group(url).attrs
        if attrs.get("recipe_hash") != wanted.version.recipe:
            raise StoreError(
                f"{url} was written by recipe {str(attrs.get('recipe_hash'))[:12]}, version {wanted.version.number} of "
                f"{wanted.name} is of {wanted.version.recipe[:12]}: its values were written over; use the newest "
                "version, or keep versions apart by features stages of different names"
            )


def newest(
    entity: Sequence[Values], known: np.ndarray, asked: Sequence[Values], times: np.ndarray, within: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the newest row of each entity that was known at a time, and whether there is one.

    Parameters
    ----------
    entity, known :
        Columns of the set, each of shape (rows,).
    asked, times :
        The questions, each of shape (questions,).
    within : str
        How old a row may be; empty for any age.
    """
    keys = Keys(entity, len(known))
    timeline = Timeline(keys.own, known)
    groups = keys.encode(asked, len(times))
    stop = timeline.count(groups, times)
    if within:
        start = timeline.count(groups, times - np.timedelta64(round(seconds(within) * 1e9), "ns"), inclusive=False)
    else:
        start = timeline.first(groups)
    found = (stop > start) & (groups >= 0) & ~np.isnat(times)
    rows = np.append(timeline.order, 0)
    return rows[np.where(found, stop - 1, len(rows) - 1)], found


def _rows(url: str, row: np.ndarray, found: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Return rows of the matrix, NaN where none was found; each stored object is read at most once."""
    variable = stores.schema(url, FEATURES)
    out = np.full((len(row), len(columns)), np.nan, dtype=variable.dtype)
    unit, rows = variable.write_unit[0], variable.shape[0]
    for block in np.unique(row[found] // unit):
        start, stop = int(block) * unit, min(rows, (int(block) + 1) * unit)
        here = found & (row // unit == block)
        out[here] = stores.read_region(url, FEATURES, [(start, stop)])[row[here] - start][:, columns]
    return out


def _frame(entities: Any) -> pd.DataFrame:
    import pandas as pd

    if not isinstance(entities, pd.DataFrame):
        raise UsageError(f"entities are a {type(entities).__name__}; give a pandas DataFrame, a row per question")
    return entities


def _times(column: Any, name: str) -> np.ndarray:
    import pandas as pd

    try:
        found = pd.to_datetime(column, utc=True).dt.tz_localize(None)
    except (TypeError, ValueError) as error:
        why = str(error).partition("\n")[0].partition(" You might")[0]
        raise UsageError(
            f"column {name!r} of the entities holds no times: {why} Make times of it first, by pandas.to_datetime"
        ) from None
    return np.asarray(found, dtype="datetime64[ns]")


def _column(given: Any, stored: Values, name: str) -> Values:
    """Return an entity column of the questions in the kind of the stored one.

    Raises
    ------
    UsageError
        When it is of another kind.
    """
    if isinstance(stored, Coded):
        return tables.categorize(given.astype("object").to_numpy())
    values = given.to_numpy()
    if stored.dtype.kind == "M":
        return _times(given, name)
    if values.dtype.kind not in "iufb":
        raise UsageError(f"column {name!r} of the entities is {values.dtype}, in the set {stored.dtype}")
    return np.asarray(values)


def _word(name: str) -> str:
    from pydantic import TypeAdapter, ValidationError

    from daskml_scale.spec.base import Word

    try:
        return str(TypeAdapter(Word).validate_python(name))
    except ValidationError:
        raise UsageError(f"{name!r} is no name of a feature set; use letters, digits, '_' and '-'") from None


def feature_sets(store: str | os.PathLike[str]) -> FeatureSets:
    """Return the feature sets of a store: ``list``, ``show``, ``register``, ``historical``, ``latest``."""
    return FeatureSets(store)
