"""ONNX graphs, run by onnxruntime: no Python code, and all of the model in its one file.

External data is refused: its paths are the file's, and may lead anywhere. Sessions are made when the first
rows come, with the threads of the worker; they are not pickled. Where onnxruntime has a CUDA device, rows go there in
batches whose size is learnt (`inner_batches`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.errors import UntrustedError, UsageError

from .inner_batches import Batches, in_batches
from .kinds import Packed, Trusted, library

DEVICE = "CUDAExecutionProvider"
_TYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16",
    "tensor(int64)": "int64", "tensor(int32)": "int32",
}  # fmt: skip


class OnnxModel:
    """A graph with one input of shape (rows, ...), and the outputs ``predict``, ``predict_proba``."""

    def __init__(self, data: bytes, classes: Any = ()) -> None:
        self.data, self.threads = data, 1
        self._session: Any = None
        self.batches = Batches()
        given = self.session.get_inputs()
        if len(given) != 1 or given[0].type not in _TYPES:
            raise UsageError(
                f"the ONNX model has the inputs {[(one.name, one.type) for one in given]}; it must have one, a tensor "
                "of numbers of shape (rows, features)"
            )
        self.input, self.dtype = given[0].name, _TYPES[given[0].type]
        self.outputs = [one.name for one in self.session.get_outputs()]
        width = given[0].shape[-1] if len(given[0].shape) == 2 else None
        self.n_features_in_ = width if isinstance(width, int) else 0
        self.n_classes = len(classes)
        if len(classes):
            self.classes_ = np.asarray(classes)
            self.predict_proba = self._predict_proba

    @property
    def session(self) -> Any:
        """The session of onnxruntime."""
        if self._session is None:
            runtime = library("onnx")
            options = runtime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
            wanted = (DEVICE, "CPUExecutionProvider")
            have = [name for name in wanted if name in runtime.get_available_providers()]
            self._session = runtime.InferenceSession(self.data, options, providers=have)
        return self._session

    def use_threads(self, threads: int) -> None:
        """Use so many threads from now on."""
        if threads != self.threads:
            self.threads, self._session = threads, None

    def run(self, X: np.ndarray) -> dict[str, Any]:
        """Return all outputs by name."""
        found = self.session.run(None, {self.input: np.ascontiguousarray(X, dtype=self.dtype)})
        return dict(zip(self.outputs, found, strict=True))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the first output; of shape (rows,) where it has one column."""
        first = self._batched(lambda some: np.asarray(self.run(some)[self.outputs[0]]), X)
        return first[:, 0] if first.ndim == 2 and first.shape[1] == 1 else first

    def _predict_proba(self, X: np.ndarray) -> np.ndarray:
        return self._batched(self._probabilities, X)

    def _probabilities(self, X: np.ndarray) -> np.ndarray:
        last = self.run(X)[self.outputs[-1]]
        if isinstance(last, list):  # one mapping of class to probability per row
            last = [[row[label] for label in self.classes_.tolist()] for row in last]
        return np.asarray(last).reshape(len(X), self.n_classes)

    def _batched(self, call: Callable[[np.ndarray], np.ndarray], X: np.ndarray) -> np.ndarray:
        if DEVICE not in self.session.get_providers():
            return call(X)
        from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException  # memory has no class of its own

        found, self.batches = in_batches(call, X, self.batches, (Fail, RuntimeException))
        return found


def is_ours(model: Any) -> bool:
    """Return whether an object is an ONNX graph in memory."""
    return type(model).__name__ == "ModelProto" and hasattr(model, "SerializeToString")


def pack(data: bytes, source: str) -> Packed:
    """Return a serialized graph as it is saved.

    Raises
    ------
    UntrustedError
        When part of it lies elsewhere.
    """
    graph = _checked(data, source)
    classes = _classes(graph)
    return Packed("onnx", data, _made(data, classes, source), "onnx.ModelProto", extra={"labels": classes})


def pack_file(path: Path) -> Packed:
    """Return a ``.onnx`` file as it is saved in a bundle."""
    return pack(path.read_bytes(), str(path))


def audit(data: bytes, manifest: Mapping[str, Any], trusted: Trusted, source: str) -> None:
    """Refuse a graph of which a part lies in another file.

    Raises
    ------
    UntrustedError
        Naming the path that it asks for.
    """
    library("onnx")
    _checked(data, source)


def load(data: bytes, manifest: Mapping[str, Any], trusted: Trusted, source: str) -> OnnxModel:
    """Return the loaded graph."""
    return _made(data, manifest.get("labels") or (), source)


def _made(data: bytes, classes: Any, source: str) -> OnnxModel:
    library("onnx")
    try:
        return OnnxModel(data, classes)
    except UsageError:
        raise
    except Exception as error:
        raise UntrustedError(
            f"{source} is no graph that this onnxruntime can run: {' '.join(str(error).split())[:200]}"
        ) from error


def _checked(data: bytes, source: str) -> Any:
    """Return the parsed graph."""
    try:
        import onnx
    except ImportError as error:
        raise UsageError(
            f"{source} cannot be checked without the package onnx ({error}); pip install 'daskml-scale[onnx]'"
        ) from error
    try:
        graph = onnx.load_model_from_string(data)
    except Exception as error:
        raise UntrustedError(f"{source} is no ONNX file: {' '.join(str(error).split())[:200]}") from error
    for tensor in _messages(graph, "TensorProto"):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
            place = {entry.key: entry.value for entry in tensor.external_data}.get("location", "?")
            raise UntrustedError(
                f"{source}: the tensor {tensor.name!r} lies in another file, {place!r}, and such a path may lead "
                "anywhere; save the model in one file (onnx.save(model, path, save_as_external_data=False))"
            )
    return graph


def _messages(message: Any, kind: str) -> Iterator[Any]:
    """Yield all messages of a kind within a protobuf message: those in subgraphs and functions too."""
    if message.DESCRIPTOR.name == kind:
        yield message
    for found, value in message.ListFields():
        if found.message_type is not None:
            several = value if hasattr(value, "__len__") and not hasattr(value, "DESCRIPTOR") else [value]
            for one in several:
                yield from _messages(one, kind)


def _classes(graph: Any) -> list[Any]:
    """Return the class labels that a classifier's operator names."""
    for node in graph.graph.node:
        for attribute in node.attribute:
            if attribute.name in ("classlabels_int64s", "classlabels_ints") and len(attribute.ints):
                return [int(label) for label in attribute.ints]
            if attribute.name == "classlabels_strings" and len(attribute.strings):
                return [label.decode() for label in attribute.strings]
    return []
