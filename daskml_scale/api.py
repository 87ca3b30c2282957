"""The public functions, and the only place where the parts are joined; clusters of runs by ``api_cluster``.

Here a run gets its cluster, its client, its dashboard and its sinks; everything below is given what it needs.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daskml_scale import events
from daskml_scale.api_cluster import Publishing, client_source
from daskml_scale.errors import UsageError
from daskml_scale.spec.workflow import ROWS_PER_CHUNK, IngestSpec, RowSpec, Workflow
from daskml_scale.storage import files
from daskml_scale.storage.urls import zarr_url

if TYPE_CHECKING:
    import xarray as xr

    from daskml_scale.runs.planning import StagePlanRow
    from daskml_scale.runs.state import RunRecord
    from daskml_scale.runs.summary import RunSummary
    from daskml_scale.stages.accounting import StageRow


def ingest(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    dim: str = "row",
    chunk: int = ROWS_PER_CHUNK,
    sort_by: str | Sequence[str] = (),
    partition_by: str | Sequence[str] = (),
    columns: str | Sequence[str] | None = None,
    derive: Mapping[str, str] | None = None,
    chunks: Mapping[str, int] | None = None,
    concat: str | None = None,
    append: bool = False,
    sample: float | None = None,
    seed: int = 0,
    format: Literal["csv", "parquet", "netcdf", "zarr"] | None = None,
    client: Any | None = None,
) -> xr.Dataset:
    """Read files into a table, or into a cube, at ``out`` and return it, opened lazily.

    Parameters
    ----------
    source : str, Path, or a list of them
        Paths, plain or compressed, patterns (``data/*.parquet``), URLs (``s3://bucket/*.csv``), or
        ``pkg://package/path``. Files that are read together have the same columns; their rows follow one another.
    out : str
        URL of the Zarr dataset; its ledger lies beside it, so a second call reuses what is there.
    dim : str
        Name of the row dimension of a table.
    chunk : int
        Rows per chunk of a table.
    sort_by, partition_by : str or sequence of str
        Columns that order the rows; those whose equal values lie together come first.
    columns : str or sequence of str, optional
        Columns (variables of a cube) to keep.
    derive : mapping of name to expression, optional
        ``{"sched": "time_hour + minutes(minute)"}``.
    chunks : mapping of dimension to int, optional
        For NetCDF and Zarr, which become a cube: elements per chunk, -1 for the whole dimension.
    concat : str, optional
        Dimension along which several gridded files follow one another.
    append : bool
        New files add rows to the end of the table; what was read before is not read again and must not change.
    sample : float, optional
        Share of the blocks of the sources that is read, for experiments.
    seed : int
        Of the sample.
    format : str, optional
        ``csv``, ``parquet``, ``netcdf`` or ``zarr``; by default what the names end in.
    client : distributed.Client, optional
        The default client if there is one, else this process.

    Returns
    -------
    xarray.Dataset
        Its variables in the order of the file, derived ones last.

    Raises
    ------
    SpecError
        When an argument is wrong, or names a column that the file does not have. Nothing was written.
    PlanError
        When files do not fit together: names both, the column, both types and the remedy.

    Warns
    -----
    UserWarning
        When a column became text although most of its values are numbers or times, or a file was named twice.
    """
    from daskml_scale.runs.where import check_reach, resolve
    from daskml_scale.stages.claim import claim
    from daskml_scale.stages.ingesting import stage_of
    from daskml_scale.stages.run import run_stage
    from daskml_scale.storage import stores

    url = zarr_url(out)
    if hasattr(source, "columns") or hasattr(source, "dims"):
        raise UsageError(
            f"source is a {type(source).__name__}; ingest reads files: write it with to_parquet, to_zarr or to_netcdf "
            "first (a Recipe and the searches take DataFrames as they are)"
        )
    if not (given := [os.fspath(one) for one in _listed(source)]):
        raise UsageError("source=[] names no file; name one or more")
    row = RowSpec(dim=dim, chunk=chunk, sort_by=_listed(sort_by), partition_by=_listed(partition_by))
    spec = IngestSpec(
        source=given, format=format, row=row if chunks is None else None,
        chunks=None if chunks is None else dict(chunks), concat=concat,
        columns=None if columns is None else _listed(columns), derive=dict(derive or {}), append=append, sample=sample,
    )  # fmt: skip
    stage = stage_of(url, spec, Path.cwd(), seed)
    stage.check()
    with ExitStack() as stack:
        if client is not None or not files.is_memory(url):  # as with recipes: what lies in memory is worked on here
            client, _ = resolve(client, None, stack)
            check_reach([url], client, "leave out client=")
        stack.enter_context(claim(url, "ingest", [("source", place) for place in stage.places()]))
        result = run_stage(stage, client=client)
    for message in result.warnings:
        warnings.warn(message, UserWarning, stacklevel=2)
    return stores.open_dataset(url)


def _listed(given: Any) -> list[Any]:
    return [given] if isinstance(given, (str, os.PathLike)) else list(given)


def check(
    workflow: str | Path | Workflow,
    *,
    store: str | os.PathLike[str] | None = None,
    cluster: str | None = None,
    estimators: bool = True,
    settings: Sequence[str] = (),
) -> Workflow:
    """Load a workflow and check all that can be checked before its data is read: see ``runs.check.checked``."""
    from daskml_scale.runs.check import checked

    return checked(workflow, store=store, cluster=cluster, estimators=estimators, settings=settings).model


def dry_run(
    workflow: str | Path | Workflow,
    *,
    store: str | os.PathLike[str] | None = None,
    cluster: str | None = None,
    sample: float | None = None,
    settings: Sequence[str] = (),
) -> list[StagePlanRow]:
    """Plan a workflow without writing anything: units, chunk grid, memory per task, what is reused and why.

    Parameters
    ----------
    workflow, store, cluster, sample, settings
        As in :func:`run`.

    Returns
    -------
    list of StagePlanRow
        In the order in which the stages would run.
    """
    from daskml_scale.runs.check import checked, sampled_in
    from daskml_scale.runs.planning import plan

    loaded = checked(workflow, store=store, cluster=cluster, settings=settings)
    model = sampled_in(loaded.model, sample, store)
    with loaded.placing():
        return plan(model, os.fspath(store or model.store), base=Path.cwd(), modules=loaded.folder)


def run(
    workflow: str | Path | Workflow,
    *,
    store: str | os.PathLike[str] | None = None,
    cluster: Any | None = None,
    client: Any | None = None,
    sample: float | None = None,
    settings: Sequence[str] = (),
    sink: events.Sink = events.ignore,
    run_id: str = "",
    text: str = "",
    again: str = "",
) -> RunSummary:
    """Run a workflow to its end, or what is left of it; blocks.

    Parameters
    ----------
    workflow : str, Path or Workflow
        A name (``./workflows/NAME.yaml``, then the packaged ones), a path, or a loaded workflow.
    store : str, optional
        URL of the store; the workflow's own by default.
    cluster : str, mapping, ClusterSpec or cluster object, optional
        Name or path of a cluster definition, or the definition itself: started when the first unit must
        run. ``none`` is this process. A running cluster (any with ``get_client``) is used. By default the
        process's Dask client is used if there is one, else the workflow's cluster.
    client : distributed.Client, optional
        Use this client; a cluster object will do.
    sample : float, optional
        Share of the sources that is read, for an experiment; it needs a store of its own.
    settings : sequence of str
        Values beside the file, such as ``["stages.model.where=x > 3"]``; not for a loaded workflow.
    sink : callable, optional
        Receives the events.
    run_id : str, optional
    text : str
        What the file said when the run was entered, instead of what it says now.
    again : str
        A stage that is done again with all that needs it, whatever is valid of them.

    Returns
    -------
    RunSummary

    Raises
    ------
    DaskMLError
        What was committed stays; the same call goes on from there.
    """
    from daskml_scale.runs.check import NO_CLUSTER, checked, sampled_in
    from daskml_scale.runs.execute import execute
    from daskml_scale.runs.where import resolve
    from daskml_scale.stages import notebook

    with ExitStack() as stack:
        client, asked = resolve(client, cluster, stack)
        looked_up = asked if client is None and (asked is None or isinstance(asked, str)) else NO_CLUSTER
        loaded = checked(workflow, store=store, cluster=looked_up, settings=settings, text=text)
        found = sampled_in(loaded.model, sample, store)
        url = files.normal(store or found.store)
        publish = Publishing(notebook.sink(sink), stack)
        source = client_source(client, found.cluster if asked is None else asked, url, run_id, stack, publish)
        with loaded.placing():
            return execute(
                found, url, base=Path.cwd(), modules=loaded.folder, client=source, sink=publish, run=run_id, again=again
            )


def submit(
    workflow: str | Path,
    *,
    store: str | os.PathLike[str] | None = None,
    cluster: str | None = None,
    sample: float | None = None,
    settings: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    priority: int = 0,
    key: str | None = None,
) -> RunRecord:
    """Start a run in a process of its own that outlives this one, and return its entry in the registry.

    It waits its turn when its cluster has as many runs as its definition allows. ``daskml-scale status ID``
    shows how far it is.

    Parameters
    ----------
    workflow : str or Path
        A name or a path.
    store, cluster, sample, settings
        As in :func:`run`.
    labels : mapping of str to str, optional
        For ``list`` and ``cost``.
    priority : int
        The larger goes first.
    key : str, optional
        Idempotency: the same key returns the same run, whatever became of it.

    Raises
    ------
    SpecError
        When the workflow or the cluster is wrong; nothing was started or written.
    ConflictError
        When the key belongs to a run of something else.
    """
    from daskml_scale.runs import enter
    from daskml_scale.runs.records import Registry

    for name, value in (("workflow", workflow), ("cluster", cluster)):
        if value is not None and not isinstance(value, (str, os.PathLike)):
            raise UsageError(f"{name} is a {type(value).__name__}; another process reads it: give a name or a path")
    asked = enter.Asked(
        os.fspath(workflow), None if store is None else os.fspath(store), os.fspath(cluster) if cluster else None,
        enter.Options(sample, tuple(settings)), dict(labels or {}), priority, key,
    )  # fmt: skip
    return enter.submitted(Registry(), asked)


def last_run() -> StageRow | None:
    """Return the accounting of the last stage that ran in this process: units, reused, seconds, rows."""
    from daskml_scale.stages.accounting import LAST

    return LAST[-1] if LAST else None
