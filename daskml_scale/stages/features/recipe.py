"""``dms.Recipe``: the class with which people fit and apply feature steps from Python.

Tables in a store run through the ``features`` stage, on the Dask client if there is one; tables in
memory run in this process with the same kernels. This module computes and runs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from daskml_scale import html
from daskml_scale.errors import SpecError, UsageError
from daskml_scale.spec.expressions import names
from daskml_scale.spec.folds import FoldsBy
from daskml_scale.spec.steps import Step
from daskml_scale.storage import files, stores
from daskml_scale.storage.urls import zarr_url

from . import frames
from .bound import Bound, bind, preview
from .explaining import Explanation, explanation, learning, reading
from .program import Program, parse_steps
from .running import scanned, written

if TYPE_CHECKING:
    import xarray as xr

Data = Any
"""An xarray Dataset, or the URL of one."""


class Recipe:
    """Feature steps, declared once and used for training and for prediction alike.

    Parameters
    ----------
    steps : iterable of Step or {name: settings}
        In order; a step may read features of earlier ones.
    known_at : str
        Expression: the instant at which a row must be predicted. Joins and windows read nothing later.
    target : str, optional
        Column to predict; it is written beside the features and no step may read it at the row itself.

    Raises
    ------
    SpecError
        When a step is wrong; the message names its position.

    Examples
    --------
    >>> recipe = Recipe([{"keep": {"of": ["distance"]}}], known_at="sched - hours(2)")
    >>> recipe.get_feature_names_out().tolist()
    ['distance']
    """

    def __init__(self, steps: Iterable[Step | Mapping[str, Any]], *, known_at: str, target: str | None = None) -> None:
        try:
            names(known_at)
        except ValueError as error:
            raise SpecError(str(error), path="known_at") from None
        given = steps if isinstance(steps, (list, tuple)) else list(steps)
        self._given: dict[str, Any] = {"steps": given, "known_at": known_at, "target": target}
        self._program = Program(parse_steps(given), known_at, target)
        self._derived: Mapping[str, Sequence[str]] = {}

    @property
    def steps(self) -> tuple[Step, ...]:
        return self._program.steps

    @property
    def known_at(self) -> str:
        return self._program.known_at

    @property
    def target(self) -> str | None:
        return self._program.target

    @property
    def fitted(self) -> bool:
        """Whether ``fit`` was called, or a fitted recipe loaded."""
        return self._program.categories is not None

    def fit(
        self,
        ds: Data,
        y: Any = None,
        *,
        where: str | None = None,
        tables: Mapping[str, Data] | None = None,
        folds: int | Mapping[str, Any] | None = None,
    ) -> Recipe:
        """Learn from the rows of ``where``, in one parallel pass of small statistics; return the recipe.

        Parameters
        ----------
        ds : xarray.Dataset, str, or DataFrame
            The table, or its URL. A DataFrame is what a scikit-learn ``Pipeline`` passes.
        y : array, optional
            With a DataFrame: the target, where it has no column of that name.
        where : str, optional
            Condition over its columns, such as ``sched < time('2013-10-01')``; all rows by default.
        tables : mapping of name to Dataset or URL, optional
            The other tables of lookup and as-of steps.
        folds : int or mapping, optional
            Keep the statistics apart for so many contiguous folds, or ``{"count": 5, "by": "tailnum"}``: rows of
            equal values are in one fold. :meth:`fold` then gives the recipe fitted without one of them, and
            ``transform`` of the same table writes those features too.

        Raises
        ------
        SpecError
            When a step does not fit the tables. Nothing was run.
        """
        program = replace(self._program.unfitted(), folds=_folds(folds))
        bound = bind(program, frames.dataset(ds, program, y), tables, where)
        self._program = scanned(bound).program
        self._derived = bound.planner.rows.attrs.get("derived_from") or {}
        return self

    def fold(self, number: int) -> Recipe:
        """Return the recipe fitted on the rows of all folds but one: from what ``fit`` kept, no row is read.

        Raises
        ------
        UsageError
            When it was not fitted with folds, or has no such fold.
        """
        return self._of(self._program.fold(number))

    def transform(
        self, ds: Data, out: str | os.PathLike[str] | None = None, *, tables: Mapping[str, Data] | None = None
    ) -> xr.Dataset:
        """Return the features of every row.

        Parameters
        ----------
        ds : xarray.Dataset or str
        out : str, optional
            URL ending in ``.zarr``: compute now, write there, and return that, opened. Its ledger lies
            beside it; a second call computes only what changed.
        tables : mapping of name to Dataset or URL, optional

        Returns
        -------
        xarray.Dataset, or DataFrame for a DataFrame
            Lazy. ``features`` (row, feature), the names ``feature``, the target and the key columns.

        Raises
        ------
        sklearn.exceptions.NotFittedError
        SpecError
        """
        if not self.fitted:
            from sklearn.exceptions import NotFittedError

            raise NotFittedError(
                "this Recipe is not fitted yet; call fit(ds) first, or load a fitted one with Recipe.load(path)"
            )
        if frames.is_frame(ds):
            # New rows have no target yet, and the one that was passed beside a DataFrame is not in it.
            bound = bind(replace(self._program, target=None), frames.dataset(ds, self._program), tables)
            return frames.features(bound, scanned(bound), ds.index)
        return self._applied(bind(self._program, ds, tables), out)

    def fit_transform(
        self,
        ds: Data,
        out: Any = None,
        *,
        where: str | None = None,
        tables: Mapping[str, Data] | None = None,
        folds: int | Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        """Fit on the rows of ``where``, then return the features of every row. See :meth:`fit`, :meth:`transform`.

        For a DataFrame the second argument is ``y``, as a scikit-learn ``Pipeline`` passes it.
        """
        if frames.is_frame(ds):
            return self.fit(ds, out, where=where, tables=tables, folds=folds).transform(ds, tables=tables)
        bound = bind(replace(self._program.unfitted(), folds=_folds(folds)), ds, tables, where)
        self._derived = bound.planner.rows.attrs.get("derived_from") or {}
        if out is None or not bound.stored:
            return self._applied(bind(scanned(bound).program, ds, tables), out)
        result = written(bound, out)
        self._program = Program.from_dict(stores.get_json(zarr_url(out), "recipe"))
        return result

    def _applied(self, bound: Bound, out: str | os.PathLike[str] | None) -> xr.Dataset:
        self._program = bound.planner.program
        return preview(bound, scanned(bound)) if out is None else written(bound, out)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features in order, shape (features,)."""
        return np.asarray(self._program.features, dtype=object)

    def set_output(self, *, transform: str | None = None) -> Recipe:
        """Take what a pipeline is asked for: of a DataFrame a recipe makes a DataFrame anyhow."""
        if transform not in (None, "default", "pandas"):
            raise UsageError(f"transform={transform!r}: a recipe makes DataFrames of pandas; use pandas, or default")
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the recipe, and what it learnt, as a JSON dict."""
        return self._program.to_dict()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Recipe:
        """Return the recipe of :meth:`to_json`."""
        return cls._of(Program.from_dict(value))

    @classmethod
    def _of(cls, program: Program) -> Recipe:
        recipe = cls(program.steps, known_at=program.known_at, target=program.target)
        recipe._program = program
        return recipe

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's arguments, as scikit-learn asks for them."""
        return dict(self._given)

    def set_params(self, **params: Any) -> Recipe:
        """Set arguments of the constructor; the recipe is unfitted then.

        Raises
        ------
        UsageError
            When there is no such argument.
        """
        unknown = sorted(set(params) - set(self._given))
        if unknown:
            raise UsageError(f"Recipe has no parameter {unknown[0]!r}; it has {', '.join(self._given)}")
        if params:
            self.__init__(**{**self._given, **params})  # type: ignore[misc]
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return self.fitted

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import Tags, TargetTags, TransformerTags

        return Tags(estimator_type="transformer", target_tags=TargetTags(required=False),
                    transformer_tags=TransformerTags())  # fmt: skip

    def explain(self, feature: str) -> Explanation:
        """Return how a feature is made, step by step, down to the columns of the tables.

        Raises
        ------
        UsageError
            When there is no such feature.
        """
        return explanation(self._program, feature, self._derived)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the recipe as a JSON file (URL or path)."""
        files.write_json(files.normal(path), self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """Read a recipe that :meth:`save` wrote.

        Raises
        ------
        UsageError
            When there is none.
        """
        value = files.read_json(files.normal(path))
        if not isinstance(value, dict):
            raise UsageError(f"{os.fspath(path)} holds no recipe; write one with Recipe.save(path)")
        return cls.from_json(value)

    def __repr__(self) -> str:
        state = "fitted" if self.fitted else "not fitted"
        count = f"{len(self.steps)} steps, {len(self._program.features)} features"
        return f"<Recipe: {count}, known at {self.known_at!r}, {state}>"

    def _repr_html_(self) -> str:
        rows = [
            (position, step.step, reading(step), _made(self._program, position), learning(self._program, position))
            for position, step in enumerate(self.steps)
        ]
        return html.table(("", "step", "reads", "makes", "learnt"), rows, title=repr(self).strip("<>"))


def _made(program: Program, position: int) -> str:
    names = program.outputs(position)
    found = ", ".join(names[:12]) + (f", ... ({len(names)})" if len(names) > 12 else "")
    return found or ("named in fit" if program.steps[position].names_learnt else "")


def _folds(asked: int | Mapping[str, Any] | None) -> FoldsBy | None:
    return None if asked is None else FoldsBy(**({"count": asked} if isinstance(asked, int) else asked))
