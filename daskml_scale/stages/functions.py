"""The user's functions: found by ``module:name`` beside a workflow, and sent to workers with their modules."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from daskml_scale.errors import PlanError
from daskml_scale.plan.records import digest

from .code import code_digest, is_users

__all__ = ["Sent", "asked", "code_digest", "find"]

_stamps: dict[str, tuple[int, int]] = {}
"""Modules that `find` loaded -> mtime in ns and size of their file at that time."""


def find(path: str, folders: Sequence[Path]) -> Callable[..., Any]:
    """Return the function that ``module:name`` leads to.

    Parameters
    ----------
    folders : sequence of Path
        Looked in before the installed packages.

    Raises
    ------
    PlanError
        When there is none, or its module does not import: names both and the nearest name.
    """
    from daskml_scale.spec.explain import nearest

    module_name, _, name = path.partition(":")
    _forget_changed(module_name, folders)
    before, loaded = list(sys.path), set(sys.modules)
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(module_name)
    except Exception as error:
        looked = f" (looked in {', '.join(map(str, folders))} and among the installed packages)"
        where = looked if isinstance(error, ImportError) else ""
        raise PlanError(
            f"{path!r}: {module_name} cannot be imported: {type(error).__name__}: {error}{where}"
        ) from error
    finally:
        sys.path[:] = before
    _stamps.update({each.__name__: _stamp(each) for each in _beside(folders) if each.__name__ not in loaded})
    meant = _meant(module_name, folders)
    if meant is not None and not meant.samefile(getattr(module, "__file__", None) or os.devnull):
        raise PlanError(f"{path!r}: {module_name} is also the name of an installed module; rename {meant.name}")
    found: Any = module
    for part in name.split("."):
        known = vars(found)
        if part not in known:
            raise PlanError(
                f"{path!r}: {module_name} has no {name!r}{nearest(part, list(known)) or ';'} "
                "write module:name, a function in that module"
            )
        found = getattr(found, part)
    if not callable(found):
        raise PlanError(f"{path!r} is a {type(found).__name__}, no function; write module:name, a function there")
    return found  # type: ignore[no-any-return]


class Sent:
    """A function that is pickled once, here; what unpickles is the function itself.

    Parameters
    ----------
    function : callable
    folders : sequence of Path
        Modules in these travel with the function, by value: workers need not find them.

    Raises
    ------
    PlanError
        When it holds something that cannot be pickled.
    """

    def __init__(self, function: Callable[..., Any], folders: Sequence[Path] = ()) -> None:
        self.function, self.blob = function, _pickled(function, folders)

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return pickle.loads, (self.blob,)


def _pickled(function: Callable[..., Any], folders: Sequence[Path]) -> bytes:
    """Return a function pickled for the workers.

    Raises
    ------
    PlanError
        When it holds something that cannot be pickled.
    """
    import cloudpickle

    beside = [each for each in _beside(folders) if each.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    for module in beside:
        cloudpickle.register_pickle_by_value(module)
    try:
        blob: bytes = cloudpickle.dumps(function)
    except Exception as error:
        raise PlanError(
            f"{_called(function)} cannot be sent to workers: {type(error).__name__}: {error}; give it plain values, "
            "and open files, locks and connections inside it"
        ) from error
    finally:
        for module in beside:
            cloudpickle.unregister_pickle_by_value(module)
    return blob


def _meant(module_name: str, folders: Sequence[Path]) -> Path | None:
    """Return the file of a module in the first of the folders that has it."""
    files = (folder.joinpath(*module_name.split(".")).with_suffix(".py") for folder in folders)
    return next((file for file in files if file.exists()), None)


def _beside(folders: Sequence[Path]) -> list[types.ModuleType]:
    """Return the user's loaded modules whose files lie in the folders or below."""
    roots = tuple(text + os.sep for folder in folders for text in {str(folder), os.path.realpath(folder)})
    return [
        module
        for name, module in list(sys.modules.items())
        if (getattr(module, "__file__", None) or "").startswith(roots or ("\0",))
        and module.__name__ == name != "__main__"
        and name.partition(".")[0] != __name__.partition(".")[0]
        and is_users(name)
    ]


def _stamp(module: types.ModuleType) -> tuple[int, int]:
    try:
        found = os.stat(module.__file__ or "")
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _forget_changed(module_name: str, folders: Sequence[Path]) -> None:
    """Forget modules that `find` loaded and whose files changed since: a notebook runs for days.

    So it does with a user's module of the same name from another folder.
    """
    loaded = [module for module in _beside(folders) if module.__name__ in _stamps]
    if any(_stamp(module) != _stamps[module.__name__] for module in loaded):
        for module in loaded:
            _forget(module.__name__)
    meant, other = _meant(module_name, folders), getattr(sys.modules.get(module_name), "__file__", None)
    if meant and other and is_users(module_name) and not (os.path.exists(other) and meant.samefile(other)):
        _forget(module_name)


def _forget(name: str) -> None:
    sys.modules.pop(name, None)
    _stamps.pop(name, None)


def _called(function: Any) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__


def asked(method: str, function: Sent | None) -> str:
    """Return the digest of what is asked of a model: a method, or the user's function in place of one."""
    return digest(method, *([] if function is None else [code_digest(function.function).hex()]))
