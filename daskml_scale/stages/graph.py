"""A planned stage as the Dask task graph that it is: to look at, to execute by hand, to learn from.

The engine never builds this graph: it sends units in tasks of measured size. The graph has one task per unit, the
object that they share, and the dataset that must exist before them. Executing it gives what the kernel
returns; it writes what the kernel writes and commits nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import UsageError
from daskml_scale.plan.units import Plan, Unit
from daskml_scale.storage import stores

from .base import Stage

LIMIT = 20
"""Units shown when nobody says how many."""


@dataclass(frozen=True, slots=True)
class StageGraph:
    """The graph of one pass of a stage.

    Attributes
    ----------
    plan : Plan
        Of the pass that would run now.
    """

    stage: Stage
    plan: Plan

    def to_dask(self, limit: int | None = LIMIT) -> list[Any]:
        """Return the units as ``dask.delayed`` objects.

        Parameters
        ----------
        limit : int or None
            The first so many units; ``None`` for all (a million tasks are slow to build and slower to run).

        Returns
        -------
        list of dask.delayed.Delayed
            ``dask.compute(*found)`` gives what the kernel returns for each unit. Chunks are written, no ledger is.

        Raises
        ------
        UsageError
            When the limit is not positive.
        """
        import dask

        if limit is not None and limit < 1:
            raise UsageError(f"limit is {limit}; give a positive number of units, or None for all")
        name, template = self.stage.name, self.plan.template
        shared = dask.delayed(self.plan.shared, name=f"{name}-shared", pure=False, traverse=False)
        before = []
        if template is not None:
            create = partial(_create, stores.dataset_of(self.stage.ledger), template)
            before = [dask.delayed(create, name=f"{name}-create", pure=False)(dask_key_name=f"{name}-dataset")]
        return [
            dask.delayed(partial(_run, self.stage.kernel, unit), name=f"{name}-kernel-{unit.key}", pure=False)(
                shared, *before, dask_key_name=f"{name}-{unit.key}"
            )
            for unit in islice(self.plan.units, limit)
        ]

    def visualize(self, path: str | os.PathLike[str] | None = None, limit: int = LIMIT) -> Any:
        """Draw the graph.

        Parameters
        ----------
        path : str, optional
            ``plan.svg``, ``.png`` or ``.pdf`` (needs graphviz), or ``plan.dot``: its text form, which needs nothing.
        limit : int
            The first so many units.

        Returns
        -------
        IPython.display.Image or SVG, or what Dask returns without IPython; the path for ``.dot``

        Raises
        ------
        UsageError
            Without graphviz, naming what to install.
        """
        if path is not None and os.fspath(path).endswith(".dot"):
            from daskml_scale.storage import files

            files.write_bytes(files.normal(path), self.dot(limit).encode())
            return os.fspath(path)
        import dask

        target = None if path is None else os.fspath(path)
        try:
            return dask.visualize(*self.to_dask(limit), filename=target, optimize_graph=False)
        except (ImportError, RuntimeError, OSError) as error:
            if isinstance(error, OSError) and type(error).__name__ != "ExecutableNotFound":
                raise
            raise UsageError(
                "drawing needs graphviz: pip install graphviz, and the program dot (apt install graphviz); "
                "or write its text with visualize('plan.dot')"
            ) from error

    def dot(self, limit: int = LIMIT) -> str:
        """Return the graph in graphviz's text form."""
        name, total = self.stage.name, len(self.plan.units)
        units = [unit.key for unit in islice(self.plan.units, limit)]
        lines = [f"digraph {_quoted(name)} {{", "  rankdir=BT;", "  node [shape=box];", "  shared [shape=ellipse];"]
        sources = ["shared"]
        if self.plan.template is not None:
            lines.append(f"  dataset [label={_quoted(f'create {name}.zarr')}];")
            sources.append("dataset")
        lines.append(f"  ledger [label={_quoted(f'commit to {name}.ledger')}, style=dashed];")
        for unit in units:
            lines += [f"  {source} -> {_quoted(unit)};" for source in sources]
            lines.append(f"  {_quoted(unit)} -> ledger;")
        if total > len(units):
            lines.append(f"  more [label={_quoted(f'... and {total - len(units):,} more units')}, shape=plaintext];")
        return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'


def _run(kernel: Callable[[Unit, WorkerContext], Any], unit: Unit, shared: Any, *before: Any) -> Any:
    return kernel(unit, WorkerContext(shared=shared))


def _create(url: str, template: Any) -> str:
    stores.create(url, template)
    return url
