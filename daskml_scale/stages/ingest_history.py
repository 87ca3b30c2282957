"""What an earlier run left of a table, and what may follow it: new files below the old ones. Pure.

A table that is appended to keeps its rows, codes and types: old files are not read again and must not have
changed, new labels get new codes, and what does not fit the stored types is refused with both and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from daskml_scale.errors import PlanError

from .file_patterns import Source
from .ingest_blocks import Pieces
from .read_types import WORDS, Kind

REMEDY = "remove `append` to write the table anew"


@dataclass(frozen=True)
class History:
    """A table as it was finished.

    Attributes
    ----------
    files : mapping of name to digest
        In the order of their rows.
    rows : int
    kinds : mapping of column to Kind
    pieces : Pieces
    """

    files: Mapping[str, str]
    rows: int
    kinds: Mapping[str, Kind]
    pieces: Pieces

    @classmethod
    def of(cls, data: Any, parameters: str) -> History:
        """Return it from its JSON form, an empty one where there is none.

        Raises
        ------
        PlanError
            When the table was written with other parameters.
        """
        if not isinstance(data, Mapping) or "files" not in data:
            return cls({}, 0, {}, Pieces((), ()))
        if data["parameters"] != parameters:
            raise PlanError(
                "append: the table was written with other `columns`, `derive`, `sort_by`, `partition_by` or `chunk`; "
                f"give those again, or {REMEDY}"
            )
        kinds = {name: Kind(kind, tuple(labels), seconds) for name, kind, labels, seconds in data["kinds"]}
        pieces = Pieces(tuple(rows for rows, _ in data["pieces"]), tuple(known for _, known in data["pieces"]))
        return cls(dict(data["files"]), data["rows"], kinds, pieces)

    @staticmethod
    def to_json(
        parameters: str, files: Mapping[str, Source], rows: int, kinds: Mapping[str, Kind], pieces: Pieces
    ) -> dict[str, Any]:
        """Return the JSON form of a finished table."""
        return {
            "parameters": parameters,
            "files": [[name, source.digest] for name, source in files.items()],
            "rows": rows,
            "kinds": [[name, kind.kind, list(kind.labels), kind.seconds] for name, kind in kinds.items()],
            "pieces": [list(piece) for piece in zip(pieces.rows, pieces.ids, strict=True)],
        }

    def ordered(self, found: Mapping[str, Source]) -> dict[str, Source]:
        """Return the files, the old ones first.

        Raises
        ------
        PlanError
            When an old one changed or is gone.
        """
        for name, content in self.files.items():
            if name not in found:
                raise PlanError(f"append: {name} was read before and is gone; put it back, or {REMEDY}")
            if found[name].digest != content:
                raise PlanError(
                    f"append: {found[name].url} changed since it was read; restore it (new rows go into a new file), "
                    f"or {REMEDY}"
                )
        return {name: found[name] for name in [*self.files, *(name for name in found if name not in self.files)]}

    def joined(self, new: Mapping[str, Kind], whole: Mapping[str, bool], where: str) -> dict[str, Kind]:
        """Return the kinds of the columns when new files follow.

        Parameters
        ----------
        new : mapping of column to Kind
            Of the new files together.
        whole : mapping of column to bool
            Whether none of their values is missing.
        where : str
            The new files, for errors.

        Raises
        ------
        PlanError
            When a column does not fit what is stored.
        """
        if not self.files:
            return dict(new)
        return {name: _joined(name, self.kinds[name], kind, whole.get(name, True), where) for name, kind in new.items()}


def _joined(name: str, old: Kind, new: Kind, whole: bool, where: str) -> Kind:
    fits = {
        "none": ("none", "int", "float"), "int": ("int",), "float": ("none", "int", "float"), "flag": ("none", "flag"),
        "time": ("none", "time"), "text": tuple(WORDS),
    }[old.kind]  # fmt: skip
    if old.kind == "int" and new.kind in ("none", "int", "float") and not whole:
        raise PlanError(
            f"append: column {name!r} is stored as int64, which knows no missing values, and some are missing in "
            f"{where}; fill them, or {REMEDY}"
        )
    if new.kind not in fits:
        raise PlanError(
            f"append: column {name!r} is stored as {WORDS[old.kind]} and holds {WORDS[new.kind]} in {where}; mend "
            f"the new files, or {REMEDY}"
        )
    if old.kind == "time" and new.kind == "time" and old.seconds and not new.seconds:
        raise PlanError(
            f"append: column {name!r} is stored in whole seconds and holds fractions in {where}; mend the new files, "
            f"or {REMEDY}"
        )
    if old.kind == "text":
        known = set(old.labels)
        return Kind("text", (*old.labels, *(label for label in new.labels if label not in known)))
    return Kind("float") if old.kind == "none" and new.kind != "none" else old


def named(entries: Sequence[Mapping[str, Source]]) -> tuple[dict[str, Source], list[str]]:
    """Return the files of all entries by a name of their own, in order, and the URLs of those that were named twice."""
    found: dict[str, Source] = {}
    seen: set[str] = set()
    twice: list[str] = []
    for position, entry in enumerate(entries):
        for name, source in entry.items():
            if source.url in seen:
                twice.append(source.url)
                continue
            seen.add(source.url)
            found[name if name not in found else f"{name}~{position}"] = source
    return found, twice
