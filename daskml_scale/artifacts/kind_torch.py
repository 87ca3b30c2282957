"""PyTorch: a module's weights as safetensors with the class that takes them, or an exported program.

Safetensors hold numbers only; the class is code, so a reader names it as trusted. An exported program
(``torch.export``) is let through by its pinned hash alone. The model runs without gradients, on CUDA where
there is a device, in batches whose size is learnt there (`inner_batches`).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.errors import UntrustedError, UsageError

from .inner_batches import Batches, in_batches
from .kinds import PIN, Packed, Trusted, find_class, importable_name, library, require_class, require_pin

WHAT = "an exported program of PyTorch"


class TorchModel:
    """A module in evaluation mode."""

    def __init__(self, module: Any, features: int = 0) -> None:
        torch = library("torch")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.module = module.to(self.device)
        first = next(iter(module.parameters()), None)
        self.dtype = first.dtype if first is not None else torch.float32
        self.n_features_in_ = features
        self.batches = Batches()

    def use_threads(self, threads: int) -> None:
        """Use so many threads from now on."""
        library("torch").set_num_threads(max(1, threads))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the module's output for a batch of shape (rows, ...); (rows, 1) is given as (rows,)."""
        if self.device == "cpu":
            found = self._call(X)
        else:
            found, self.batches = in_batches(self._call, X, self.batches, library("torch").OutOfMemoryError)
        return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else np.asarray(found)

    def _call(self, X: np.ndarray) -> np.ndarray:
        torch = library("torch")
        with torch.inference_mode():
            given = torch.as_tensor(np.array(X), dtype=self.dtype).to(self.device)
            return np.asarray(self.module(given).to("cpu").numpy())


def is_module(model: Any) -> bool:
    """Return whether a model is a module of PyTorch, without importing it."""
    return any(kind.__module__ == "torch.nn.modules.module" for kind in type(model).__mro__)


def is_program(model: Any) -> bool:
    """Return whether a model is an exported program."""
    return type(model).__module__.startswith("torch.export") and type(model).__name__ == "ExportedProgram"


def pack(module: Any, params: Mapping[str, Any]) -> Packed:
    """Return a module as it is saved: its weights, its class, and what the class is built with."""
    name = importable_name(type(module))
    data = _weights(module)
    extra = {"class": name, "params": dict(params)}
    return Packed("torch", data, load(data, extra, (), name), name, (name,), extra)


def pack_program(program: Any) -> Packed:
    """Return an exported program that this process made as it is saved."""
    out = io.BytesIO()
    library("torch").export.save(program, out)
    return _packed_program(out.getvalue(), "the exported program")


def pack_file(path: Path, trusted: Trusted) -> Packed:
    """Return a ``.pt2`` file as it is saved in a bundle.

    Raises
    ------
    UntrustedError
        When its hash is not pinned.
    """
    data = path.read_bytes()
    require_pin(data, trusted, str(path), WHAT)
    return _packed_program(data, str(path))


def _packed_program(data: bytes, source: str) -> Packed:
    pin = f"{PIN}{hashlib.sha256(data).hexdigest()}"
    return Packed("torch_export", data, _program(data, source), "torch.export.ExportedProgram", (pin,))


def audit(data: bytes, manifest: Mapping[str, Any], trusted: Trusted, source: str) -> None:
    """Refuse a class that is not trusted, or a program that is not pinned.

    Raises
    ------
    UntrustedError
    """
    if manifest.get("kind") == "torch_export":
        require_pin(data, trusted, source, WHAT)
    else:
        require_class(str(manifest.get("class")), trusted, source)
    library("torch")


def load(data: bytes, manifest: Mapping[str, Any], trusted: Trusted, source: str) -> TorchModel:
    """Return the loaded module."""
    if manifest.get("kind") == "torch_export":
        return _program(data, source)
    from safetensors.torch import load as tensors

    kind = find_class(str(manifest["class"]), source)
    try:
        module = kind(**manifest.get("params", {}))
        module.load_state_dict(tensors(data))
    except Exception as error:
        raise UntrustedError(
            f"{source}: {manifest['class']} does not take these weights ({' '.join(str(error).split())[:200]}); "
            "save the module again, with params= as it was built with"
        ) from error
    return TorchModel(module.eval())


def _program(data: bytes, source: str) -> TorchModel:
    try:
        return TorchModel(library("torch").export.load(io.BytesIO(data)).module())
    except Exception as error:
        raise UntrustedError(
            f"{source} is no program that this PyTorch can run: {' '.join(str(error).split())[:200]}"
        ) from error


def _weights(module: Any) -> bytes:
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise UsageError(f"{error}; install it: pip install 'daskml-scale[torch]'") from error
    weights: bytes = save({name: value.contiguous().cpu() for name, value in module.state_dict().items()})
    return weights
