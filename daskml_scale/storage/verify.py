"""Is what lies stored still what the units wrote? Quickly, by size and stamp; or thoroughly, by every byte.

``stale`` is for planning: it trusts an object of unchanged size and stamp. ``verify`` trusts nothing: it reads
every object and compares digests, and checks that each record's own digest fits what it says. Neither
changes anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from daskml_scale.plan.records import ALTERED, MISSING, OK, TORN, output_digest
from daskml_scale.plan.table import Records

from . import files, identity
from .backend import ABSENT, Known, Stat, hash_bytes

LOST = "segment"
"""What is wrong with a ledger segment that cannot be read."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as the ledger says.

    Attributes
    ----------
    unit : str
        Of the record; empty for a segment.
    object : str
        Key of the stored object, or name of the segment; empty where the record itself does not fit.
    status : str
        ``missing``, ``torn`` (shorter than it was written), ``altered``; ``segment`` for a segment that is torn.
    """

    unit: str
    object: str
    status: str


def stale(url: str, records: Records) -> dict[str, str]:
    """Return the units of which an object is not what the ledger says -> ``missing``, ``torn`` or ``altered``.

    Parameters
    ----------
    url : str
        Of the dataset.
    records : Records
        Of its ledger.
    """
    intact, stats = identity.checker(url), files.backend(url).stats(url)
    found: dict[str, str] = {}
    for unit, key, known in records.objects():
        if not intact(key, known) and unit not in found:
            found[unit] = _status(known, stats(key))
    return found


def _status(known: Known, seen: Stat | None) -> str:
    if seen is None:
        return MISSING
    return TORN if seen[0] < known[1] else ALTERED


def verify(url: str, records: Records) -> Iterator[Problem]:
    """Yield everything that is not as the records say; reads every object.

    Parameters
    ----------
    url : str
        Of the dataset.
    records : Records
        Of its ledger.
    """
    for record in records.values():
        if record.status == OK and record.digest != output_digest(record.chunks, record.result):
            yield Problem(record.unit, "", ALTERED)
    look = _reader(url)
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        items = list(records.objects())
        for (unit, key, _), status in zip(items, pool.map(look, items), strict=True):
            if status:
                yield Problem(unit, key, status)


def _reader(url: str) -> Callable[[tuple[str, str, Known]], str]:
    backend = files.backend(url)

    def look(item: tuple[str, str, Known]) -> str:
        _, key, known = item
        data = backend.read_object(url, key)
        if data is None:
            return "" if known[0] == ABSENT else MISSING
        if known[0] != ABSENT and hash_bytes(data) == known[0]:
            return ""
        return _status(known, (len(data), 0))

    return look


def repairs(problems: list[Problem]) -> dict[str, str]:
    """Return the units to mark -> status: the first of what is wrong with each."""
    found: dict[str, str] = {}
    for problem in problems:
        if problem.unit:
            found.setdefault(problem.unit, problem.status)
    return found
