"""Which types a model file may hold: skops audits the file, ``harmless`` says what else is let through.

skops knows scikit-learn's public estimators, and leaves their internal parts to the reader, because it
checks the type and not the content: a crafted tree can name a node that does not exist and crash
``predict``. They are let through here for a file whose hash is the one its bundle names, so what was
saved here loads here. Everything else is refused until the caller names it. Nothing here ever
unpickles. This is the only module that imports skops.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, TypeAlias
from zipfile import BadZipFile, ZipFile

from daskml_scale.errors import UntrustedError

from .canonical import SCHEMA, nodes
from .harmless import CLASSES, FUNCTIONS

Trusted: TypeAlias = "Sequence[str | type]"
"""Types by full name, or the types themselves."""

_REFERENCES = frozenset({"FunctionNode", "TypeNode"})
"""Loaders of skops that look a name up and do not call it."""


def type_name(kind: str | type) -> str:
    """Return the full name of a type, as skops writes it."""
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"


def importable(name: str) -> bool:
    """Return whether a full name, as skops writes it, can be looked up: ``module.Class`` or ``module.Class.method``."""
    parts = name.split(".")
    for cut in (-1, -2):
        try:
            found: Any = import_module(".".join(parts[:cut]))
        except (ImportError, ValueError):
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
        if found is not None:
            return True
    return False


def dumps(value: object) -> bytes:
    """Return a skops file of an object; other names and order each time (see ``canonical``)."""
    import skops.io

    data: bytes = skops.io.dumps(value)
    return data


def untrusted(data: bytes, trusted: Trusted = (), source: str = "the file") -> list[str]:
    """Return the sorted types in a skops file that neither skops, nor this list, nor ``trusted`` know.

    Raises
    ------
    UntrustedError
        When it is not a skops file that this skops can read.
    """
    import skops.io

    names = {type_name(kind) for kind in trusted}
    try:
        found = skops.io.get_untrusted_types(data=data)
        refused = set(found) - CLASSES - names - (FUNCTIONS - _called(data) if FUNCTIONS.intersection(found) else set())
    except (BadZipFile, KeyError, ValueError, TypeError, RecursionError) as error:
        raise UntrustedError(
            f"{source} is not a model file that this skops can read: {error}; save it again"
        ) from error
    return sorted(refused)


def _called(data: bytes) -> set[str]:
    """Return the names in a skops file that loading it would call, with arguments of the file's choosing."""
    with ZipFile(io.BytesIO(data)) as source:
        schema = json.loads(source.read(SCHEMA))
    return {
        f"{node['__module__']}.{node['__class__']}" for node in nodes(schema) if node["__loader__"] not in _REFERENCES
    }


def audit(data: bytes, trusted: Trusted, source: str) -> None:
    """Refuse a file with types that are not trusted, before any object is made.

    Raises
    ------
    UntrustedError
        Naming the file, the types and the remedy.
    """
    found = untrusted(data, trusted, source)
    if found:
        raise UntrustedError(
            f"{source} holds types that could run code on load: {', '.join(found)}; "
            f"if you know where the file comes from and what they do, pass trusted={_listed(found)}"
        )


def load(data: bytes, trusted: Trusted, source: str) -> Any:
    """Return the object of an audited skops file.

    Raises
    ------
    UntrustedError
        As :func:`audit`; also when a type's module is not installed here.
    """
    import skops.io

    audit(data, trusted, source)
    allowed = sorted(CLASSES | FUNCTIONS | {type_name(kind) for kind in trusted})
    try:
        return skops.io.loads(data, trusted=allowed)
    except (ImportError, AttributeError) as error:
        raise UntrustedError(
            f"{source} needs a type that cannot be imported here ({error}); "
            "install the package that defines it, in the version that the bundle names"
        ) from error


def _listed(names: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
