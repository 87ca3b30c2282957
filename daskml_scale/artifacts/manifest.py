"""``bundle.json``: the small file that says what lies in the folder of a model. It is written last, by ``bundle``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskml_scale.errors import StoreError
from daskml_scale.storage import files

FORMAT = 1
MODEL, MANIFEST = "model.skops", "bundle.json"
FILES = {
    "skops": MODEL,
    "xgboost": "model.ubj",
    "onnx": "model.onnx",
    "torch": "model.safetensors",
    "torch_export": "model.pt2",
    "user": "model.zip",
    "pickle": "model.pkl",
}
"""Kind of model -> name of its file."""


def model_file(manifest: Mapping[str, Any]) -> str:
    """Return the name of the model's file in its bundle.

    Raises
    ------
    StoreError
        When a newer version wrote a kind that this one does not know.
    """
    kind = manifest.get("kind", "skops")
    if kind not in FILES:
        known = ", ".join(FILES)
        raise StoreError(f"the bundle holds a model of kind {kind!r}, this version knows {known}; use a newer one")
    return FILES[kind]


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
