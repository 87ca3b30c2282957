"""Identify stored objects as a unit reads them: data that no ledger knows is read once, not once more to be known.

A plan must not wait for the identity of what a unit reads when there is no record to compare it with. So within a pass
that asks for it, whatever object of a local dataset is read whole is hashed by the worker that has its bytes, and what
was found travels to the driver with the unit's value. Only the driver decides what to trust: see ``Later``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

from .backend import hash_bytes

Noticed: TypeAlias = dict[str, tuple[int, int, str]]
"""URL of a local object -> (size, stamp, digest of its bytes)."""
_noticed: ContextVar[Noticed | None] = ContextVar("daskml_scale_noticed", default=None)


@contextmanager
def noticing() -> Iterator[Noticed]:
    """Collect what is read while the block runs, in threads that it starts too."""
    found: Noticed = {}
    token = _noticed.set(found)
    try:
        yield found
    finally:
        _noticed.reset(token)


def notice(path: str, read: Callable[[], bytes | None]) -> bytes | None:
    """Return what ``read`` gives of a local file, and note what it is if that is wanted."""
    into = _noticed.get()
    if into is None:
        return read()
    before = _stat(path)
    data = read()
    if data is not None:
        _note(into, path, before, data)
    return data


def _stat(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns


def _note(into: Noticed, path: str, before: tuple[int, int], data: Any) -> None:
    """Note an object that is as long as it was before it was read: one that is being replaced may not be."""
    if path not in into and len(data) == before[0]:
        into[path] = (*before, hash_bytes(data))


async def notice_async(path: str, read: Callable[[], Awaitable[Any]]) -> Any:
    """Return the buffer that ``read`` gives of a local file, and note what it is if that is wanted."""
    into = _noticed.get()
    if into is None:
        return await read()
    before = await asyncio.to_thread(_stat, path)
    found = await read()
    if found is not None:
        await asyncio.to_thread(_note, into, path, before, memoryview(found.as_numpy_array()))
    return found


@dataclass(frozen=True, slots=True)
class WithNoticed:
    """What a kernel returned, and what it read."""

    value: Any
    noticed: Noticed

    @classmethod
    def of(cls, value: Any, noticed: Noticed) -> Any:
        """Put both together; where the value is still to come, when it comes."""
        if hasattr(value, "then"):
            return value.then(lambda found: cls(found, noticed))
        return cls(value, noticed)
