"""What a column of one block holds: numbers, times, true and false, or text.

What the blocks of many files make of a column together is said by ``merged_types``; its values, once that is known,
are made by ``read_values``. Nothing here reads or writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError
from daskml_scale.spec.expressions import Coded, Values
from daskml_scale.storage import tables

MAX_LABELS = 100_000
"""Most labels of a category column: they live in the metadata that every reader loads."""
_ISO = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"
_SAMPLE = 200
"""Values looked at to guess what a column of text should be."""
_FIRST, _LAST = "1678-01-01", "2261-12-31T23:59:59"
"""Ends of what 64-bit nanoseconds can tell."""
EXACT = 2**53
"""Whole numbers below it are exact in float64."""
REASONS = {
    "time": "is not a time in ISO 8601",
    "number": "is not a number",
    "whole": "does not fit into 64 bits",
    "flag": "is neither True nor False",
    "ages": f"is a time outside the years {_FIRST[:4]} to {_LAST[:4]}",
}
_TOO_LARGE = "write it as text, or leave it out by `columns:`"
WORDS = {
    "int": "whole numbers", "float": "numbers", "flag": "true and false", "time": "times", "text": "text",
    "none": "nothing but empty cells",
}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What one column holds in one block; JSON through ``asdict``.

    Attributes
    ----------
    kind : str
        ``none``, ``int``, ``float``, ``flag``, ``time`` or ``text``.
    present : int
        Values that are not missing.
    missing : bool
        Whether any value is.
    raw : bool
        Whether it was read as text: Arrow takes it for something else.
    seconds : bool
        Whether all its times are whole seconds.
    most : int
        Largest whole number, regardless of sign.
    labels : tuple of str
        Distinct texts, sorted.
    good : mapping of kind to int
        Of a text column: the values that would be of the kind.
    bad : tuple
        Of a text column that should be of another kind: (value, row in the block, reason).
    """

    kind: str = "none"
    present: int = 0
    missing: bool = False
    raw: bool = False
    seconds: bool = True
    most: int = 0
    labels: tuple[str, ...] = ()
    good: Mapping[str, int] = field(default_factory=dict)
    bad: tuple[str, int, str] | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Seen:
        """Return it from its JSON form."""
        bad = data.get("bad")
        return cls(**{**data, "labels": tuple(data.get("labels", ())), "bad": tuple(bad) if bad else None})

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults."""
        plain = asdict(self)
        return {name: value for name, value in plain.items() if value != _PLAIN[name]}


_PLAIN = asdict(Seen())


@dataclass(frozen=True)
class Kind:
    """What a column of the table holds.

    Attributes
    ----------
    kind : str
        As of ``Seen``.
    labels : tuple of str
        Of all files; the code of a text is its place.
    seconds : bool
    """

    kind: str
    labels: tuple[str, ...] = ()
    seconds: bool = False

    @property
    def dtype(self) -> str:
        """NumPy's name of the stored type."""
        return {"text": "int32", "time": "int64", "int": "int64"}.get(self.kind, "float64")

    def plain(self) -> tables.ColumnType:
        """Return how the column is stored, without its labels: what encoding needs."""
        return tables.ColumnType("int32") if self.kind == "text" else self.stored()

    def stored(self) -> tables.ColumnType:
        """Return how the column is stored."""
        empty: Values = np.empty(0)
        if self.kind == "text":
            empty = Coded(np.empty(0, dtype="int32"), self.labels)
        elif self.kind == "time":
            empty = np.array([0 if self.seconds else 1], dtype="datetime64[ns]")
        elif self.kind == "int":
            empty = np.empty(0, dtype="int64")
        return tables.column_type(empty)


