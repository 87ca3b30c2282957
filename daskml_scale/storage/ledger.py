"""The ledger of a stage: durable segments of unit records, beside the dataset that the units write.

A segment is one immutable object, written whole by the driver (``00000007.json``); a later segment
wins. ``compact`` writes one segment that says the same and then removes the older ones, so a crash
between the two leaves duplicates, never a gap. Nothing is appended to, so object stores will do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from daskml_scale.errors import StoreError
from daskml_scale.plan.records import FORMAT, Record
from daskml_scale.plan.units import Parts

from . import files

_SEGMENT = 8
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "digest": ("",), "rows": (0,), "attempt": (1,), "inputs": ("",), "chunks": ({},), "error": ("",), "seconds": (0.0,),
    "worker": ("",),
}  # fmt: skip


class Ledger:
    """Records of one stage.

    Parameters
    ----------
    url : str
        Folder of the segments, ``<store>/<stage>.ledger``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._records: dict[str, Record] | None = None
        self._segments: list[str] = []

    def records(self) -> Mapping[str, Record]:
        """Return the newest record of every unit.

        Raises
        ------
        StoreError
            When a segment is not readable: names it and the remedy.
        """
        if self._records is None:
            self._records = {}
            self._segments = [name for name in files.names(self.url) if _is_segment(name)]
            for name in self._segments:
                for record in self._read(name):
                    self._records[record.unit] = record
        return self._records

    def append(self, records: Iterable[Record]) -> None:
        """Write one durable segment; nothing for no records."""
        fresh = list(records)
        if not fresh:
            return
        known = dict(self.records())
        number = int(self._segments[-1].split(".")[0]) + 1 if self._segments else 1
        name = f"{number:0{_SEGMENT}d}.json"
        files.write_bytes(files.join(self.url, name), _encode(fresh))
        self._segments.append(name)
        known.update((record.unit, record) for record in fresh)
        self._records = known

    def compact(self, keep: Iterable[str] | None = None) -> None:
        """Replace all segments by one, in unit order.

        Parameters
        ----------
        keep : iterable of unit keys, optional
            Only these stay; all by default.
        """
        records = self.records()
        wanted = set(records if keep is None else keep)
        kept = [records[unit] for unit in sorted(records) if unit in wanted]
        if len(self._segments) <= 1 and len(kept) == len(records):
            return
        old = list(self._segments)
        self.append(kept)
        for name in old:
            files.remove(files.join(self.url, name))
        self._segments = self._segments[len(old) :]
        self._records = {record.unit: record for record in kept}

    def result(self) -> dict[str, Any] | None:
        """Return the result of the finished stage, or ``None``."""
        found: dict[str, Any] | None = files.read_json(files.join(self.url, "result.json"))
        return found

    def put_result(self, value: Mapping[str, Any]) -> None:
        """Keep the result of the finished stage; written only when it changed."""
        if self.result() != value:
            files.write_json(files.join(self.url, "result.json"), dict(value))

    def _read(self, name: str) -> list[Record]:
        data = files.read_bytes(files.join(self.url, name))
        try:
            return _decode(data or b"")
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise StoreError(
                f"{files.join(self.url, name)} is not a ledger segment of format {FORMAT} ({error}); "
                "remove that file: its units will run again"
            ) from None


def _is_segment(name: str) -> bool:
    stem, _, suffix = name.partition(".")
    return suffix == "json" and len(stem) == _SEGMENT and stem.isdigit()


def _encode(records: list[Record]) -> bytes:
    parts = sorted({tuple(asdict(record.parts).values()) for record in records})
    rows = []
    for record in records:
        # Only what equals the field's default is left out; a result of 0 or False is a result.
        row = {
            key: value
            for key, value in asdict(record).items()
            if (key == "result" and value is not None) or (key != "result" and value not in _DEFAULTS.get(key, ()))
        }
        row["parts"] = parts.index(tuple(asdict(record.parts).values()))
        rows.append(row)
    return json.dumps({"format": FORMAT, "parts": parts, "records": rows}, separators=(",", ":")).encode()


def _decode(data: bytes) -> list[Record]:
    content = json.loads(data)
    if content["format"] != FORMAT:
        raise ValueError(f"format {content['format']}")
    parts = [Parts(*values) for values in content["parts"]]
    return [
        Record(
            **{
                "digest": "",
                **row,
                "parts": parts[row["parts"]],
                "chunks": {key: tuple(stored) for key, stored in row.get("chunks", {}).items()},
            }
        )
        for row in content["records"]
    ]
