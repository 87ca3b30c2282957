"""From a spec to the stage that reads its files: a table of CSV and Parquet files, or a cube of NetCDF and Zarr.

Shared by workflows and ``dms.ingest``. Nothing is opened here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskml_scale.spec.workflow import IngestSpec
from daskml_scale.storage.files import normal
from daskml_scale.storage.urls import beside

if TYPE_CHECKING:
    from .ingest import IngestStage
    from .ingest_grid import CubeIngestStage


def stage_of(out: str, spec: IngestSpec, base: Path, seed: int) -> IngestStage | CubeIngestStage:
    """Return the stage that reads files into the dataset at ``out``; relative paths start from ``base``."""
    from daskml_scale.spec.find import source_urls

    common: dict[str, Any] = {
        "name": out.rpartition("/")[2].removesuffix(".zarr"),
        "ledger": beside(out, "ledger"),
        "sources": tuple(normal(url) for url in source_urls(spec.source, base)),
        "origin": spec.origin,
        "columns": None if spec.columns is None else tuple(spec.columns),
        "sample": spec.sample,
        "seed": seed,
        "format": spec.format or "",
    }
    if spec.row is None:
        from .ingest_grid import CubeIngestStage

        return CubeIngestStage(**common, chunks=dict(spec.chunks or {}), concat=spec.concat or "")
    from .ingest import IngestStage

    return IngestStage(**common, row=spec.row, derive=tuple(spec.derive.items()), append=spec.append)