def seen(column: Any, *, raw: bool = False) -> Seen | None:
    """Return what an Arrow column of a block holds; ``None`` when it must be read as text to tell.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
    raw : bool
        Whether it was read as text on purpose.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, rows, missing = column.type, len(column), column.null_count
    plain: dict[str, Any] = {"present": rows - missing, "missing": missing > 0}
    if missing == rows:
        return Seen("none", **plain)
    if is_text(kind) or pa.types.is_dictionary(kind):
        return _text(column, raw, **plain)
    if pa.types.is_boolean(kind):
        return Seen("flag", **plain)
    if pa.types.is_integer(kind):
        least, most = (int(value.as_py()) for value in pc.min_max(column).values())
        if most > 2**63 - 1:
            raise PlanError(f"an integer column goes up to {most}, beyond int64; {_TOO_LARGE}")
        return Seen("int", most=max(abs(least), abs(most)), **plain)
    if pa.types.is_floating(kind):
        if raw or not pc.any(pc.greater_equal(pc.abs(column), float(EXACT)), min_count=0).as_py():
            return Seen("float", **plain)
        return None  # whole numbers beyond 64 bits look like this, too
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _times(column, plain)
    return None


def _times(column: Any, plain: Mapping[str, Any]) -> Seen | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s" if pa.types.is_date32(column.type) else "ms"))
    unit = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[column.type.unit]
    numbers = column.cast(pa.int64())
    least, most = (int(value.as_py()) for value in pc.min_max(numbers).values())
    first, last = (int(np.datetime64(end, "s").astype("int64")) for end in (_FIRST, _LAST))
    if least < first * unit or most > last * unit:
        return None
    values = numbers.drop_null().to_numpy()
    return Seen("time", seconds=unit == 1 or not np.any(values % unit), **plain)


def _text(column: Any, raw: bool, *, present: int, missing: bool) -> Seen:
    """Return what a column of text holds: perhaps numbers or times that Arrow does not know."""
    import pandas as pd

    texts, codes = indexed(column)
    labels = pd.Series(texts, dtype=object)
    counts = np.bincount(codes[codes >= 0], minlength=len(labels))
    used = np.flatnonzero(counts)
    labels, counts = labels.iloc[used].reset_index(drop=True), counts[used]
    meant = _meant(labels.iloc[:: max(1, len(labels) // _SAMPLE)])
    common: dict[str, Any] = {"present": present, "missing": missing, "raw": raw}
    ok, reason = _fits(labels, meant) if meant else (np.zeros(len(labels), dtype=bool), "")
    good = int(counts[ok].sum())
    if meant and good == present:
        return _all_fit(labels, meant, common)
    if reason == REASONS["whole"]:
        _refuse_unsigned(labels)
    bad = None
    if meant:
        place = np.full(int(used.max()) + 2, True)
        place[used] = ok
        row = int(np.argmax(~place[codes] & (codes >= 0)))
        bad = (str(column[row].as_py())[:60], row, reason)
    kept = tuple(sorted(map(str, labels.iloc[: MAX_LABELS + 1])))
    return Seen("text", labels=kept, good={meant: good} if meant else {}, bad=bad, **common)


def indexed(column: Any) -> tuple[list[str], np.ndarray]:
    """Return the distinct texts of an Arrow column, and the place of every row's among them, -1 where it is missing."""
    import pyarrow as pa

    coded = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    coded = coded if pa.types.is_dictionary(coded.type) else coded.dictionary_encode()
    return coded.dictionary.to_pylist(), np.asarray(coded.indices.fill_null(-1).to_numpy(zero_copy_only=False))


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type is text."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _refuse_unsigned(labels: Any) -> None:
    """Refuse whole numbers of which some fit only into 64 bits without a sign: text is not meant."""
    numbers = [int(label) for label in labels] if labels.str.fullmatch(r"\s*\+?\d+\s*").all() else [2**64]
    if max(numbers) < 2**64:
        raise PlanError(f"an integer column goes up to {max(numbers)}, beyond int64; {_TOO_LARGE}")


def _all_fit(labels: Any, meant: str, common: dict[str, Any]) -> Seen:
    import pandas as pd

    common = {**common, "raw": True}
    if meant == "flag":
        return Seen("flag", **common)
    if meant == "time":
        return Seen("time", seconds=not (instants(labels).dt.as_unit("ns").astype("int64") % 10**9).any(), **common)
    whole = labels.str.fullmatch(r"\s*[+-]?\d+\s*").all()
    return Seen("int" if whole else "float", most=int(pd.to_numeric(labels).abs().max()) if whole else 0, **common)


def _meant(sample: Any) -> str:
    """Return what half of the texts of a sample, or more, are: ``time``, ``number`` or ``flag``; empty for text."""
    import pandas as pd

    if sample.str.match(_ISO).mean() >= 0.5:
        return "time"
    if pd.to_numeric(sample, errors="coerce").notna().mean() >= 0.5:
        return "number"
    return "flag" if sample.str.lower().isin(("true", "false")).mean() >= 0.5 else ""


def instants(labels: Any) -> Any:
    """Return texts as times with a zone; missing where one is no time in ISO 8601."""
    import pandas as pd

    return pd.to_datetime(labels.where(labels.str.match(_ISO)), utc=True, format="ISO8601", errors="coerce")


def _fits(labels: Any, meant: str) -> tuple[np.ndarray, str]:
    """Return which texts are of a kind, and what is wrong with the others."""
    import pandas as pd

    if meant == "flag":
        return labels.str.lower().isin(("true", "false")).to_numpy(), REASONS["flag"]
    if meant == "time":
        found = instants(labels)
        within = found.between(pd.Timestamp(_FIRST, tz="UTC"), pd.Timestamp(_LAST, tz="UTC"))
        odd = labels[~within]  # pandas 2 has no instant for a year such as 9999
        far = odd.str.match(_ISO) & ~odd.str[:4].between(_FIRST[:4], _LAST[:4])
        return within.to_numpy(), REASONS["ages" if found.notna().all() or far.all() else "time"]
    numbers = pd.to_numeric(labels, errors="coerce").astype("float64")
    whole = labels.str.fullmatch(r"\s*[+-]?\d+\s*").astype(bool) & (numbers.abs() >= 2.0**63)
    ok = (numbers.notna() & ~whole).to_numpy()
    return ok, REASONS["whole" if numbers.notna().all() else "number"]
