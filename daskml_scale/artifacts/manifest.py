"""``bundle.json``: the small file that says what lies in the folder of a model. It is written last, by ``bundle``."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from typing import Any

from daskml_scale.errors import StoreError, UntrustedError
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
_PACKAGES = ("daskml-scale", "numpy", "scikit-learn", "skops")
_ALSO = ("xgboost", "onnxruntime", "torch")


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
    if files.is_local(path) and files.local_path(path).is_file():
        raise StoreError(
            f"{path} is a file, and a model bundle is a folder: write one by dms.save_model({path!r}, 'models/NAME')"
        )
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


def model_bytes(path: str, manifest: Mapping[str, Any]) -> bytes:
    """Return the content of the model's file in the folder ``path``.

    Raises
    ------
    StoreError
        When it is gone.
    UntrustedError
        When it is not the one that the manifest names.
    """
    url, sha256 = files.join(path, model_file(manifest)), str(manifest["sha256"])
    data = files.read_bytes(url)
    if data is None:
        raise StoreError(f"{url} is missing; train or save the model again, or restore the file")
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise UntrustedError(
            f"{url} has SHA-256 {found[:16]}..., the bundle names {sha256[:16]}...: the file was altered, or a save "
            "was cut short; train or save the model again, or restore the file"
        )
    return data


def versions(kind: str) -> dict[str, str]:
    """Return the versions, here, of all that a model of a kind was made with."""
    more = [name for name in _ALSO if kind.startswith(name.removesuffix("runtime"))]
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, *more):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
