"""What a method of a model gives per row, and how it is stored: name, type, labels of a second dimension. Pure.

Read off the bundle (its classes, and the shapes that were seen when it was saved) or declared by the
caller: a plan must know the schema of its output before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError, UsageError
from daskml_scale.plan.units import Variable

STATUS_ATTRS = {"flag_values": [0, 1, 2, 3], "flag_meanings": "missing ok bad_input model_error"}
DECLARED = ("name", "dtype", "dim", "columns", "codec")
"""Keys of a declared output."""
FLOATS = ("float16", "float32", "float64")
CODECS = ("lz4", "zstd", "none")
OUTPUT = "output"
"""Name of the dimension of several outputs."""


@dataclass(frozen=True)
class Output:
    """What a method writes per row: one value, several, or several for each of several outputs.

    Attributes
    ----------
    name : str
        ``prediction``, ``probability``, ``decision`` or ``embedding``.
    dtype : str
        As stored.
    dim : str
        Name of the last dimension: ``class``, ``output`` or ``component``.
    columns : tuple
        Labels of the last dimension; empty where there is one value per row.
    labels : tuple of str
        Of a predicted category, stored as codes; empty for numbers.
    outer : tuple
        Labels of the dimension ``output`` before the last; empty where there is one output.
    classes : tuple of tuple
        Class labels of each output, where they differ; beyond its own classes an output is missing.
    codec : str
        See ``storage.arrays.compressors``.
    """

    name: str
    dtype: str
    dim: str = "class"
    columns: tuple[Any, ...] = ()
    labels: tuple[str, ...] = ()
    outer: tuple[Any, ...] = ()
    classes: tuple[tuple[Any, ...], ...] = ()
    codec: str = ""

    @classmethod
    def of(
        cls, method: str, schema: Mapping[str, Any], dtype: str, declared: Mapping[str, Any] | None = None
    ) -> Output:
        """Decide the output of a method of a model.

        Parameters
        ----------
        method : str
            A method, or the name of a function, which gives one number per row unless ``declared`` says more.
        schema : mapping
            Of the bundle: ``classes``, and ``outputs`` as seen when it was saved.
        dtype : str
            Of numbers.
        declared : mapping, optional
            ``name``, ``dtype``, ``dim``, ``columns`` that the caller knows better, and ``codec``.

        Raises
        ------
        PlanError
            When the model has no such output, or its width is not known.
        UsageError
            When ``declared`` holds anything else.
        """
        declared = dict(declared or {})
        unknown = [key for key in declared if key not in DECLARED]
        if unknown:
            raise UsageError(f"an output has no {unknown[0]!r}; it has {', '.join(DECLARED)}")
        if method == "transform" and "columns" in declared:
            found = cls("embedding", dtype, "component")
        else:
            found = _READ.get(method, _function)(schema, dtype)
        if "columns" in declared:
            found = replace(found, columns=tuple(declared["columns"]), labels=(), outer=(), classes=(), dtype=dtype)
        kind = str(declared.get("dtype", found.dtype))
        if "dtype" in declared and kind not in FLOATS:
            raise UsageError(f"an output of dtype {kind!r} cannot say that a value is missing; use {', '.join(FLOATS)}")
        name, dim = str(declared.get("name", found.name)), str(declared.get("dim", found.dim))
        return replace(found, name=name, dim=dim, dtype=kind, codec=_codec(str(declared.get("codec", ""))))

    @property
    def small(self) -> dict[str, list[Any]]:
        """Labels of the dimensions behind the row, in order: dimension -> labels."""
        found = {OUTPUT: list(self.outer), self.dim: list(self.columns)}
        return {dim: labels for dim, labels in found.items() if labels}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return tuple(len(labels) for labels in self.small.values())

    @property
    def size(self) -> int:
        """Values per row."""
        return int(np.prod(self.shape))

    @property
    def expected(self) -> np.ndarray:
        """Which values of a row there are: all, but beyond the classes of an output that has fewer; a bool array."""
        found = np.ones(self.shape, dtype=bool)
        for number, known in enumerate(self.classes):
            found[number, len(known) :] = False
        return found

    @property
    def missing(self) -> float:
        """Stored where a row has no value."""
        return -1 if self.labels else np.nan

    @property
    def names(self) -> set[str]:
        """Names that the output takes in its dataset."""
        return {self.name, "status", *self.small}

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return what a model gave in its stored form."""
        if not self.labels:
            with np.errstate(over="ignore"):  # what is beyond the stored type is found as not finite
                return values.astype(self.dtype, copy=False)
        known = np.asarray(self.labels)
        order = np.argsort(known)
        given = values.astype(str)
        codes = order[np.searchsorted(known[order], given).clip(max=len(known) - 1)]
        if not np.array_equal(known[codes], given):
            odd = str(given[known[codes] != given][0])
            raise PlanError(f"the model gave the label {odd!r}, the bundle names {', '.join(self.labels)}")
        return np.asarray(codes, dtype=self.dtype)

    def variables(self, dim: str, rows: int, chunk: int, shard: int) -> dict[str, Variable]:
        """Return the variables to create, the status and the labels among them."""
        shards = None if shard == chunk else (shard,)
        attrs: dict[str, Any] = {"classes": [list(known) for known in self.classes]} if self.classes else {}
        if self.labels:
            codes = list(range(len(self.labels)))
            meanings = " ".join("_".join(label.split()) or "_" for label in self.labels)
            attrs = {"flag_values": codes, "flag_meanings": meanings, "categories": list(self.labels)}
        fill = -1 if self.labels else None
        found = {
            self.name: Variable(
                self.dtype,
                (dim, *self.small),
                (rows, *self.shape),
                (chunk, *self.shape),
                None if shards is None else (shard, *self.shape),
                attrs,
                fill,
                self.codec,
            ),
            "status": Variable("uint8", (dim,), (rows,), (chunk,), shards, STATUS_ATTRS),
        }
        for name, labels in self.small.items():
            width, kind = len(labels), np.asarray(labels).dtype
            stored = "string" if kind.kind in "UO" else kind.name
            found[name] = Variable(stored, (name,), (width,), (width,))
        return found


