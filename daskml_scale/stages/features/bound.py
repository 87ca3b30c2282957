"""A recipe bound to actual data for ``Recipe``: tables in a store, in memory, or mixed.

Only tables that all lie in a store can run as a stage; the others are read, computed and written in
this process, chunk by chunk, with the same planner and kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from daskml_scale.errors import UsageError
from daskml_scale.plan.records import digest
from daskml_scale.plan.units import Snapshot, Variable
from daskml_scale.spec.expressions import Coded, Values
from daskml_scale.spec.workflow import ROWS_PER_CHUNK, MatrixOut
from daskml_scale.stages.inputs import require
from daskml_scale.storage import files, stores, tables
from daskml_scale.storage.ledger import Ledger

from .bounds import Ranges
from .kernels import numbers
from .planner import Ready, RecipePlanner
from .program import Program
from .stage import FEATURES, FOLD, NAMES, Layout, fold_features
from .transformer import MemoryTable, RowTransformer, Table

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, eq=False)
class Bound:
    """A recipe and where its tables are.

    Attributes
    ----------
    planner : RecipePlanner
    url : str
        Of the rows; empty when they are in memory.
    tables : mapping of name to str
        URLs of the other tables; empty for those in memory.
    data : object
        The rows as they were given.
    reads : sequence of (argument, URL)
        Everything in a store that the data comes from, changed since it was opened or not.
    """

    planner: RecipePlanner
    url: str
    tables: Mapping[str, str]
    data: Any
    reads: Sequence[tuple[str, str]]

    @property
    def stored(self) -> bool:
        """Whether all tables lie in a store, so that a stage can run on them."""
        return bool(self.url) and all(self.tables.values())

    def scan(self) -> Ready:
        """Run the fitting pass in this process."""
        from daskml_scale.stages.accounting import noted

        planner = self.planner
        units = [unit for unit, _ in planner.scan_units()]
        with noted("fit", "features", len(units), planner.rows.rows):
            results = {unit.key: planner.transformer.scan_unit(unit) for unit in units}
            scans = [results[unit.key] for unit in units if unit.key.startswith("fit/")]
            ready = planner.fold(scans)
            models = {
                str(unit.payload[1]): ready.transformer.scan_unit(unit) for unit, _ in planner.model_units(ready)
            }  # fmt: skip
        return planner.fold(scans, models) if models else ready


def bind(program: Program, ds: Any, others: Mapping[str, Any] | None = None, where: str | None = None) -> Bound:
    """Look at the tables and check that the recipe fits them.

    Raises
    ------
    SpecError
        Before anything is run.
    """
    others = others or {}
    needed = {*program.row_columns, *program.event_columns, *program.scan_columns(where), program.target or ""}
    urls: dict[str, str] = {}
    sources: dict[str, Table] = {}
    reads: list[tuple[str, str]] = []
    snapshots: dict[str, Snapshot] = {}
    wanted = {
        "": (ds, needed),
        **{name: (others[name], {*columns}) for name, columns in program.tables.items() if name in others},
    }
    for name, (data, columns) in wanted.items():
        argument = f"tables[{name!r}]" if name else "ds"
        urls[name] = _url(data, argument)
        reads += [(argument, url) for url in origins(data, urls[name])]
        if urls[name]:
            snapshots[name] = _look(urls[name])
        else:
            snapshots[name], sources[name] = _from_memory(data, columns)
    rows = snapshots.pop("")
    planner = RecipePlanner(program, rows, snapshots, where, sources)
    planner.check()
    own = _own_in_memory(planner, {name: data for name, (data, _) in wanted.items()})
    if own:
        planner = replace(planner, own_in_memory=own)
        planner.check()
    return Bound(planner, urls.pop(""), urls, ds, reads)


def _own_in_memory(planner: RecipePlanner, given: Mapping[str, Any]) -> frozenset[str]:
    """Return the tables that are the rows themselves, by what they hold, where one of the two is in memory."""
    found, rows = set(), planner.rows
    for name, columns in planner.program.tables.items():
        alike = planner.tables[name].rows == rows.rows and all(column in rows.variables for column in columns)
        here = planner.sources.keys() & {"", name}
        if alike and here and not set(planner.withheld).isdisjoint(columns):
            ours, theirs = (_columns(given[which], columns) for which in ("", name))
            if all(_equal(ours[column], theirs[column]) for column in columns):
                found.add(name)
    return frozenset(found)


def _columns(data: Any, names: Sequence[str]) -> dict[str, Values]:
    if hasattr(data, "data_vars"):
        return tables.from_dataset(data, names)
    return tables.read_columns(files.normal(data), names)


def _equal(one: Values, other: Values) -> bool:
    if isinstance(one, Coded) and isinstance(other, Coded):
        return one.labels == other.labels and bool(np.array_equal(one.codes, other.codes))
    if isinstance(one, Coded) or isinstance(other, Coded):
        return False
    return bool(np.array_equal(one, other, equal_nan=True))


def origins(data: Any, url: str) -> list[str]:
    """Return the URLs that data is read from; of a changed dataset those of what it was computed from."""
    return [url] if url else sorted(stores.origins(data))


def _url(data: Any, argument: str) -> str:
    """Return the URL of data in a store, or an empty string for a dataset in memory."""
    if hasattr(data, "data_vars"):
        return stores.source_of(data) or ""
    if isinstance(data, str) or hasattr(data, "__fspath__"):
        return files.normal(data)
    kind = "Dask DataFrame" if hasattr(data, "npartitions") else "DataFrame"
    frame = f"; a {kind}: write it with to_parquet and read that by dms.ingest" * hasattr(data, "columns")
    raise UsageError(f"{argument} is a {type(data).__name__}; pass an xarray Dataset or the URL of one{frame}")


_IDS: dict[str, tuple[int, int, str]] = {}
"""What this process found at stored objects that no ledger knows, so that a second look hashes what changed only."""


def _look(url: str) -> Snapshot:
    return require(stores.snapshot(url, Ledger(stores.beside(url, "ledger")).records(), _IDS), url, "Recipe")


def _from_memory(ds: Any, needed: set[str]) -> tuple[Snapshot, Table]:
    dim = ds.attrs.get("row_dim") or next(
        (variable.dims[0] for variable in ds.variables.values() if variable.ndim == 1), ""
    )
    row_key = [name for name in ds.attrs.get("row_key") or () if name in ds.variables]
    present = [str(name) for name, variable in ds.variables.items() if variable.dims == (dim,)]
    columns = tables.from_dataset(ds, [name for name in present if name in needed or name in row_key])
    rows = ds.sizes.get(dim, 0)
    chunk = max(1, min(rows, ROWS_PER_CHUNK))
    # Columns that are not read are only named in messages; their kind is not looked at.
    variables = {name: Variable("float64", (dim,), (rows,), (chunk,)) for name in present}
    variables.update({name: tables.column_type(values).variable(dim, rows, chunk) for name, values in columns.items()})
    attrs = {"row_key": row_key, "derived_from": ds.attrs.get("derived_from") or {}}
    return Snapshot("", str(dim), rows, variables, attrs), MemoryTable(columns)


@dataclass(frozen=True, eq=False)
class _Blocks:
    """What every block of a lazy matrix needs; one object in the graph."""

    transformer: RowTransformer
    ranges: list[tuple[int, int]]
    halos: list[Ranges]
    dtype: str

    def block(self, number: int) -> np.ndarray:
        return self.transformer.matrix(*self.ranges[number], self.halos[number], dtype=self.dtype)


def _block(blocks: _Blocks, block_info: Any = None) -> np.ndarray:
    return blocks.block(block_info[None]["chunk-location"][0])


def preview(bound: Bound, ready: Ready) -> xr.Dataset:
    """Return the matrix as a lazy Dataset: one Dask block per chunk of the table."""
    import dask
    import dask.array as da
    import xarray as xr

    layout = replace(Layout.of(bound.planner.rows, ready.program, MatrixOut(), ready.saw), fits=0)
    ranges = layout.ranges
    blocks = _Blocks(ready.transformer, ranges, [ready.halo(*rows) for rows in ranges], layout.dtype)
    # Equal names mean equal content: Dask takes a block that it holds already for a name it knows.
    versions = [ready.transformer.rows.version, *(table.version for table in ready.transformer.tables.values())]
    name = f"recipe-{digest(ready.program.hash, bound.url, bound.planner.rows.ids, versions, bound.planner.own)}"
    width = len(layout.features)
    matrix: Any = np.empty((0, width), dtype=layout.dtype)
    if ranges:
        matrix = da.map_blocks(
            _block,
            dask.delayed(blocks, name=f"{name}-blocks", traverse=False),
            chunks=(tuple(stop - start for start, stop in ranges), (width,)),
            dtype=layout.dtype,
            meta=np.empty((0, 0), dtype=layout.dtype),
            name=name,
        )
    found = stores.open_dataset(bound.url) if bound.url else bound.data
    columns = {name: found[name].variable for name in layout.row_key}
    if layout.target:
        columns[layout.target] = found[layout.target].variable.astype("float64")
    # A key column named like the row dimension gets no index, as in an opened store: it would be read here.
    own = {name: columns.pop(name) for name in [layout.dim] if name in columns}
    coords = xr.Coordinates({NAMES: list(layout.features)}).assign(xr.Coordinates(own, indexes={}))
    dataset = xr.Dataset({FEATURES: ((layout.dim, NAMES), matrix), **columns}, coords)
    return dataset.assign_attrs({**layout.template(ready.program).attrs, "row_dim": layout.dim})


def write(bound: Bound, ready: Ready, url: str) -> None:
    """Compute the matrix in this process and write it, shard by shard."""
    layout = Layout.of(bound.planner.rows, ready.program, MatrixOut(), ready.saw)
    stores.create(url, layout.template(ready.program))
    rows, program = ready.transformer.rows, ready.program
    programs = [program, *(program.fold(number) for number in range(layout.fits))]
    for start, stop in layout.ranges:
        halo = ready.halo(start, stop)
        matrices = ready.transformer.matrices(programs, start, stop, halo, dtype=layout.dtype)
        arrays = dict(zip([FEATURES, *map(fold_features, range(layout.fits))], matrices, strict=True))
        if layout.fits:
            arrays[FOLD] = ready.transformer.folds(start, stop)
        for name, values in rows.read(layout.row_key, start, stop).items():
            variable = layout.copied[name]
            arrays[name] = tables.encode(values, tables.ColumnType(variable.dtype, variable.attrs, variable.fill))
        if layout.target:
            arrays[layout.target] = numbers(rows.read([layout.target], start, stop)[layout.target])
        stores.write_region(url, start, arrays)
    stores.put_json(url, "recipe", ready.program.to_dict())
