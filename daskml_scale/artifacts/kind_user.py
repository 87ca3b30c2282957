"""A class of the user's: ``load(folder)`` makes the model from its files, ``predict_batch(X)`` predicts rows.

Its files are packed into one archive, equal for equal files, so that a hash tells the whole model. The class
is code: a reader names it as trusted.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from daskml_scale.errors import UntrustedError, UsageError

from .kinds import Packed, Trusted, find_class, importable_name, require_class

_EPOCH = (1980, 1, 1, 0, 0, 0)


class UserModel:
    """The user's object; everything but ``predict`` is looked up on it."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return ``predict_batch(X)``, shape (rows, ...)."""
        return np.asarray(self.model.predict_batch(X))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "model":
            raise AttributeError(name)
        return getattr(self.model, name)


def is_ours(kind: Any) -> bool:
    """Return whether a class can load itself and predict a batch."""
    return isinstance(kind, type) and callable(getattr(kind, "load", None)) and hasattr(kind, "predict_batch")


def pack(kind: type, data: Path) -> Packed:
    """Return a class and the folder or file that it loads from as they are saved."""
    name = importable_name(kind)
    if not data.exists():
        raise UsageError(f"data={str(data)!r} does not exist; name the folder or file that {kind.__name__}.load takes")
    content = _archive(data)
    return Packed("user", content, _loaded(kind, content, name), name, (name,), {"class": name})


def audit(data: bytes, manifest: Mapping[str, Any], trusted: Trusted, source: str) -> None:
    """Refuse a class that the reader has not named, and an archive that would write elsewhere.

    Raises
    ------
    UntrustedError
    """
    require_class(str(manifest.get("class")), trusted, source)
    _members(data, source)


def load(data: bytes, manifest: Mapping[str, Any], trusted: Trusted, source: str) -> UserModel:
    """Return the model that the class loads."""
    name = str(manifest["class"])
    return _loaded(find_class(name, source), data, source)


def _loaded(kind: Any, data: bytes, source: str) -> UserModel:
    with tempfile.TemporaryDirectory(prefix="daskml-model-") as folder:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            archive.extractall(folder, members=_members(data, source))
        found = sorted(Path(folder).iterdir())
        single = len(found) == 1 and found[0].is_file()
        model = kind.load(str(found[0] if single else folder))
    if not callable(getattr(model, "predict_batch", None)):
        raise UsageError(f"{source}: load gave a {type(model).__name__}, which has no predict_batch")
    return UserModel(model)


def _archive(root: Path) -> bytes:
    paths = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
    base = root.parent if root.is_file() else root
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            archive.writestr(zipfile.ZipInfo(path.relative_to(base).as_posix(), _EPOCH), path.read_bytes())
    return out.getvalue()


def _members(data: bytes, source: str) -> list[str]:
    """Return the names in an archive.

    Raises
    ------
    UntrustedError
        When it is none, or a name leads out of the folder.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise UntrustedError(f"{source} is no archive of a model: {error}") from error
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise UntrustedError(f"{source}: the archive names {name!r}, which leads out of its folder")
    return names
