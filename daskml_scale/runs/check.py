"""What is checked of a workflow before anything runs: the file, its sources, columns, estimators, store, cluster.

Reads the workflow, cluster definitions and the first line of each source; starts and writes nothing.
Every problem is one ``SpecError`` with file, line, key path, value found and the remedy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from daskml_scale.errors import PlanError, SpecError, UsageError
from daskml_scale.spec.columns import column_problems
from daskml_scale.spec.cube_stages import GenerateSpec
from daskml_scale.spec.find import check_sources, find_cluster, find_workflow, source_urls
from daskml_scale.spec.kubernetes import KubernetesSpec
from daskml_scale.spec.load import Loaded, check_workflow, first_error, load_cluster, read_workflow
from daskml_scale.spec.workflow import IngestSpec, MapSpec, SearchSpec, TrainSpec, Workflow, sampled
from daskml_scale.storage import files

NO_CLUSTER = "none"
"""The name that stands for no cluster: the work is done in this process."""


def checked(
    workflow: str | Path | Workflow,
    *,
    store: str | os.PathLike[str] | None = None,
    cluster: str | None = None,
    estimators: bool = True,
    settings: Sequence[str] = (),
    text: str = "",
    detached: bool = False,
) -> Loaded[Workflow]:
    """Return a workflow of which all was checked that can be before its data is read, with its lines.

    Parameters
    ----------
    workflow : str, Path or Workflow
    store, cluster : str, optional
        Instead of the workflow's own, which are not looked at then. A cluster is a name or a path, ``none`` where
        something else than a definition says where the work is done.
    estimators : bool
        Also import the estimators and check their parameters (a second or two).
    settings : sequence of str
        Values beside the file: ``["stages.model.where=x > 3"]``.
    text : str
        What the file said when the run was submitted.
    detached : bool
        Of a run whose runner will be elsewhere only what the file says is checked: its sources may not be on this
        machine.

    Raises
    ------
    SpecError
        One error: file, line, key path, value found, and the nearest valid name or the remedy.
    """
    if isinstance(workflow, Workflow):
        if settings:
            raise UsageError("settings are values beside a file; change a Workflow with model_copy")
        loaded = check_workflow(workflow)
    elif isinstance(workflow, (str, os.PathLike)):
        path = find_workflow(os.fspath(workflow))
        loaded = read_workflow(f"{text}\n" if text else path, name=str(path), settings=settings)
    else:
        raise UsageError(f"a workflow is a name, a path or a Workflow, not a {type(workflow).__name__}")
    _check_place(loaded, store, cluster)
    if detached and elsewhere(cluster or loaded.model.cluster) is not None:
        return loaded
    check_sources(loaded.model, loaded.file)
    if problems := column_problems(loaded.model, _headers(loaded)):
        raise first_error(problems, loaded.lines, loaded.file)
    if estimators:
        _check_estimators(loaded)
        _check_functions(loaded)
    return loaded


def _header(spec: IngestSpec) -> tuple[str, ...] | None:
    """Return the column names that the first file begins with; ``None`` where looking would take longer."""
    from daskml_scale.stages.ingest_files import first_columns

    try:
        return first_columns([files.normal(url) for url in source_urls(spec.source, Path.cwd())], spec.format or "")
    except PlanError as error:
        raise SpecError(str(error), path="source") from None


def _headers(loaded: Loaded[Workflow]) -> dict[str, tuple[str, ...]]:
    found = {}
    for name, spec in loaded.model.stages.items():
        if isinstance(spec, IngestSpec):
            try:
                header = _header(spec)
            except SpecError as error:
                raise loaded.place(error.below(f"stages.{name}")) from None
            if header is not None:
                found[name] = header
    return found


def _check_estimators(loaded: Loaded[Workflow]) -> None:
    """Check that what a search or a training fits can be built, and takes the parameters that it is given."""
    from daskml_scale.stages.estimator import build_estimator

    for name, spec in loaded.model.stages.items():
        try:
            if isinstance(spec, SearchSpec):
                from daskml_scale.stages.search.stage_check import check as check_search

                check_search(spec)
            if isinstance(spec, (SearchSpec, TrainSpec)) and spec.estimator is not None:
                _check_values(build_estimator(spec.estimator, {}, 0), next(iter(spec.estimator)))
        except SpecError as error:
            path = error.path or "estimator"
            raise loaded.error(f"stages.{name}.{path}", error.message) from None


def _check_values(estimator: object, path: str) -> None:
    """Let scikit-learn check the values that ``fit`` would refuse. Not every estimator can tell."""
    check = getattr(estimator, "_validate_params", None)
    if callable(check) and hasattr(estimator, "_parameter_constraints"):  # a class of the user's has none
        try:
            check()
        except ValueError as error:
            raise SpecError(f"{path}: {' '.join(str(error).split())}") from None


def _check_functions(loaded: Loaded[Workflow]) -> None:
    """Check that the functions of ``map`` and ``generate`` can be imported: a wrong name ends no run midway."""
    from daskml_scale.stages.functions import find

    folders = ((loaded.folder or Path.cwd()).absolute(), Path.cwd())
    for name, spec in loaded.model.stages.items():
        if isinstance(spec, (GenerateSpec, MapSpec)):
            try:
                find(spec.function, folders)
            except PlanError as error:
                raise loaded.error(f"stages.{name}.function", str(error)) from error.__cause__


def _check_place(loaded: Loaded[Workflow], store: str | os.PathLike[str] | None, cluster: str | None) -> None:
    """Check the store and the cluster that are asked for, else those that the file names."""
    try:
        files.normal(store or loaded.model.store)
    except UsageError as error:
        raise error if store else loaded.error("store", str(error)) from None
    try:
        check_cluster(cluster or loaded.model.cluster)
    except SpecError as error:
        if cluster or error.line is not None:  # with a line: the definition was found, and is wrong there
            raise
        named = repr(loaded.model.cluster)
        message = error.message if named in error.message else f"{named}: {error.message}"
        raise loaded.error("cluster", message) from None


def elsewhere(name: str) -> KubernetesSpec | None:
    """Return the definition of a cluster whose submitted runs have their runner there; ``None`` for others."""
    from .named import find

    if name == NO_CLUSTER or find(name) is not None:
        return None
    spec = load_cluster(find_cluster(name))
    return spec if isinstance(spec, KubernetesSpec) else None


def check_cluster(name: str) -> None:
    """Check the definition that a cluster's name leads to; ``none`` and a named cluster that runs need none."""
    from .named import find

    if name != NO_CLUSTER and find(name) is None:
        load_cluster(find_cluster(name))


def sampled_in(workflow: Workflow, share: float | None, store: str | os.PathLike[str] | None) -> Workflow:
    """Return the workflow with its ``ingest`` stages reading only a share of their sources.

    Raises
    ------
    UsageError
        When it would replace the whole tables in the workflow's own store.
    """
    if share is None:
        return workflow
    if store is None:
        raise UsageError(
            f"a sample of {share} would replace the whole tables in {workflow.store}; name another store: "
            f"--store {workflow.store}-sample"
        )
    return sampled(workflow, share)
