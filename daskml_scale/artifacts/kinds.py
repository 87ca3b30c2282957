"""Kinds of models beside scikit-learn's: what is saved of each, who may load it, and what is loaded.

A kind is two functions: ``audit`` refuses a file before anything is made of it, and ``load`` makes the
object whose ``predict`` (and other methods) is called. Both get the bytes, whose hash fits already.

=============  ========================================  ====================================================
kind           file                                      loaded when
=============  ========================================  ====================================================
skops          ``model.skops``                           it holds types of scikit-learn, or named as trusted
xgboost        ``model.ubj``                             always: numbers, no code
onnx           ``model.onnx``                            always, all of it in this one file
torch          ``model.safetensors`` and a class         the class is named as trusted
torch_export   ``model.pt2``                             its hash is pinned
user           ``model.zip`` and a class                 the class is named as trusted
pickle         ``model.pkl``                             its hash is pinned
=============  ========================================  ====================================================

A pinned hash travels among the trusted names, as ``sha256:...``. Libraries are imported when a model of
their kind is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeAlias

from daskml_scale.errors import UntrustedError, UsageError

Trusted: TypeAlias = "Sequence[str | type]"
PIN = "sha256:"
"""Before the pinned hash of a file, among the trusted names."""
LIBRARIES = {
    "xgboost": ("xgboost", "xgboost"),
    "onnx": ("onnxruntime", "onnx"),
    "torch": ("torch", "torch"),
    "torch_export": ("torch", "torch"),
}
"""Kind -> the package that it needs, and the extra that installs it."""


@dataclass(frozen=True)
class Packed:
    """A model as it is saved.

    Attributes
    ----------
    kind : str
        A key of ``manifest.FILES``.
    data : bytes
        Of the model's file.
    model : object
        What is loaded from it: has ``predict``.
    estimator : str
        Full name of its class.
    trusted : tuple of str
        What this process trusts of it, which made it or was told to.
    extra : mapping
        Further keys of the manifest.
    """

    kind: str
    data: bytes
    model: Any
    estimator: str
    trusted: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)


def library(kind: str) -> Any:
    """Return the module that a kind of model needs.

    Raises
    ------
    UsageError
        When it is not installed.
    """
    name, extra = LIBRARIES[kind]
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"this model needs {name}, which cannot be imported here ({error}); "
            f"install it, here and on the workers: pip install 'daskml-scale[{extra}]'"
        ) from error


def pin_of(sha256: str) -> str:
    """Return a pinned hash as it travels among the trusted names.

    Raises
    ------
    UsageError
        When it is no SHA-256.
    """
    text = sha256.lower().removeprefix(PIN).strip()
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise UsageError(f"trust={sha256!r} is no SHA-256; give the 64 hexadecimal digits that sha256sum prints")
    return f"{PIN}{text}"


def require_pin(data: bytes, trusted: Trusted, source: str, what: str) -> None:
    """Refuse a file that runs code when it is loaded, unless exactly this file is pinned.

    Raises
    ------
    UntrustedError
        Naming the file and the reason.
    """
    pins = [str(name) for name in trusted if str(name).startswith(PIN)]
    found = hashlib.sha256(data).hexdigest()
    if not pins:
        raise UntrustedError(
            f"{source} is {what}, which runs code of its maker when it is loaded; save the model as skops or ONNX, "
            "or pass trust= with the SHA-256 that its maker gave you"
        )
    if f"{PIN}{found}" not in pins:
        raise UntrustedError(
            f"{source} has SHA-256 {found[:16]}..., trust= names {pins[0].removeprefix(PIN)[:16]}...: "
            "this is another file than the one that you trust"
        )


def require_class(name: str, trusted: Trusted, source: str) -> None:
    """Refuse to run a class that the reader has not named.

    Raises
    ------
    UntrustedError
        Naming the class and the remedy.
    """
    known = {kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}" for kind in trusted}
    if name not in known:
        raise UntrustedError(
            f"{source} is loaded by {name}, a class outside scikit-learn; if you know what it does, "
            f'pass trusted=["{name}"]'
        )


def find_class(name: str, source: str) -> Any:
    """Return a class by its full name.

    Raises
    ------
    UntrustedError
        When it cannot be imported.
    """
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UntrustedError(
            f"{source} needs {name}, which cannot be imported here ({error}); install the package that defines it"
        ) from error


def importable_name(kind: type) -> str:
    """Return the full name of a class that every process can import.

    Raises
    ------
    UsageError
        When it is defined in ``__main__`` or inside a function.
    """
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__ == "__main__" or "<locals>" in name:
        raise UsageError(f"{name} cannot be loaded by another process; define it at the top of a module")
    return name


def module_of(kind: str) -> Any:
    """Return our module of a kind: it has ``audit`` and ``load``."""
    name = {"torch_export": "torch"}.get(kind, kind)
    return import_module(f"daskml_scale.artifacts.kind_{name}")


def audit(data: bytes, manifest: Mapping[str, Any], trusted: Trusted, source: str) -> None:
    """Refuse a model file that may not be loaded. See :mod:`trust` for skops.

    Raises
    ------
    UntrustedError
        Naming the file, the reason and the remedy.
    """
    module_of(manifest.get("kind", "skops")).audit(data, manifest, trusted, source)


def load(data: bytes, manifest: Mapping[str, Any], trusted: Trusted, source: str) -> Any:
    """Return the model of an audited file."""
    module = module_of(manifest.get("kind", "skops"))
    module.audit(data, manifest, trusted, source)
    return module.load(data, manifest, trusted, source)
