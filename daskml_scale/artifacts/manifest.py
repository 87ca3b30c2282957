"""``bundle.json``: the small file that says what lies in the folder of a model. It is written last, by ``bundle``."""

from __future__ import annotations

from typing import Any

from daskml_scale.errors import StoreError
from daskml_scale.storage import files

FORMAT = 1
MODEL, MANIFEST = "model.skops", "bundle.json"


def read_manifest(path: str) -> dict[str, Any]:
    """Return the content of ``bundle.json``.

    Raises
    ------
    StoreError
        When there is none, or it is of another format.
    """
    url = files.join(path, MANIFEST)
    found = files.read_json(url)
    if found is None:
        raise StoreError(f"{path} is not a model bundle: there is no {MANIFEST}; check the path, or train the model")
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        have = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise StoreError(f"{url} has format {have!r}, expected {FORMAT}; save the model again with this version")
    absent = [key for key in ("sha256", "estimator", "recipe", "schema", "training") if key not in found]
    if absent:
        raise StoreError(f"{url} lacks {', '.join(absent)}; save the model again")
    return found
