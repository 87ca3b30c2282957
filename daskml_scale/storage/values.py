"""Python values as bytes: MessagePack with tuples, sets, wide integers and NumPy added; read back as they were.

Data only: nothing in these bytes can run code, so results may be read by anybody who may read the file.
What has no such form is refused by name. For fingerprints, which are never read back, everything else
counts by its pickle (`identity`). Equal values have equal bytes in every process.
"""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np

TUPLE, SET, FROZENSET, INTEGER, COMPLEX, ARRAY, SCALAR, OPAQUE = range(1, 9)
"""Extension types. Their numbers are part of the format of stored results."""
_KINDS = "biufcmMSU"
"""Array kinds that are plain bytes: no objects, no records."""
_PLAIN = {"strict_types": True, "use_bin_type": True}
REMEDY = (
    "a result is kept as None, bool, int, float, complex, str, bytes, list, tuple, set, dict, or a NumPy array or "
    "scalar of numbers, times or text; return one of these, or write the rest to a file and return where it is"
)


class _Packers(threading.local):
    """Packers of one thread, free ones kept: a nested value needs its own, and one that failed is dropped."""

    def __init__(self, default: Callable[[Any], msgpack.ExtType]) -> None:
        self.default = default
        self.free: list[Any] = []

    def pack(self, value: Any) -> bytes:
        free = self.free
        packer = free.pop() if free else msgpack.Packer(default=self.default, **_PLAIN)
        data: bytes = packer.pack(value)
        free.append(packer)
        return data


def pack(value: Any) -> bytes:
    """Return the bytes of a value.

    Raises
    ------
    TypeError
        When it is, or holds, something that is not data: names its type and the remedy.
    ValueError
        When it is nested too deeply, too large (4 GiB), or holds text that is not Unicode.
    """
    try:
        return _data.pack(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"the result (a {_name(value)}) cannot be stored: {error}; {REMEDY}") from None


def unpack(data: bytes | memoryview) -> Any:
    """Return the value of bytes made by `pack`.

    Raises
    ------
    ValueError
        When they are not.
    """
    return msgpack.unpackb(data, ext_hook=_restore, strict_map_key=False)


def identity(value: Any) -> bytes:
    """Return bytes that tell a value from others, for a fingerprint.

    Raises
    ------
    Exception
        When something in it cannot be pickled: what ``pickle`` raises.
    """
    try:
        return _anything.pack(value)
    except (ValueError, OverflowError, RecursionError):
        return _pickled(value)


def identifier() -> Any:
    """Return a packer whose ``pack`` is `identity` for plain values, at a third of the cost; for one thread.

    When it raises, ``reset`` it and ask `identity`.
    """
    return msgpack.Packer(default=_any_extension, **_PLAIN)


def _extension(value: Any) -> msgpack.ExtType:
    found = _known(value, _data)
    if found is None:
        raise TypeError(f"the result is, or holds, a {_name(value)}, which cannot be stored; {REMEDY}")
    return found


def _any_extension(value: Any) -> msgpack.ExtType:
    return _known(value, _anything) or msgpack.ExtType(OPAQUE, _pickled(value))


def _known(value: Any, packers: _Packers) -> msgpack.ExtType | None:
    packed, kind = packers.pack, type(value)
    if kind is tuple:
        return msgpack.ExtType(TUPLE, packed(list(value)))
    if kind is int:
        return msgpack.ExtType(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    if kind is set or kind is frozenset:
        # Text has another order in every process.
        return msgpack.ExtType(SET if kind is set else FROZENSET, b"".join(sorted(map(packed, value))))
    if kind is complex:
        return msgpack.ExtType(COMPLEX, packed([value.real, value.imag]))
    if kind is np.ndarray and value.dtype.kind in _KINDS:
        return msgpack.ExtType(ARRAY, packed([value.dtype.str, list(value.shape), value.tobytes()]))
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS:
        return msgpack.ExtType(SCALAR, packed([value.dtype.str, value.tobytes()]))
    return None


_data, _anything = _Packers(_extension), _Packers(_any_extension)


def _restore(code: int, data: bytes) -> Any:
    if code == TUPLE:
        return tuple(unpack(data))
    if code == INTEGER:
        return int.from_bytes(data, "big", signed=True)
    if code in (SET, FROZENSET):
        members = msgpack.Unpacker(ext_hook=_restore, strict_map_key=False)
        members.feed(data)
        return set(members) if code == SET else frozenset(members)
    if code == COMPLEX:
        return complex(*unpack(data))
    if code == ARRAY:
        dtype, shape, content = unpack(data)
        return np.ndarray(shape, dtype, content).copy()
    if code == SCALAR:
        dtype, content = unpack(data)
        return np.ndarray((), dtype, content)[()]
    raise ValueError(f"a value of extension type {code}: a newer version wrote it")


def _pickled(value: Any) -> bytes:
    # Without the memo: it depends on which equal parts happen to be one object.
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=5)
    pickler.fast = True
    try:
        pickler.dump(value)
    except (ValueError, RecursionError):  # it holds itself
        return pickle.dumps(value, protocol=5)
    return buffer.getvalue()


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
