"""The opened arrays of this process, kept while they are what lies stored.

What was opened within a *pass* (``pinned``: the units of one dispatch, in which no metadata changes) is not looked at
again: a unit then needs one request per object that it touches. Elsewhere the array's ``zarr.json`` is compared before
each use, so a dataset may be removed and made anew at any time.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from .arrays import Opened, open_array
from .backend import MEMORY
from .urls import is_icechunk, is_memory, is_object, join, local_path

_KEPT = 256
"""Opened arrays per process."""
_pass: ContextVar[str] = ContextVar("daskml_scale_pass", default="")
_arrays: OrderedDict[tuple[str, str], tuple[Any, Opened]] = OrderedDict()
_lock = threading.Lock()


@contextmanager
def pinned(token: str) -> Iterator[None]:
    """Trust opened arrays while the block runs: of the pass ``token`` no metadata changes."""
    before = _pass.set(token)
    try:
        yield
    finally:
        _pass.reset(before)


def new_pass() -> str:
    """Return a token for :func:`pinned`."""
    return uuid.uuid4().hex


def opened(url: str, name: str) -> Opened:
    """Return an array of a dataset.

    Raises
    ------
    KeyError
        When the dataset has no array of that name.
    StoreError
        When its metadata cannot be read.
    """
    key, now = (url, name), _identity(url, name)
    with _lock:
        found = _arrays.get(key)
        if found is not None and now is not None and found[0] == now:
            _arrays.move_to_end(key)
            return found[1]
    fresh = open_array(url, name)
    with _lock:
        _arrays[key] = (now, fresh)
        while len(_arrays) > _KEPT:
            _arrays.popitem(last=False)
    return fresh


def _identity(url: str, name: str) -> Any:
    """Return what tells that an array is the one that was opened; ``None`` where only opening it tells."""
    if token := _pass.get():
        return token
    if is_memory(url):
        return MEMORY.get(join(url, name, "zarr.json"))
    if is_object(url) or is_icechunk(url):
        return None
    try:
        found = os.stat(local_path(url) / name / "zarr.json")
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def forget(url: str) -> None:
    """Forget the opened arrays of a dataset that this process changes."""
    with _lock:
        for key in [key for key in _arrays if key[0] == url]:
            del _arrays[key]
