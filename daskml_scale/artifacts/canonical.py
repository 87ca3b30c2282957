"""One model, one file: rewrites a skops file so that equal models have equal bytes.

skops names objects by ``id()``, bytes by random UUIDs and stamps the zip with the time: two dumps of
one model differ, and a hash of the file would say nothing. Here the file is rewritten: arrays are
named by their content, identifiers count from 1 and stay only where an object that can change is
shared, sets are ordered, padding of structured arrays is zeroed, the zip has one date and no
compression. skops loads the result like any other file.

This module must not decide what may be loaded (``trust`` does) and never constructs an object.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np

SCHEMA = "schema.json"
_DATE = (1980, 1, 1, 0, 0, 0)
_IMMUTABLE = frozenset({"JsonNode", "TypeNode", "FunctionNode", "TupleNode", "SliceNode", "DTypeNode", "BytesNode"})
"""Sharing of these cannot be observed, but differs between a fresh and an unpickled estimator."""
_OF_THE_MACHINE = {"sklearn.ensemble._hist_gradient_boosting.binning._BinMapper": ("n_threads",)}
"""Class -> attributes that only say on how many threads it was fitted: stored as None, their default."""


def canonical(data: bytes) -> bytes:
    """Return the canonical form of a skops file.

    Parameters
    ----------
    data : bytes
        What ``skops.io.dumps`` returned, or a canonical file.

    Returns
    -------
    bytes
        Equal for equal models; ``canonical(canonical(x)) == canonical(x)``.
    """
    with ZipFile(io.BytesIO(data)) as source:
        schema = json.loads(source.read(SCHEMA))
        contents = {name: _content(name, source.read(name)) for name in source.namelist() if name != SCHEMA}
    renamed = {name: _content_name(name, content) for name, content in contents.items()}
    for node in nodes(schema):
        _settle(node, renamed)
    for node in nodes(schema):
        if node["__loader__"] == "SetNode":
            node["content"].sort(key=_without_ids)
    _renumber(schema)
    files = {renamed[name]: content for name, content in contents.items()}
    files[SCHEMA] = json.dumps(schema, separators=(",", ":")).encode()
    return _zip(files)


def _content(name: str, content: bytes) -> bytes:
    """Zero the padding between the fields of a structured array: it holds whatever the memory held."""
    if not name.endswith(".npy"):
        return content
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.dtype.names is None:
        return content
    clean = np.zeros(array.shape, dtype=array.dtype)
    for field in array.dtype.names:
        clean[field] = array[field]
    buffer = io.BytesIO()
    np.save(buffer, clean, allow_pickle=False)
    return buffer.getvalue()


def _content_name(name: str, content: bytes) -> str:
    return f"{hashlib.sha256(content).hexdigest()[:32]}.{name.rpartition('.')[2]}"


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield the nodes of a skops schema, depth first, in stored order.

    A dict is a node when its loader is text; in the mapping of a user's dict every value is a node.
    """
    if isinstance(value, list):
        for item in value:
            yield from nodes(item)
    elif isinstance(value, dict):
        if isinstance(value.get("__loader__"), str):
            yield value
        for item in value.values():
            yield from nodes(item)


def _settle(node: dict[str, Any], renamed: dict[str, str]) -> None:
    """Drop what depends on the machine or the process from one node, in place."""
    if node["__loader__"] in _IMMUTABLE:
        node.pop("__id__", None)
    if isinstance(node.get("file"), str):
        node["file"] = renamed[node["file"]]
    content = node.get("content")
    attributes = content.get("content") if isinstance(content, dict) else None
    for name in _OF_THE_MACHINE.get(f"{node['__module__']}.{node['__class__']}", ()):
        if isinstance(attributes, dict) and name in attributes:
            attributes[name]["content"] = "null"


def _renumber(schema: dict[str, Any]) -> None:
    """Number shared objects from 1 in stored order; an object met once needs no identifier."""
    seen = Counter(node["__id__"] for node in nodes(schema) if "__id__" in node)
    numbers: dict[int, int] = {}
    for node in nodes(schema):
        old = node.pop("__id__", None)
        if old is not None and seen[old] > 1:
            node["__id__"] = numbers.setdefault(old, len(numbers) + 1)


def _without_ids(node: dict[str, Any]) -> str:
    """Return the text of a node by which the items of a set are ordered."""

    def drop(item: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in item.items() if key != "__id__"}

    return json.dumps(json.loads(json.dumps(node), object_hook=drop))


def _zip(files: dict[str, bytes]) -> bytes:
    """Return a zip without compression (zlib's output differs between builds), in name order."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_STORED) as target:
        for name in sorted(files):
            entry = ZipInfo(name, _DATE)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            target.writestr(entry, files[name])
    return buffer.getvalue()
