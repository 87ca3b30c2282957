"""What code is: a digest of a function and of all the user's code and values that it uses.

Called functions, classes, modules, defaults, closures and globals are followed. Installed packages count by name
and version. Names of functions, comments and positions in a file do not count, so moving a function runs nothing again.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from daskml_scale.storage.values import identity, pack

_CONTAINERS = (list, tuple, dict)
_INSTALLED = tuple(
    os.path.realpath(path) + os.sep
    for key, path in sysconfig.get_paths().items()
    if key in ("stdlib", "platstdlib", "purelib", "platlib")
)
_EXAMPLES = os.path.join(os.path.realpath(Path(__file__).parents[1]), "_packaged", "")
"""Modules beside the workflows that we bring are as those beside a user's: no worker finds them by their name."""


def is_users(module_name: str | None) -> bool:
    """Return whether a module is the user's own code: no part of Python and not installed."""
    module = sys.modules.get(module_name or "")
    if module_name == "__main__" or module is None:
        return True
    file = getattr(module, "__file__", None)
    if file is None:
        return getattr(module, "__spec__", None) is None
    file = os.path.realpath(file)
    return file.startswith(_EXAMPLES) or not file.startswith(_INSTALLED)


def code_digest(function: Callable[..., Any]) -> bytes:
    """Return the digest (16 bytes) of a function's code and of all the user's code and values that it uses."""
    walk = _Walk()
    walk.add(function)
    return walk.hash.digest()


class _Walk:
    """One walk through code; every object is looked at once."""

    def __init__(self) -> None:
        self.hash = hashlib.blake2b(digest_size=16)
        self.seen: dict[int, tuple[int, Any]] = {}

    def add(self, value: Any) -> None:
        """Add anything that code may refer to."""
        if id(value) in self.seen:
            self._put("again", self.seen[id(value)][0])
        elif isinstance(value, (types.FunctionType, types.MethodType, functools.partial, type, types.ModuleType)):
            self.seen[id(value)] = (len(self.seen), value)
            self._code(value)
        elif isinstance(value, (classmethod, staticmethod, functools.cached_property, property)):
            for name in ("__func__", "func", "fget", "fset", "fdel"):
                self.add(getattr(value, name, None))
        elif isinstance(value, types.CodeType):
            self._bytecode(value)
        elif hasattr(value, "__wrapped__") and callable(value):
            self.add(value.__wrapped__)  # a cache around a function, say
        else:
            self._data(value)

    def _put(self, *values: Any) -> None:
        for value in values:
            data = value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")
            self.hash.update(len(data).to_bytes(8, "little") + data)

    def _code(self, value: Any) -> None:
        if isinstance(value, types.MethodType):
            self._put("method")
            self.add(value.__func__)
            self.add(value.__self__)
        elif isinstance(value, functools.partial):
            self._put("partial", len(value.args), *value.keywords)
            for part in (value.func, *value.args, *value.keywords.values()):
                self.add(part)
        elif isinstance(value, types.ModuleType):
            self._module(value)
        elif not is_users(value.__module__):
            self._put("installed", value.__module__, value.__qualname__, _version(value.__module__))
        elif isinstance(value, type):
            self._put("class", value.__name__)
            for base in value.__bases__:
                self.add(base)
            for name, part in sorted(_own(value), key=lambda own: own[0]):
                self._put(name)
                self.add(part)
        else:
            self._function(value)

    def _function(self, function: types.FunctionType) -> None:
        self._put("function")
        self.add(function.__code__)
        self.add(function.__defaults__)
        for name, part in sorted((function.__kwdefaults__ or {}).items()):
            self._put(name)
            self.add(part)
        for cell in function.__closure__ or ():
            try:
                self.add(cell.cell_contents)
            except ValueError:
                self._put("empty")
        for name in sorted(set(_globals(function.__code__))):
            if name in function.__globals__:
                self._put(name)
                self.add(function.__globals__[name])

    def _bytecode(self, code: types.CodeType) -> None:
        self._put("code", code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_flags)
        for constant in code.co_consts:
            self.add(constant)

    def _module(self, module: types.ModuleType) -> None:
        if not is_users(module.__name__):
            self._put("installed", module.__name__, _version(module.__name__))
            return
        file = getattr(module, "__file__", None)
        self._put("module", Path(file).read_bytes() if file and os.path.exists(file) else module.__name__)
        for _, part in sorted(vars(module).items()):
            home = getattr(part, "__module__", None)
            other = (
                part if isinstance(part, types.ModuleType) else sys.modules.get(home if isinstance(home, str) else "")
            )
            if other is not None and other is not module and is_users(other.__name__):
                self.add(other)

    def _data(self, value: Any) -> None:
        kind = type(value)
        users = kind.__module__ != "builtins" and is_users(kind.__module__)
        if users:
            self.add(kind)
        self._put("value", kind.__qualname__)
        try:
            # What is nothing but data is told by its bytes at once; in anything else there may be code.
            self._put(pack(value) if kind in _CONTAINERS else identity(value))
            return
        except Exception:
            if id(value) in self.seen or not (users or kind in _CONTAINERS):
                return  # a lock, a connection: no part of what is computed
        self.seen[id(value)] = (len(self.seen), value)
        parts = value if kind in (list, tuple) else value.items() if kind is dict else _vars(value)
        for part in parts:
            self.add(part)


def _vars(value: Any) -> list[tuple[str, Any]]:
    """Return the attributes of an object, by name."""
    return sorted(getattr(value, "__dict__", {}).items())


def _own(cls: type) -> Iterator[tuple[str, Any]]:
    """Return the attributes of a class that are written in it; what Python keeps there for itself is not."""
    written = (types.FunctionType, classmethod, staticmethod, property)
    for name, part in vars(cls).items():
        kept = name == "_abc_impl" or (name.startswith("__") and name.endswith("__"))
        if isinstance(part, written) or not (kept or isinstance(part, types.MemberDescriptorType)):
            yield name, part


def _globals(code: types.CodeType) -> Iterator[str]:
    """Yield the global names that code and the code within it look up."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals(constant)


def _version(module_name: str) -> str:
    return str(getattr(sys.modules.get(module_name.partition(".")[0]), "__version__", ""))
