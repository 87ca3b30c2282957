"""Stored objects of a variable: how many elements each really holds, and what it is known by. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import product
from math import prod

from .units import Variable


def extents(variable: Variable) -> Iterator[int | list[int]]:
    """Yield how many elements each stored object of a variable really holds: the last ones are padded.

    One number where only the first dimension is split, else one per dimension.
    """
    axes = [
        [min(unit, size - start) for start in range(0, size, unit)]
        for size, unit in zip(variable.shape, variable.write_unit, strict=True)
    ]
    if prod(variable.objects[1:]) == 1:
        yield from axes[0] if axes else [1]
        return
    yield from map(list, product(*axes))


def coordinate_chunk(size: int, block: int) -> int:
    """Return elements per stored object of a coordinate: not its size where it may grow, or it would be made anew."""
    return block * max(1, 4096 // block) if block < size else max(1, size)


def object_identity(meaning: str, extent: int | list[int], stored: str) -> str:
    """Return the id of a stored object: what its values mean, how many it holds, the digest of its bytes.

    It is ``digest(meaning, extent, [stored])``.
    """
    size = f"[{','.join(map(str, extent))}]" if isinstance(extent, list) else extent
    return hashlib.blake2b(f'["{meaning}",{size},["{stored}"]]'.encode(), digest_size=20).hexdigest()
