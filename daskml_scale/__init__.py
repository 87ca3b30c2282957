"""daskml-scale: features, search and prediction as Dask task graphs over chunked Zarr.

``import daskml_scale as dms`` is cheap: each name below loads what it needs on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Recipe": "stages.features",
    "backlog": "engine.backlog_view",
    "cluster": "api_cluster",
    "drift": "stages.monitor",
    "dry_run": "api",
    "feature_sets": "stages.feature_store",
    "ingest": "api",
    "last_run": "api",
    "load_model": "artifacts",
    "map": "stages.map",
    "open_dataset": "storage.stores",
    "open_results": "storage.results",
    "predict": "stages.predicting",
    "rechunk": "stages.rechunk",
    "run": "api",
    "save_model": "artifacts",
    "search": "search",
    "steps": "steps",
    "submit": "api",
}
__all__ = [
    "Recipe",
    "__version__",
    "backlog",
    "cluster",
    "drift",
    "dry_run",
    "feature_sets",
    "ingest",
    "last_run",
    "load_model",
    "map",
    "open_dataset",
    "open_results",
    "predict",
    "rechunk",
    "run",
    "save_model",
    "search",
    "steps",
    "submit",
]

if TYPE_CHECKING:
    from . import search, steps
    from .api import dry_run, ingest, last_run, run, submit
    from .api_cluster import cluster
    from .artifacts import load_model, save_model
    from .engine.backlog_view import backlog
    from .stages.feature_store import feature_sets
    from .stages.features import Recipe
    from .stages.map import map
    from .stages.monitor import drift
    from .stages.predicting import predict
    from .stages.rechunk import rechunk
    from .storage.results import open_results
    from .storage.stores import open_dataset


def _publisher(client: Any) -> Any:
    from .dashboard.publish import publisher

    return publisher(client)


def _connect() -> None:
    """Have work on a cluster shown on its page: what publishes lies above the rooms that have something to tell."""
    from .stages import publishing

    publishing.publisher = _publisher


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'daskml_scale' has no attribute {name!r}")
    _connect()
    module = import_module(f"daskml_scale.{home}")
    value = module if home == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
