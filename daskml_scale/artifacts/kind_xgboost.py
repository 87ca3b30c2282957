"""XGBoost in its own binary format (UBJ): numbers and text, no code. Predicted in place, without a DMatrix.

A scikit-learn wrapper (``XGBClassifier``, ...) comes back with its classes; a plain ``Booster`` gives what
its objective gives. Where the process has a CUDA device and CuPy, batches whose size is learnt there
(`inner_batches`) are copied to the device and predicted there.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.errors import UntrustedError, UsageError

from .inner_batches import Batches, in_batches
from .kinds import Packed, Trusted, library

WRAPPERS = ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker")
BOOSTER = "Booster"


class XgbModel:
    """A loaded booster."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.booster = model if type(model).__name__ == BOOSTER else model.get_booster()
        self.n_features_in_ = int(self.booster.num_features())
        self.batches: Batches | None = None  # until the first rows come; a process that only plans starts no CUDA

    @property
    def names(self) -> list[str]:
        """Names of the features; empty where it was not trained on names."""
        return list(self.booster.feature_names or ())

    def use_threads(self, threads: int) -> None:
        """Use so many threads from now on."""
        self.booster.set_param({"nthread": threads})

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return shape (rows,), or (rows, outputs)."""
        return self._call(self.model.predict if self.model is not self.booster else self._in_place, X)

    def _in_place(self, X: Any) -> Any:
        return self.booster.inplace_predict(X, missing=np.nan)

    def _call(self, method: Callable[[Any], Any], X: np.ndarray) -> np.ndarray:
        """Return what a method gives for rows: on the device where there is one."""
        cupy = device_arrays()
        if cupy is None:
            return np.asarray(method(X))
        if self.batches is None:
            self.booster.set_param({"device": "cuda"})
            self.batches = Batches()
        full = (cupy.cuda.memory.OutOfMemoryError, library("xgboost").core.XGBoostError)
        found, self.batches = in_batches(
            lambda some: np.asarray(cupy.asnumpy(method(cupy.asarray(some)))), X, self.batches, full
        )
        return found


class XgbClassifier(XgbModel):
    """A loaded booster that knows classes."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.classes_ = np.asarray(model.classes_)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return shape (rows, classes)."""
        return self._call(self.model.predict_proba, X)


@cache
def device_arrays() -> Any:
    """Return CuPy where this process has a CUDA device, and an XGBoost that can use it; else ``None``."""
    if importlib.util.find_spec("cupy") is None or not library("xgboost").build_info().get("USE_CUDA"):
        return None
    import cupy

    try:
        return cupy if cupy.cuda.runtime.getDeviceCount() else None
    except cupy.cuda.runtime.CUDARuntimeError:
        return None


def is_ours(model: Any) -> bool:
    """Return whether a model is XGBoost's, without importing it."""
    return type(model).__module__.partition(".")[0] == "xgboost" and type(model).__name__ in (*WRAPPERS, BOOSTER)


def pack(model: Any) -> Packed:
    """Return a fitted booster or wrapper as it is saved.

    Raises
    ------
    UsageError
        When it is not fitted.
    """
    name = type(model).__name__
    if name != BOOSTER and not hasattr(model, "_Booster"):
        raise UsageError(f"this {name} is not fitted; call fit before saving it")
    data = _bytes(model)
    return Packed("xgboost", data, _loaded(data, name), f"xgboost.{name}", extra={"class": name})


def pack_file(path: Path) -> Packed:
    """Return a saved model (``.ubj`` or ``.json``) as it is saved in a bundle."""
    booster = library("xgboost").Booster()
    try:
        booster.load_model(str(path))
    except Exception as error:
        raise UsageError(f"{path} is no model that this xgboost can read: {_line(error)}") from error
    kind = json.loads(booster.attr("scikit_learn") or "{}").get("_estimator_type", "")
    name = {"classifier": "XGBClassifier", "regressor": "XGBRegressor"}.get(kind, BOOSTER)
    data = bytes(booster.save_raw("ubj"))
    return Packed("xgboost", data, _loaded(data, name), f"xgboost.{name}", extra={"class": name})


def audit(data: bytes, manifest: Mapping[str, Any], trusted: Trusted, source: str) -> None:
    """Refuse what XGBoost cannot read, or a class that is not its.

    Raises
    ------
    UntrustedError
    """
    name = manifest.get("class")
    if name not in (*WRAPPERS, BOOSTER):
        raise UntrustedError(f"{source}: the bundle names the class {name!r}, xgboost has {', '.join(WRAPPERS)}")
    library("xgboost")


def load(data: bytes, manifest: Mapping[str, Any], trusted: Trusted, source: str) -> XgbModel:
    """Return the loaded model.

    Raises
    ------
    UntrustedError
        When XGBoost cannot read the file.
    """
    try:
        return _loaded(data, str(manifest["class"]))
    except Exception as error:
        raise UntrustedError(f"{source} is no model that this xgboost can read: {_line(error)}") from error


def _loaded(data: bytes, name: str) -> XgbModel:
    model = getattr(library("xgboost"), name)()
    model.load_model(bytearray(data))
    return XgbClassifier(model) if hasattr(model, "predict_proba") else XgbModel(model)


def _bytes(model: Any) -> bytes:
    """Return the UBJ file: of a wrapper with what it knows of its classes, which only ``save_model`` adds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.ubj")
        model.save_model(str(path))
        return path.read_bytes()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
