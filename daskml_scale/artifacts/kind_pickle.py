"""Pickles and joblib files: loading one runs whatever its maker put in, so exactly one file is let through.

The reader pins its SHA-256 (``trust=``). Nothing of the file is looked at before that.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from daskml_scale.errors import UntrustedError, UsageError

from .kinds import PIN, Packed, Trusted, require_pin

WHAT = "a pickle"


def pack_file(path: Path, trusted: Trusted) -> Packed:
    """Return a ``.pkl`` or ``.joblib`` file as it is saved in a bundle.

    Raises
    ------
    UntrustedError
        When its hash is not pinned.
    """
    data = path.read_bytes()
    require_pin(data, trusted, str(path), WHAT)
    model = _loaded(data, str(path))
    if not hasattr(model, "predict") and not hasattr(model, "transform"):
        raise UsageError(f"{path} holds an object of type {type(model).__name__}, which cannot predict")
    kind = type(model)
    pin = f"{PIN}{hashlib.sha256(data).hexdigest()}"
    return Packed("pickle", data, model, f"{kind.__module__}.{kind.__qualname__}", (pin,))


def audit(data: bytes, manifest: Mapping[str, Any], trusted: Trusted, source: str) -> None:
    """Refuse every file but the pinned one.

    Raises
    ------
    UntrustedError
    """
    require_pin(data, trusted, source, WHAT)


def load(data: bytes, manifest: Mapping[str, Any], trusted: Trusted, source: str) -> Any:
    """Return the object of the pinned file."""
    return _loaded(data, source)


def _loaded(data: bytes, source: str) -> Any:
    import joblib

    try:
        if data[:1] == b"\x80" and b"joblib" not in data[:4096]:
            return pickle.loads(data)
        return joblib.load(io.BytesIO(data))
    except Exception as error:
        raise UntrustedError(
            f"{source} cannot be unpickled ({type(error).__name__}: {error}); use the versions that it was made with"
        ) from error
