"""Faster ways to the same predictions, each tried on real rows first: ONNX in place of scikit-learn, fewer columns.

``onnx`` exports an estimator of scikit-learn and runs it by onnxruntime. ``columns`` leaves out the features
that the model ignores, with the steps and variables that only they need: a row that is bad in nothing but
those is predicted. What does not convert, or differs, is not used, and the reason is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskml_scale.artifacts.bundle import Bundle
from daskml_scale.engine.worker import Cache
from daskml_scale.storage import files

from .features.learning import reads_rows
from .features.program import Program
from .features.transformer import RowTransformer

WAYS = ("onnx", "columns")
ROWS = 1_000
"""Real rows that both ways predict before the faster one is used."""
RTOL, ATOL = 1e-4, 1e-5
"""How much numbers may differ: a float32 sum in another order."""


def parity(expected: np.ndarray, found: np.ndarray) -> tuple[bool, float]:
    """Return whether two predictions of the same rows are the same, and how much numbers differ at most.

    Labels must be equal; numbers equal within :data:`RTOL` and :data:`ATOL`, missing ones in the same places.
    """
    if expected.shape != found.shape:
        return False, 0.0
    if expected.dtype.kind not in "fc":
        return bool(np.array_equal(expected, np.asarray(found, dtype=expected.dtype))), 0.0
    differ = np.abs(expected.astype("float64") - found.astype("float64"))
    most = float(np.nanmax(differ, initial=0.0)) if differ.size else 0.0
    return bool(np.allclose(expected, found, rtol=RTOL, atol=ATOL, equal_nan=True)), most


def tried(name: str, usual: Callable[[], np.ndarray], faster: Callable[[], np.ndarray], **about: Any) -> dict[str, Any]:
    """Return whether the faster way may be used: ``way``, ``used``, ``max_diff``, ``reason`` where it is not."""
    try:
        expected, found = usual(), faster()
    except Exception as error:
        return {"way": name, "used": False, "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    same, most = parity(expected, np.asarray(found))
    if expected.shape != np.shape(found):
        return {"way": name, "used": False, "reason": f"it gives the shape {np.shape(found)}, not {expected.shape}"}
    if not same:
        reason = f"predictions of {len(expected):,} real rows differ by up to {most:.3g}"
        return {"way": name, "used": False, "max_diff": most, "reason": reason}
    return {"way": name, "used": True, "max_diff": most, **about}


def exported(bundle: Bundle, estimator: Any, X: np.ndarray) -> bytes:
    """Return an estimator of scikit-learn as an ONNX graph.

    Raises
    ------
    Exception
        Whatever skl2onnx says when it cannot; ImportError without it.
    """
    from skl2onnx import to_onnx

    if bundle.kind != "skops":
        raise TypeError(f"a model of kind {bundle.kind} is not scikit-learn's")
    options = {id(estimator): {"zipmap": False}} if hasattr(estimator, "predict_proba") else None
    data: bytes = to_onnx(estimator, X[:1], options=options).SerializeToString()
    return data


@dataclass(frozen=True)
class Exported:
    """An exported model that lies in a file.

    Attributes
    ----------
    url, sha256 : str
    labels : tuple
        Its classes.
    """

    url: str
    sha256: str
    labels: tuple[Any, ...] = ()

    def params(self) -> list[Any]:
        """Return what it is, for a fingerprint: wherever its file lies."""
        return [self.sha256, list(self.labels)]

    def load(self) -> Any:
        """Return the model; refuses another file than the one that was compared."""
        from daskml_scale.artifacts import kind_onnx
        from daskml_scale.errors import UntrustedError

        data = files.read_bytes(self.url) or b""
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise UntrustedError(f"{self.url} is not the file that was exported; remove it and its ledger")
        manifest = {"labels": list(self.labels)}
        kind_onnx.audit(data, manifest, (), self.url)
        return kind_onnx.load(data, manifest, (), self.url)


def pruned_program(program: Program, wanted: Sequence[str]) -> Program:
    """Return a fitted recipe with the steps that make some of its features, and those that they read."""
    needed = set(wanted)
    kept: list[int] = []
    for position in reversed(range(len(program.steps))):
        step = program.steps[position]
        if needed.isdisjoint(step.outputs()):
            continue
        kept.insert(0, position)
        if reads_rows(step):
            needed |= program.made_before(position).intersection(step.reads())
    steps = tuple(program.steps[position] for position in kept)
    learnt = {
        str(new): program.learnt[str(old)] for new, old in enumerate(kept) if str(old) in program.learnt
    }  # fmt: skip
    return replace(program, steps=steps, learnt=learnt)


@dataclass(frozen=True)
class Pruned:
    """A recipe without what the model ignores: the features that are left out are 0."""

    source: RowTransformer
    features: tuple[str, ...]

    def matrix(self, start: int, stop: int, halo: Any, cache: Cache, dtype: str) -> np.ndarray:
        """Return the features of rows [start, stop), shape (rows, features)."""
        found = self.source.matrix(start, stop, halo, cache, dtype)
        out = np.zeros((stop - start, len(self.features)), dtype=dtype)
        places = {name: place for place, name in enumerate(self.features)}
        for column, name in enumerate(self.source.program.features):
            out[:, places[name]] = found[:, column]
        return out

    @classmethod
    def of(cls, source: RowTransformer, used: Sequence[int]) -> Pruned:
        """Leave out what makes none of the used features."""
        names = source.program.features
        program = pruned_program(source.program, [names[position] for position in used])
        tables = {name: table for name, table in source.tables.items() if name in program.tables}
        return cls(replace(source, program=program, tables=tables), names)


def told(stage: str, found: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return what people should know of ways that are not used."""
    return tuple(f"{stage}: optimise {one['way']} is not used: {one['reason']}" for one in found if not one["used"])