def _codec(text: str) -> str:
    """Return a declared codec after checking it.

    Raises
    ------
    UsageError
    """
    name, _, level = text.partition(":")
    if text and (name not in CODECS or not (level.isdigit() or text == name) or not 0 <= int(level or 0) <= 9):
        raise UsageError(f"codec {text!r} is not known; use lz4, zstd, zstd:9 (a level from 0 to 9) or none")
    return "" if text == "lz4" else text


def _shape(method: str, schema: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the shape of one row as seen when the model was saved; None where it was not."""
    found = (schema.get("outputs") or {}).get(method)
    return None if found is None else tuple(found["shape"])


def _several(method: str, schema: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of one row, of one dimension at most."""
    shape = _shape(method, schema) or ()
    if len(shape) > 1:
        raise PlanError(f"method: {method} gives an array of shape {shape} per row; one value or one list is supported")
    return shape


def _predict(schema: Mapping[str, Any], dtype: str) -> Output:
    classes, shape = schema.get("classes") or [], _several("predict", schema)
    nested = any(isinstance(label, list) for label in classes)
    flat = [label for item in classes for label in item] if nested else list(classes)
    text = any(isinstance(label, str) for label in flat)
    if text and shape:
        return Output("prediction", "int32", OUTPUT, tuple(range(shape[0])), labels=tuple(sorted(set(map(str, flat)))))
    if shape:
        return Output("prediction", "float64" if flat else dtype, OUTPUT, tuple(range(shape[0])))
    if text:
        return Output("prediction", "int32", labels=tuple(map(str, flat)))
    return Output("prediction", "float64" if flat else dtype)


def _predict_proba(schema: Mapping[str, Any], dtype: str) -> Output:
    classes = schema.get("classes") or []
    if not classes:
        raise PlanError("method: predict_proba is of classifiers, this model has no classes; use predict")
    if not any(isinstance(label, list) for label in classes):
        return Output("probability", dtype, "class", tuple(classes))
    each = tuple(tuple(labels) for labels in classes)
    outer = tuple(range(len(each)))
    if len(set(each)) == 1:
        return Output("probability", dtype, "class", each[0], outer=outer)
    return Output("probability", dtype, "class", tuple(range(max(map(len, each)))), outer=outer, classes=each)


def _decision_function(schema: Mapping[str, Any], dtype: str) -> Output:
    classes, shape = tuple(schema.get("classes") or ()), _several("decision_function", schema)
    if _shape("decision_function", schema) is None and len(classes) > 2:
        shape = (len(classes),)
    if not shape:
        return Output("decision", dtype)
    if shape == (len(classes),):
        return Output("decision", dtype, "class", classes)
    return Output("decision", dtype, "output", tuple(range(shape[0])))  # one per pair of classes


def _transform(schema: Mapping[str, Any], dtype: str) -> Output:
    shape = _shape("transform", schema)
    if shape is None:
        raise PlanError("method: transform: the number of columns is not known; declare the output's columns")
    if not _several("transform", schema):
        return Output("embedding", dtype, "component")
    names = schema["outputs"]["transform"].get("columns") or range(shape[0])
    return Output("embedding", dtype, "component", tuple(names))


def _function(schema: Mapping[str, Any], dtype: str) -> Output:
    return Output("prediction", dtype, "output")


_READ = {
    "predict": _predict,
    "predict_proba": _predict_proba,
    "decision_function": _decision_function,
    "transform": _transform,
}
METHODS = tuple(_READ)
"""Methods whose output is known from a bundle."""
