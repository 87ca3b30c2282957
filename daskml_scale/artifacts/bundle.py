"""Model bundles: a folder with ``model.skops`` (the estimator) and ``bundle.json`` (all else).

``bundle.json`` holds the fitted recipe, the schema of features and classes, what it was trained on,
and the SHA-256 of ``model.skops``: a bundle is known by its content, equal models give equal files, and
saving the same model again writes nothing. ``bundle.json`` is written last, so a save that was cut
short, like a file that was altered, is a hash that does not fit, and is refused. Models are never
pickled; what may be in the file is for ``trust`` to say.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np

from daskml_scale.errors import StoreError, UntrustedError, UsageError
from daskml_scale.html import table
from daskml_scale.storage import files

from . import trust
from .manifest import FORMAT, MANIFEST, MODEL, read_manifest
from .methods import call as call
from .methods import schema_of
from .registry import resolved
from .savable import check_fitted, check_loads, check_trusted
from .savable import dump as dump

_PACKAGES = ("daskml-scale", "numpy", "scikit-learn", "skops")


@dataclass(frozen=True)
class Bundle:
    """A saved model: estimator, recipe and schema. The estimator is loaded when it is first used.

    Attributes
    ----------
    path : str
        Folder of the bundle.
    manifest : mapping
        Content of ``bundle.json``.
    trusted : tuple of str
        Types that may be loaded beyond scikit-learn's.
    """

    path: str
    manifest: Mapping[str, Any]
    trusted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def sha256(self) -> str:
        """Of ``model.skops``: the identity of the estimator."""
        return str(self.manifest["sha256"])

    @property
    def recipe(self) -> dict[str, Any] | None:
        """The fitted recipe as JSON, or ``None`` for a bare estimator."""
        found: dict[str, Any] | None = self.manifest["recipe"]
        return found

    @property
    def schema(self) -> dict[str, Any]:
        """``features``, ``classes`` (empty for a regressor; a list per output), ``dtype`` of the matrix, ``target``."""
        found: dict[str, Any] = self.manifest["schema"]
        return found

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(self.schema["features"])

    @property
    def classes(self) -> tuple[Any, ...]:
        return tuple(self.schema["classes"])

    @property
    def training(self) -> dict[str, Any]:
        """What the model was trained on."""
        found: dict[str, Any] = self.manifest["training"]
        return found

    @cached_property
    def estimator(self) -> Any:
        """The fitted estimator; its file is checked against the hash before anything is made of it."""
        return load_estimator(self.path, self.sha256, self.trusted)

    def predict(self, X: Any) -> np.ndarray:
        """Predict from a feature matrix of shape (rows, features); returns shape (rows,)."""
        return call(self.estimator, "predict", self._matrix(X), self.features)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities of shape (rows, classes), in the order of ``classes``."""
        return call(self.estimator, "predict_proba", self._matrix(X), self.features)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return decision values of shape (rows,), or (rows, classes) for several classes."""
        return call(self.estimator, "decision_function", self._matrix(X), self.features)

    def _matrix(self, X: Any) -> np.ndarray:
        if hasattr(X, "columns"):
            absent = [name for name in self.features if name not in X.columns]
            if absent:
                raise UsageError(f"the model {self.name} needs columns {absent}; the table has {list(X.columns)}")
            X = X[list(self.features)]
        matrix = np.asarray(X)
        if matrix.ndim != 2 or matrix.shape[1] != len(self.features):
            raise UsageError(
                f"the model {self.name} takes a matrix of shape (rows, {len(self.features)}), not {matrix.shape}; "
                "for raw tables use daskml_scale.predict"
            )
        return matrix

    def __reduce__(self) -> tuple[Any, ...]:
        return Bundle, (self.path, self.manifest, self.trusted)

    def _rows(self) -> list[tuple[str, object]]:
        kind = self.manifest["estimator"]
        names = ", ".join(self.features[:6]) + (", ..." if len(self.features) > 6 else "")
        return [
            ("estimator", kind.rpartition(".")[2]),
            ("features", f"{len(self.features)}: {names}"),
            *([("classes", ", ".join(map(str, self.classes)))] if self.classes else []),
            (
                "recipe",
                "none (takes a feature matrix)" if self.recipe is None else f"{len(self.recipe['steps'])} steps",
            ),
            *([("rows trained on", self.training["rows"])] if "rows" in self.training else []),
            ("sha256", self.sha256[:12]),
        ]

    def __repr__(self) -> str:
        return "\n".join([f"<daskml_scale.Bundle {self.name!r}>", *(f"  {key}: {text}" for key, text in self._rows())])

    def _repr_html_(self) -> str:
        return table(("", ""), self._rows(), title=f"Bundle {self.name}")


def save_model(
    estimator: Any,
    path: str | os.PathLike[str],
    *,
    recipe: Any | None = None,
    schema: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    trusted: trust.Trusted | None = None,
) -> Bundle:
    """Save a fitted estimator as a bundle; writes nothing when the same bundle lies there.

    Parameters
    ----------
    estimator : scikit-learn estimator
        Fitted. Of any kind that skops can save.
    path : str
        Folder of the bundle: a local path or ``memory://NAME``.
    recipe : Recipe or mapping, optional
        Fitted recipe, or its JSON; with it the bundle predicts from raw tables.
    schema : mapping, optional
        ``features``, ``classes``, ``dtype``, ``target``; what is absent is read off the estimator.
    training : mapping, optional
        JSON that says what the model was trained on.
    trusted : sequence of str or type, optional
        Types beyond scikit-learn's that the estimator may hold. By default any that can be imported;
        who loads it must name them.

    Returns
    -------
    Bundle
        Trusts the types in its own estimator: this process made them.

    Raises
    ------
    UsageError
        When it is not a fitted estimator, cannot be saved without pickle, or could not be loaded again;
        when a folder lies there that is no bundle.
    UntrustedError
        When it holds a type that is not among ``trusted``.
    """
    folder = files.normal(path)
    check_fitted(estimator)
    data = dump(estimator)
    if trusted is not None:
        check_trusted(data, trusted, type(estimator).__name__)
    own = check_loads(data, estimator)
    manifest = {
        "format": FORMAT,
        "estimator": trust.type_name(type(estimator)),
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "recipe": None if recipe is None else _json_of(recipe),
        "schema": schema_of(estimator, schema or {}),
        "training": dict(training or {}),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
    }
    held = set(files.names(folder))
    if held and not held & {MODEL, MANIFEST}:
        raise UsageError(f"{folder} is not a model bundle, it holds {', '.join(sorted(held)[:3])}; choose another path")
    text = (json.dumps(manifest, sort_keys=True, indent=1) + "\n").encode()
    for name, content in ((MODEL, data), (MANIFEST, text)):
        if files.read_bytes(files.join(folder, name)) != content:
            files.write_bytes(files.join(folder, name), content)
    return Bundle(folder, manifest, own)


def load_model(path: str | os.PathLike[str], *, trusted: trust.Trusted = ()) -> Bundle:
    """Open a bundle: its hash and the types in it are checked now, the estimator is loaded on first use.

    Parameters
    ----------
    path : str
        Folder of the bundle; or a registered one, ``STORE/registry/NAME@champion`` or ``...@3``.
    trusted : sequence of str or type
        Types to allow beyond scikit-learn's own, after you have read what they do.

    Raises
    ------
    StoreError
        When there is no bundle.
    UntrustedError
        When the model file is not the one that the bundle names, or holds types that are not trusted.
    """
    folder = resolved(files.normal(path))
    bundle = Bundle(folder, read_manifest(folder), tuple(trust.type_name(kind) for kind in trusted))
    trust.audit(_checked_bytes(folder, bundle.sha256), bundle.trusted, files.join(folder, MODEL))
    return bundle


def load_estimator(path: str, sha256: str, trusted: trust.Trusted = ()) -> Any:
    """Return the estimator of a bundle whose model file has exactly this hash.

    Raises
    ------
    UntrustedError
        When it has another hash, or holds types that are not trusted.
    """
    return trust.load(_checked_bytes(path, sha256), trusted, files.join(path, MODEL))


def _json_of(recipe: Any) -> dict[str, Any]:
    if isinstance(recipe, Mapping):
        return dict(recipe)
    if not getattr(recipe, "fitted", True):
        raise UsageError("the recipe is not fitted; call recipe.fit(table) before saving it with a model")
    found: dict[str, Any] = recipe.to_json()
    return found


def _checked_bytes(folder: str, sha256: str) -> bytes:
    url = files.join(folder, MODEL)
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
