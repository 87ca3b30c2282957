"""The ledger of a stage: durable segments of unit records, beside the dataset that the units write.

A segment is one immutable object, written whole by the driver (``00000007.seg``); a later segment wins,
by its number, never by a clock. ``compact`` writes one segment that says the same and then removes the
older ones, so a crash between the two leaves duplicates, never a gap. Nothing is appended to, so object
stores will do. What a segment looks like is ``ledger_segments``' business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from daskml_scale.errors import StoreError
from daskml_scale.plan.records import Record
from daskml_scale.plan.table import Block, Records

from . import files
from . import ledger_segments as segments

_NUMBER = 8
SUFFIXES = ("json", "seg")
"""Of segments of version 1, and of those that are written."""


FEW, SMALL = 8, 0.1
"""Segments that may stay beside each other, and the size of all but the largest, as a part of it."""


class Ledger:
    """Records of one stage.

    Parameters
    ----------
    url : str
        Folder of the segments, ``<store>/<stage>.ledger``.

    Attributes
    ----------
    torn : tuple of str
        Names of segments that are cut short or altered, once the records were read: what they said is
        not known, so their units run again, and the next compaction removes them.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.torn: tuple[str, ...] = ()
        self._records: Records | None = None
        self._segments: list[str] = []

    def records(self) -> Records:
        """Return the newest record of every unit.

        Raises
        ------
        StoreError
            When a segment cannot be read, or a newer version wrote it.
        """
        if self._records is None:
            found = Records()
            self._segments = [name for name in files.names(self.url) if _is_segment(name)]
            torn = []
            for name in self._segments:
                block = self._read(name)
                if block is None:
                    torn.append(name)
                else:
                    found.add(block)
            self.torn, self._records = tuple(torn), found
        return self._records

    def append(self, records: Iterable[Record]) -> None:
        """Write one durable segment; nothing for no records."""
        fresh = list(records)
        if fresh:
            self.append_block(Block.of(fresh))

    def append_block(self, block: Block) -> None:
        """Write one durable segment of records that are columns already."""
        known = self.records()
        if len(block):
            self._write(segments.encode(block))
            known.add(block)

    def mark(self, statuses: Mapping[str, str]) -> None:
        """Give units another status (``torn``), so that the next run repeats exactly these."""
        known = self.records()
        self.append(replace(known[unit], status=status) for unit, status in statuses.items())

    def compact(self, keep: Iterable[str] | None = None) -> None:
        """Replace all segments by one, in unit order.

        A few small ones beside a large one stay: one new unit in a million does not write the ledger again.

        Parameters
        ----------
        keep : iterable of unit keys, optional
            Only these stay; all by default.
        """
        known = self.records()
        kept = known if keep is None else known.only(keep)
        sizes = [len(block) for block in known.blocks]
        few = len(self._segments) <= FEW and sum(sizes) - max(sizes, default=0) <= SMALL * max(sizes, default=0)
        if few and len(kept) == len(known) and not self.torn:
            return
        old, block = list(self._segments), kept.newest()
        self._write(segments.encode(block))
        for name in old:
            files.remove(files.join(self.url, name))
        self._segments = self._segments[len(old) :]
        self.torn, self._records = (), Records([block])

    def result(self) -> dict[str, Any] | None:
        """Return the result of the finished stage, or ``None``."""
        found: dict[str, Any] | None = files.read_json(files.join(self.url, "result.json"))
        return found

    def put_result(self, value: Mapping[str, Any]) -> None:
        """Keep the result of the finished stage; written only when it changed."""
        if self.result() != value:
            files.write_json(files.join(self.url, "result.json"), dict(value))

    def _write(self, data: bytes) -> None:
        number = int(self._segments[-1].split(".")[0]) + 1 if self._segments else 1
        name = f"{number:0{_NUMBER}d}.{SUFFIXES[-1]}"
        files.write_bytes(files.join(self.url, name), data)
        self._segments.append(name)

    def _read(self, name: str) -> Block | None:
        url = files.join(self.url, name)
        if name.split(".")[1] not in SUFFIXES:
            raise StoreError(f"{url} is no ledger segment that this version of daskml-scale knows; use a newer one")
        try:
            return segments.decode(files.read_bytes(url) or b"")
        except segments.TornError:
            return None
        except segments.NewerError as error:
            raise StoreError(f"{url} {error}") from None


def _is_segment(name: str) -> bool:
    stem, _, suffix = name.partition(".")
    return bool(suffix) and len(stem) == _NUMBER and stem.isdigit()
