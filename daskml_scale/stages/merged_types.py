"""What a column of many files holds, from what its blocks hold: one kind, or a refusal that names both files.

A column is of a kind when all its values are, in all files; one value that is not makes it text. Where the others are
of one kind that is hardly meant: a doubt says which value it was, in which file and row. Merging does not depend on the
order in which blocks are read. Nothing here reads or writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daskml_scale.errors import PlanError

from . import read_types
from .read_types import EXACT, REASONS, WORDS, Kind, Seen


@dataclass(frozen=True)
class Part:
    """What one block holds, and where it is: its file as people know it, and the rows of the file before it."""

    file: str
    before: int
    columns: Mapping[str, Seen]


def merge(parts: Sequence[Part], name: str) -> tuple[Kind, str]:
    """Return what a column holds in all blocks, and what should be told of it (empty: nothing).

    Parameters
    ----------
    parts : sequence of Part
        In the order of the rows.

    Raises
    ------
    PlanError
        When two files hold values of different kinds: names both, and the remedy; or there are too many labels.
    """
    found = [(part, part.columns[name]) for part in parts if part.columns[name].kind != "none"]
    kinds = {one.kind for _, one in found}
    missing = any(part.columns[name].missing for part in parts)
    if not kinds:
        return Kind("none"), ""
    if kinds <= {"int", "float"}:
        whole = kinds == {"int"} and not missing
        return Kind("int" if whole else "float"), "" if whole else _inexact(found, name)
    if "text" not in kinds:
        if len(kinds) > 1:
            raise PlanError(_conflict(found, name))
        return Kind(kinds.pop(), seconds=all(one.seconds for _, one in found)), ""
    labels = tuple(sorted({label for _, one in found for label in one.labels}))
    doubt = _doubt(found, name)
    if len(labels) > read_types.MAX_LABELS:
        raise PlanError(too_many(name, len(labels), doubt))
    return Kind("text", labels), doubt


def too_many(name: str, count: int, doubt: str = "") -> str:
    """Return why a column of so many texts is refused."""
    why = doubt or "leave it out by `columns:`, or turn it into a number before"
    return f"column {name!r} has {count:,} distinct texts, more than {read_types.MAX_LABELS:,}; {why}"


def _inexact(found: Sequence[tuple[Part, Seen]], name: str) -> str:
    large = next(((part, one) for part, one in found if one.most > EXACT), None)
    if large is None:
        return ""
    return (
        f"{large[0].file}: column {name!r} holds whole numbers up to {large[1].most:,}, and others are missing or no "
        "whole numbers: it is stored as float64, which is exact up to 2**53; fill the empty cells, or write it as text"
    )


def _family(kind: str) -> str:
    return "number" if kind in ("int", "float") else kind


def _conflict(found: Sequence[tuple[Part, Seen]], name: str) -> str:
    first, one = found[0]
    other, two = next(pair for pair in found if _family(pair[1].kind) != _family(one.kind))
    return (
        f"column {name!r} holds {WORDS[one.kind]} in {first.file} and {WORDS[two.kind]} in {other.file}; mend one of "
        "them, or leave the column out by `columns:`"
    )


def _doubt(found: Sequence[tuple[Part, Seen]], name: str) -> str:
    """Return why a column became text although most of its values, or all of a file's, are of one other kind."""
    total = sum(one.present for _, one in found)
    good: dict[str, int] = {}
    for _, one in found:
        fits = one.good if one.kind == "text" else {_family(one.kind): one.present}
        for kind, count in fits.items():
            good[kind] = good.get(kind, 0) + count
    kind = max(sorted(good), key=lambda kind: good[kind], default="")
    count = good.get(kind, 0)
    if kind and 2 * (total - count) < total:
        part, (value, row, reason) = _first_bad(found, kind)
        more = f" (nor are {total - count - 1:,} other values)" if total - count > 1 else ""
        return (
            f"{part.file}: column {name!r} became text, a category: {value!r} in row {part.before + row + 1:,} "
            f"{reason}{more}, {count:,} values are; mend it, or leave the cell empty"
        )
    other = next(((part, one) for part, one in found if one.kind != "text"), None)
    if other is None:
        return ""
    return (
        f"{other[0].file}: column {name!r} is text, since other files hold text; here it holds {WORDS[other[1].kind]}"
    )


def _first_bad(found: Sequence[tuple[Part, Seen]], kind: str) -> tuple[Part, tuple[str, int, str]]:
    for part, one in found:
        if one.kind == "text" and one.bad is not None and kind in one.good:
            return part, one.bad
        if _family(one.kind) != kind:
            return part, (one.labels[0] if one.labels else WORDS[one.kind], 0, REASONS[kind])
    raise AssertionError(kind)
