"""``dms.Recipe``: the class with which people fit and apply feature steps from Python.

Tables in a store run through the ``features`` stage, on the Dask client if there is one; tables in
memory run in this process with the same kernels. This module joins those parts and computes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from daskml_scale import html
from daskml_scale.errors import SpecError, UsageError
from daskml_scale.plan.records import digest
from daskml_scale.spec.expressions import names
from daskml_scale.spec.steps import AsOf, EventStep, Lookup, Step
from daskml_scale.stages.claim import claim
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger

from .bound import Bound, bind, preview, write
from .planner import Ready
from .program import Program, parse_steps
from .stage import FeaturesStage

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
        self._program = Program(parse_steps(steps), known_at, target)

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

    def fit(self, ds: Data, *, where: str | None = None, tables: Mapping[str, Data] | None = None) -> Recipe:
        """Learn from the rows of ``where``, in one parallel pass of small statistics; return the recipe.

        Parameters
        ----------
        ds : xarray.Dataset or str
            The table, or its URL.
        where : str, optional
            Condition over its columns, such as ``sched < time('2013-10-01')``; all rows by default.
        tables : mapping of name to Dataset or URL, optional
            The other tables of lookup and as-of steps.

        Raises
        ------
        SpecError
            When a step does not fit the tables. Nothing was run.
        """
        self._program = self._scanned(bind(self._program.unfitted(), ds, tables, where)).program
        return self

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
        xarray.Dataset
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
        return self._applied(bind(self._program, ds, tables), out)

    def fit_transform(
        self,
        ds: Data,
        out: str | os.PathLike[str] | None = None,
        *,
        where: str | None = None,
        tables: Mapping[str, Data] | None = None,
    ) -> xr.Dataset:
        """Fit on the rows of ``where``, then return the features of every row. See :meth:`fit`, :meth:`transform`."""
        bound = bind(self._program.unfitted(), ds, tables, where)
        if out is None or not bound.stored:
            return self._applied(bind(self._scanned(bound).program, ds, tables), out)
        result = self._run(bound, out)
        self._program = Program.from_dict(stores.get_json(_zarr(out), "recipe"))
        return result

    def _applied(self, bound: Bound, out: str | os.PathLike[str] | None) -> xr.Dataset:
        self._program = bound.planner.program
        if out is not None and bound.stored:
            return self._run(bound, out)
        if out is None:
            return preview(bound, self._scanned(bound))
        from daskml_scale.stages.run import noted

        url = _zarr(out)
        with claim(url, "features", bound.reads):
            ready, rows = self._scanned(bound), bound.planner.rows.rows
            with noted(Path(url).stem, "features", 1, rows):  # in one go
                write(bound, ready, url)
        return stores.open_dataset(url)

    def _scanned(self, bound: Bound) -> Ready:
        """Run the fitting pass, and remember it within this process."""
        if not bound.stored:
            return bound.scan()
        scope = digest(bound.url, bound.tables, bound.planner.scan_parts())
        stage = self._stage(bound, f"memory://daskml-scale-recipes/{scope}.ledger", "fit", write=False)
        self._execute(stage, bound)
        return bound.planner.read(Ledger(stage.ledger).records())

    def _run(self, bound: Bound, out: str | os.PathLike[str]) -> xr.Dataset:
        url = _zarr(out)
        with claim(url, "features", bound.reads):
            self._execute(self._stage(bound, stores.beside(url, "ledger"), Path(url).stem, write=True), bound)
        return stores.open_dataset(url)

    @staticmethod
    def _stage(bound: Bound, ledger: str, name: str, *, write: bool) -> FeaturesStage:
        planner = bound.planner
        return FeaturesStage(name, ledger, bound.url, planner.program, bound.tables, planner.where, write=write)

    @staticmethod
    def _execute(stage: FeaturesStage, bound: Bound) -> None:
        from daskml_scale.engine.client import current_client
        from daskml_scale.stages.run import run_stage

        # Other processes cannot reach this one's memory.
        here = any(
            files.is_memory(url) for url in (bound.url, *bound.tables.values(), stage.ledger if stage.write else "")
        )
        run_stage(stage, client=None if here else current_client())

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the features in order, shape (features,)."""
        return np.asarray(self._program.features, dtype=object)

    def to_json(self) -> dict[str, Any]:
        """Return the recipe, and what it learnt, as a JSON dict."""
        return self._program.to_dict()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Recipe:
        """Return the recipe of :meth:`to_json`."""
        program = Program.from_dict(value)
        recipe = cls(program.steps, known_at=program.known_at, target=program.target)
        recipe._program = program
        return recipe

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
            (position, step.step, _reading(step), ", ".join(step.outputs())) for position, step in enumerate(self.steps)
        ]
        return html.table(("", "step", "reads", "makes"), rows, title=repr(self).strip("<>"))


def _reading(step: Step) -> str:
    """Return what a step reads, for people."""
    if isinstance(step, Lookup):
        return f"{step.table} by {step.key}"
    if isinstance(step, AsOf):
        return f"{step.table} by {', '.join((*step.match, step.their_time))}"
    if isinstance(step, EventStep):
        by = f" by {', '.join(step.match)}" if step.match else ""
        return f"earlier {step.of}, recorded at {step.at}{by}"
    return ", ".join(step.reads())


def _zarr(out: str | os.PathLike[str]) -> str:
    url = files.normal(out)
    if not url.endswith(".zarr"):
        raise UsageError(f"out={os.fspath(out)!r}: name it {os.fspath(out)}.zarr; its ledger is written beside it")
    return url
