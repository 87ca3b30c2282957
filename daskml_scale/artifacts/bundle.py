"""Model bundles: a folder with the model's file (``model.skops``, ``model.ubj``, ...) and ``bundle.json`` (all else).

``bundle.json`` holds the fitted recipe, the schema of features and classes, what it was trained on,
and the SHA-256 of the model's file: a bundle is known by its content, equal models give equal files, and
saving the same model again writes nothing. ``bundle.json`` is written last, so a save that was cut
short, like a file that was altered, is a hash that does not fit, and is refused. Models are never
pickled here; what may be in a file is for ``kinds`` and ``trust`` to say.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from daskml_scale.errors import UsageError
from daskml_scale.html import table
from daskml_scale.storage import files

from . import kinds
from .manifest import FILES, FORMAT, MANIFEST, model_bytes, model_file, read_manifest, versions
from .methods import call as call
from .methods import schema_of
from .packing import pack
from .profile import profiled
from .registry import resolved
from .savable import dump as dump
from .trust import type_name
from .used import used_features


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
        Types that may be loaded beyond scikit-learn's, and pinned hashes.
    """

    path: str
    manifest: Mapping[str, Any]
    trusted: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def file(self) -> str:
        """URL of the model's file."""
        return files.join(self.path, model_file(self.manifest))

    @property
    def sha256(self) -> str:
        """Of the model's file: the identity of the estimator."""
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

    @property
    def kind(self) -> str:
        """``skops``, ``xgboost``, ``onnx``, ``torch``, ``torch_export``, ``user`` or ``pickle``."""
        return str(self.manifest.get("kind", "skops"))

    @property
    def profile(self) -> dict[str, Any] | None:
        """How features and predictions were distributed in training, for ``monitor``; ``None`` where nobody said."""
        found: dict[str, Any] | None = self.manifest.get("profile")
        return found

    @cached_property
    def estimator(self) -> Any:
        """The fitted estimator; its file is checked against the hash before anything is made of it."""
        return self.load()

    def load(self) -> Any:
        """Return the model, made anew from its file.

        Raises
        ------
        UntrustedError
            When the file has another hash, or may not be loaded.
        """
        return kinds.load(model_bytes(self.path, self.manifest), self.manifest, self.trusted, self.file)

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
            *([("kind", self.kind)] if self.kind != "skops" else []),
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
    reference: Any | None = None,
    trusted: kinds.Trusted | None = None,
    trust: str | None = None,
    params: Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
) -> Bundle:
    """Save a fitted model as a bundle; writes nothing when the same bundle lies there.

    Parameters
    ----------
    estimator : object, class or path
        A fitted estimator of any kind that skops can save; a model of XGBoost; an ONNX graph, a module or exported
        program of PyTorch; a class with ``load`` and ``predict_batch``; or the path of a model's file: ``.onnx``,
        ``.ubj``, ``.pt2``, ``.pkl``, ``.joblib``.
    path : str
        Folder of the bundle: a local path or ``memory://NAME``.
    recipe : Recipe or mapping, optional
        Fitted recipe, or its JSON; with it the bundle predicts from raw tables.
    schema : mapping, optional
        ``features``, ``classes``, ``dtype``, ``target``; what is absent is read off the model.
    training : mapping, optional
        JSON that says what the model was trained on.
    reference : array of shape (rows, features), or mapping, optional
        The rows that it was trained on: what ``monitor`` compares with. Or the profile made of them.
    trusted : sequence of str or type, optional
        Types beyond scikit-learn's that the estimator may hold. By default any that can be imported;
        who loads it must name them.
    trust : str, optional
        SHA-256 of a pickle or ``.pt2`` file, which run code when they are loaded.
    params : mapping, optional
        What the class of a PyTorch module is built with.
    data : str, optional
        Folder or file that ``load`` of a class takes.

    Returns
    -------
    Bundle
        Trusts the types in its own model: this process made them, or was told to.

    Raises
    ------
    UsageError
        When it is no fitted model, cannot be saved without pickle, or could not be loaded again;
        when a folder lies there that is no bundle.
    UntrustedError
        When it holds a type that is not among ``trusted``, or is a file that may not be loaded.
    """
    folder = files.normal(path)
    packed = pack(estimator, trusted=trusted, pin=trust, params=params, data=data)
    manifest = _manifest(packed, recipe, schema or {}, training or {}, reference)
    _write(folder, manifest, packed.data)
    return Bundle(folder, manifest, packed.trusted)


def _manifest(
    packed: kinds.Packed, recipe: Any | None, schema: Mapping[str, Any], training: Mapping[str, Any], reference: Any
) -> dict[str, Any]:
    """Return the content of ``bundle.json``."""
    found = schema_of(packed.model, schema)
    if (used := used_features(packed.model, len(found["features"]))) is not None:
        found.setdefault("uses", used)
    return {
        "format": FORMAT,
        **({} if packed.kind == "skops" else {"kind": packed.kind}),
        "estimator": packed.estimator,
        "sha256": hashlib.sha256(packed.data).hexdigest(),
        "size": len(packed.data),
        "recipe": None if recipe is None else _json_of(recipe),
        "schema": found,
        "training": dict(training),
        "versions": versions(packed.kind),
        **packed.extra,
        **({} if reference is None else {"profile": profiled(reference, packed.model, found)}),
    }


def _write(folder: str, manifest: Mapping[str, Any], data: bytes) -> None:
    """Write the model's file, then what names its hash; nothing where both lie there already."""
    held = set(files.names(folder))
    if held and not held & {MANIFEST, *FILES.values()}:
        raise UsageError(f"{folder} is not a model bundle, it holds {', '.join(sorted(held)[:3])}; choose another path")
    text = (json.dumps(manifest, sort_keys=True, indent=1) + "\n").encode()
    for name, content in ((model_file(manifest), data), (MANIFEST, text)):
        if files.read_bytes(files.join(folder, name)) != content:
            files.write_bytes(files.join(folder, name), content)


def load_model(path: str | os.PathLike[str], *, trusted: kinds.Trusted = (), trust: str | None = None) -> Bundle:
    """Open a bundle: its hash and the types in it are checked now, the estimator is loaded on first use.

    Parameters
    ----------
    path : str
        Folder of the bundle; or a registered one, ``STORE/registry/NAME@champion`` or ``...@3``.
    trusted : sequence of str or type
        Types to allow beyond scikit-learn's own, and classes of users' models, after you have read what they do.
    trust : str, optional
        SHA-256 of the model's file, for one that runs code when it is loaded: a pickle, an exported PyTorch program.

    Raises
    ------
    StoreError
        When there is no bundle.
    UntrustedError
        When the model file is not the one that the bundle names, or may not be loaded.
    """
    folder = resolved(files.normal(path))
    names = tuple(type_name(kind) for kind in trusted)
    bundle = Bundle(folder, read_manifest(folder), (*names, *(() if trust is None else (kinds.pin_of(trust),))))
    kinds.audit(model_bytes(folder, bundle.manifest), bundle.manifest, bundle.trusted, bundle.file)
    return bundle


def _json_of(recipe: Any) -> dict[str, Any]:
    if isinstance(recipe, Mapping):
        return dict(recipe)
    if not getattr(recipe, "fitted", True):
        raise UsageError("the recipe is not fitted; call recipe.fit(table) before saving it with a model")
    found: dict[str, Any] = recipe.to_json()
    return found
