"""``dms.predict``: a saved model on a table, a feature matrix, or N-dimensional variables; lazy, or written.

It decides which of the three the data is, and joins ``PredictStage``, ``CubeStage`` and their lazy
counterparts. Nothing here computes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskml_scale.artifacts.bundle import Bundle, load_model, save_model
from daskml_scale.errors import UsageError
from daskml_scale.spec.workflow import MatrixOut
from daskml_scale.storage import stores
from daskml_scale.storage.urls import zarr_url

from .claim import claim
from .functions import Sent
from .model_output import METHODS, Output
from .monitor import compare, limits_of
from .optimise import WAYS
from .patches import Patches
from .scoring import Model

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

ON_ERROR = ("quarantine", "raise")


def asked_of(
    bundle: Bundle, method: str | Callable[[Any, np.ndarray], Any], schema: Mapping[str, Any] | None, dtype: str
) -> Model:
    """Return a bundle with what is asked of it.

    Raises
    ------
    UsageError
        When there is no such method.
    PlanError
        When the model has no such output, or a function cannot be sent to workers.
    """
    function = Sent(method) if callable(method) else None
    name = getattr(method, "__name__", type(method).__name__) if callable(method) else method
    if function is None and name not in METHODS:
        raise UsageError(f"method {name!r} is not known; use {', '.join(METHODS)}, or give a function")
    return Model(bundle, name, Output.of("" if function else name, bundle.schema, dtype, schema), function)


def predict(
    model: Any,
    data: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    method: str | Callable[[Any, np.ndarray], Any] = "predict",
    schema: Mapping[str, Any] | None = None,
    tables: Mapping[str, Any] | None = None,
    inputs: Sequence[str] | None = None,
    window: Mapping[str, int] | None = None,
    patch: Mapping[str, int] | None = None,
    halo: Mapping[str, int] | None = None,
    on_error: str = "quarantine",
    max_bad: int = 0,
    monitor: bool | Mapping[str, Any] = False,
    optimise: str | Sequence[str] = (),
    resources: Mapping[str, float] | None = None,
    client: Any | None = None,
) -> xr.Dataset:
    """Predict every row of a raw table, or every cell of N-dimensional variables, with a saved model.

    Parameters
    ----------
    model : Bundle, str or fitted model
        A bundle, or its folder. A fitted model is saved as a bundle beside ``out`` (of a lazy result: in the
        temporary folder of this machine, where workers elsewhere do not find it).
    data : xarray.Dataset or str
        The raw table of the model's recipe. For a model saved without one: a feature matrix, or variables
        over any dimensions, such as (time, lat, lon), each a feature.
    out : str, optional
        URL ending in ``.zarr``: compute now, write there, and return that, opened. Its ledger lies beside
        it; a second call computes only what changed. Without it the result is lazy.
    method : str or callable
        ``predict``, ``predict_proba``, ``decision_function``, ``transform``; or a function of the estimator
        and a matrix of shape (rows, features) that returns one value, or one list of values, per row.
    schema : mapping, optional
        What the output is, where the bundle does not tell: ``columns`` (labels of several values per row),
        ``dim`` (their dimension), ``name``, ``dtype``; and ``codec``, how values are compressed: ``zstd``, ``zstd:9``.
    tables : mapping of name to Dataset or URL, optional
        The tables of the recipe's joins.
    inputs : sequence of str, optional
        Variables in the order of the model's features; by default those of the features' names. Some may
        have fewer dimensions than others. A cell of which all inputs are missing stays missing.
    window : mapping of dimension to int, optional
        The features of a cell are those of its neighbours too, so many to either side.
    patch : mapping of dimension to int, optional
        The model takes patches of so many cells, an array of shape (patches, variables, *patch), and gives one value
        per cell: (patches, *patch).
    halo : mapping of dimension to int, optional
        Cells around a patch that the model sees too, and does not predict.
    on_error : str
        ``quarantine``: rows that fail are missing in the result and ``status`` says why; ``raise``: the
        first row that fails is an error, and nothing of its chunk is written.
    max_bad : int
        Rows that may fail. In a lazy result this holds for each chunk.
    monitor : bool or mapping
        Compare the rows with those of training in the same pass: ``dms.drift(out)`` returns it. A mapping names
        ``slices`` (columns) and limits, as the stage of that name: ``{"psi": {"warn": 0.25, "fail": 1}}``.
    optimise : str or sequence of str
        ``onnx`` (run scikit-learn's estimators by onnxruntime), ``columns`` (do not read what the model ignores):
        tried on real rows first, and used where predictions are the same.
    resources : mapping, optional
        Dask resources that each task needs: ``{"GPU": 1}``.
    client : distributed.Client, optional
        The default client if there is one, else this process.

    Returns
    -------
    xarray.Dataset
        ``prediction`` (row), ``probability`` (row, class), ``decision`` or ``embedding`` (row, component);
        ``status`` (row); key columns. Over the dimensions of the variables in place of the row.

    Raises
    ------
    UnitsFailedError
        When more than ``max_bad`` rows failed; the others are written.
    UntrustedError
        When the model file is altered, or holds types that are not trusted.
    DriftError
        When ``monitor`` finds what its limits do not allow; the predictions are written.
    """
    if on_error not in ON_ERROR:
        raise UsageError(f"on_error={on_error!r} is not known; use {' or '.join(ON_ERROR)}")
    if on_error == "raise" and max_bad:
        raise UsageError(f"on_error='raise' and max_bad={max_bad} contradict each other; leave one away")
    bundle = bundle_of(model, url := "" if out is None else zarr_url(out))
    ways = (optimise,) if isinstance(optimise, str) else tuple(optimise)
    _check_options(url, ways, monitor, resources)
    asked = asked_of(bundle, method, schema, MatrixOut().dtype)
    options = {"method": asked.method, "function": asked.function, "output": schema, "max_bad": max_bad,
               "on_error": on_error, "trusted": bundle.trusted, "optimise": ways, "resources": resources}  # fmt: skip
    if bundle.recipe is None:
        from .lazy_cube import is_cube, opened

        data = opened(data)
        if is_cube(asked, data, inputs):
            if monitor:
                raise UsageError("monitor= is for tables and feature matrices, not for cells; leave it away")
            return _of_cells(asked, data, url, inputs, window, patch, halo, options, client)
    if any(option is not None for option in (inputs, window, patch, halo)):
        raise UsageError(
            "inputs=, window=, patch= and halo= are for variables of a dataset; the features of "
            f"{bundle.name} are made by its recipe or lie in a feature matrix: leave them away"
        )
    if not monitor:
        return _of_rows(asked, data, url, tables, options, client)
    limits, slices = limits_of({} if monitor is True else monitor)
    found = _of_rows(asked, data, url, tables, {**options, "watched": True, "slices": slices}, client)
    compare(url, bundle, asked.method, limits)
    return found


def _check_options(url: str, ways: Sequence[str], monitor: Any, resources: Any) -> None:
    """Refuse what is not known, or needs a stage where there is none."""
    for way in ways:
        if way not in WAYS:
            raise UsageError(f"optimise={way!r} is not known; use {', '.join(WAYS)}")
    if not url and (ways or monitor or resources):
        raise UsageError("optimise=, monitor= and resources= are for predictions that are written: give out=")


def bundle_of(model: Any, url: str) -> Bundle:
    """Return a bundle, opened from its folder, or made of a fitted model."""
    if isinstance(model, Bundle):
        return model
    if isinstance(model, (str, os.PathLike)):
        return load_model(model)
    if url:
        return save_model(model, stores.beside(url, "model"))
    import getpass
    import tempfile

    from daskml_scale.artifacts.packing import pack

    name = hashlib.sha256(pack(model).data).hexdigest()[:16]
    folder = Path(tempfile.gettempdir(), f"daskml-scale-models-{getpass.getuser()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return save_model(model, folder / name)


def _of_rows(
    asked: Model, data: Any, url: str, tables: Mapping[str, Any] | None, options: dict[str, Any], client: Any | None
) -> xr.Dataset:
    """Predict rows of a table or of a feature matrix."""
    from .accounting import noted
    from .lazy_predict import Source
    from .predict import PredictStage

    source = Source.of(asked, data, tables)
    if not url:
        return source.lazy(options["max_bad"])
    stage = PredictStage(
        Path(url).stem,
        stores.beside(url, "ledger"),
        input=source.url,
        bundle=asked.bundle.path,
        tables=source.tables,
        **options,
    )
    with claim(url, "predict", source.reads):
        if source.stored:
            source.run(stage, client)
        elif options.get("watched") or options["optimise"]:
            raise UsageError("monitor= and optimise= are for tables in a store; write this one first")
        else:
            rows = 0 if source.bound is None else source.bound.planner.rows.rows
            with noted(Path(url).stem, "predict", 1, rows):  # in one go
                source.write(url, options["max_bad"], options["on_error"])
    return stores.open_dataset(url)


def _of_cells(
    asked: Model,
    data: Any,
    url: str,
    inputs: Sequence[str] | None,
    window: Mapping[str, int] | None,
    patch: Mapping[str, int] | None,
    halo: Mapping[str, int] | None,
    options: dict[str, Any],
    client: Any | None,
) -> xr.Dataset:
    """Predict cells of N-dimensional variables."""
    from .lazy_cube import Cube
    from .predict_cube import CubeStage
    from .run import run_where_reached

    if patch is not None and window is not None:
        raise UsageError("window= is for a model of rows, patch= for one of patches; leave one of them away")
    cube = Cube.of(asked, data, inputs, window)
    patches = None if patch is None else Patches.of(cube.cells.dims, patch, halo)
    if not url:
        if patches is not None:
            raise UsageError("patches are predicted into a store: give out=")
        return cube.lazy(options["max_bad"])
    if not cube.url:
        raise UsageError(
            "data is no dataset as it lies in a store, so nothing can be reused: write it first, or leave `out` away "
            "and call to_zarr on the lazy result"
        )
    stage = CubeStage(
        Path(url).stem,
        stores.beside(url, "ledger"),
        input=cube.url,
        bundle=asked.bundle.path,
        cells=cube.cells,
        decoding=cube.decoding(),
        patches=patches,
        **options,
    )
    with claim(url, "predict", [("data", cube.url), ("model", asked.bundle.path)]):
        run_where_reached(stage, (cube.url, stage.ledger, asked.bundle.path), client)
    return stores.open_dataset(url)
