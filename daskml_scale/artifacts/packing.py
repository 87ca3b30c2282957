"""What was given to ``save_model``, as it is saved: which kind it is, its bytes, and what loads from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from daskml_scale.errors import UsageError

from . import kind_onnx, kind_pickle, kind_torch, kind_user, kind_xgboost, trust
from .kinds import Packed, library, pin_of
from .savable import check_fitted, check_loads, check_trusted, dump

_FILES: dict[str, Callable[[Path, tuple[str, ...]], Packed]] = {
    ".onnx": lambda path, pins: kind_onnx.pack_file(path),
    ".ubj": lambda path, pins: kind_xgboost.pack_file(path),
    ".json": lambda path, pins: kind_xgboost.pack_file(path),
    ".pkl": kind_pickle.pack_file,
    ".pickle": kind_pickle.pack_file,
    ".joblib": kind_pickle.pack_file,
    ".pt2": kind_torch.pack_file,
}


def pack(
    model: Any,
    *,
    trusted: trust.Trusted | None = None,
    pin: str | None = None,
    params: Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
) -> Packed:
    """Return a model as it is saved. See ``bundle.save_model``.

    Raises
    ------
    UsageError
        When it is no model, is not fitted, or cannot be saved.
    UntrustedError
        When it is a file that may not be loaded.
    """
    if isinstance(model, (str, os.PathLike)):
        return _file(Path(model), pin)
    if pin is not None:
        raise UsageError("trust= pins the hash of a file; this model is an object of this process: leave trust= away")
    if kind_user.is_ours(model):
        if data is None:
            raise UsageError(f"{model.__name__} is a class: name what its load takes by data=, a folder or a file")
        return kind_user.pack(model, Path(data))
    if data is not None or (params is not None and not kind_torch.is_module(model)):
        raise UsageError(
            "data= is for a class with load and predict_batch, params= for a module of PyTorch; this is a "
            f"{type(model).__name__}: leave them away"
        )
    if kind_xgboost.is_ours(model):
        return kind_xgboost.pack(model)
    if kind_onnx.is_ours(model):
        return kind_onnx.pack(model.SerializeToString(), "the ONNX model")
    if kind_torch.is_program(model):
        return kind_torch.pack_program(model)
    if kind_torch.is_module(model):
        return kind_torch.pack(model, params or {})
    return _estimator(model, trusted)


def check_savable(model: Any, trusted: trust.Trusted, name: str) -> None:
    """Refuse an estimator that could not be saved for readers who trust only these types; it need not be fitted.

    Raises
    ------
    UsageError, UntrustedError
    """
    if kind_xgboost.is_ours(model):
        library("xgboost")
    else:
        check_trusted(dump(model), trusted, name)


def _estimator(model: Any, trusted: trust.Trusted | None) -> Packed:
    check_fitted(model)
    data = dump(model)
    if trusted is not None:
        check_trusted(data, trusted, type(model).__name__)
    own = check_loads(data, model)
    return Packed("skops", data, model, trust.type_name(type(model)), own)


def _file(path: Path, pin: str | None) -> Packed:
    found = _FILES.get(path.suffix.lower())
    if found is None:
        raise UsageError(f"{path} is no model file that is known; give one of {', '.join(_FILES)}, or a fitted model")
    if not path.is_file():
        raise UsageError(f"{path} does not exist; check the path")
    return found(path, () if pin is None else (pin_of(pin),))
