"""``dms.map(out=...)``: each group of outcomes becomes a durable segment before its futures are released.

A fingerprint covers the function's code and the item; an item whose newest row carries the same one and is
ok is not run again. The worker packs and digests each value, so that the driver only joins columns.
"""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import numpy as np

from daskml_scale.engine.dispatch import OnPayload, Outcomes
from daskml_scale.errors import UsageError
from daskml_scale.plan.units import Outcome, Unit
from daskml_scale.storage import files, result_segments, results
from daskml_scale.storage.lock import hold
from daskml_scale.storage.result_segments import FAILED, OK, SIZE, Columns
from daskml_scale.storage.results import Index, Results
from daskml_scale.storage.urls import is_icechunk
from daskml_scale.storage.values import identifier, identity, pack, unpack

from . import durations
from .accounting import LAST, StageRow
from .calls import Call, unit
from .code import code_digest


@dataclass(frozen=True)
class _Stored:
    """The function as it runs: returns the digest of a value and its bytes."""

    func: Callable[[Any], Any]

    def __call__(self, item: Any) -> bytes:
        value = pack(self.func(item))
        return hashlib.blake2b(value, digest_size=SIZE).digest() + value


class Durable:
    """One call with ``out=``.

    Parameters
    ----------
    call : Call
    out : str or path
        Folder of the results.

    Raises
    ------
    UsageError
        When ``out`` cannot be, or holds something else.
    """

    def __init__(self, call: Call, out: str | os.PathLike[str]) -> None:
        if not isinstance(out, (str, os.PathLike)):
            raise UsageError(f"out is a {type(out).__name__}; give the path of a folder for the results")
        self.call, self.url = call, files.normal(out)
        if self.url.endswith((".zarr", ".ledger")):
            raise UsageError(
                f"out={os.fspath(out)!r} is the name of a dataset or its ledger; results are neither: choose another "
                f"name, such as {self.url.rpartition('/')[2].rpartition('.')[0]}.results"
            )
        if is_icechunk(self.url):
            raise UsageError(f"{self.url} is an Icechunk repository, which keeps arrays; give a folder for the results")
        self.code = code_digest(call.func)
        self.pending: dict[int, bytes] = {}
        """Number -> fingerprint of what is read and has no row yet."""
        self.reused = array("q")
        self.reasons: Counter[str] = Counter()
        self.done = 0
        self.nanoseconds = 0

    def results(self) -> Results:
        """Run what is left; return all results."""
        for _ in self._groups():
            self.reused = array("q")  # nobody asks for them one by one
        self.call.check_failures(
            self.call.items.count, f"; the others are in {self.url}, and the same call tries only the failed ones again"
        )
        return Results(self.url, reasons=dict(self.reasons))

    def outcomes(self) -> Iterator[Outcome]:
        """Yield the outcomes of all items, reused ones as they are met."""
        old: Results | None = None
        for group in chain(self._groups(), [None]):
            reused, self.reused = self.reused, array("q")
            if reused:
                # At the end segments may have been merged: look again.
                old = Results(self.url) if old is None or group is None else old
                yield from map(old.outcome, reused)
            for outcome in group or ():
                yield outcome if outcome.error else _opened(outcome)

    def _groups(self) -> Iterator[Outcomes]:
        """Run what is left and yield every group once it is durable."""
        started = time.time()
        self._refuse_others()
        with ExitStack() as stack:
            stack.enter_context(hold(self.url, f"dms.map of {self.call.name}"))
            self.index = Index(self.url)
            self.number = results.next_number(self.url)
            duration = ("map", self.code.hex())
            groups: Any = self.call.groups(
                OnPayload(_Stored(self.call.sent())),
                self._units(),
                None if len(self.index) else self.call.items.total,
                durations.remembered(self.url, duration),
            )
            stack.enter_context(closing(groups))
            for group in groups:
                self._commit(group)
                yield group
            self._end(duration, started)

    def _end(self, duration: tuple[str, str], started: float) -> None:
        items = self.call.items
        if self.done:
            durations.remember(self.url, duration, self.nanoseconds / 1e9 / self.done)
        kept = "their results" if items.count else "nothing"
        items.check(f"{kept} are in {self.url}; mend them and call again: what is there is not run again")
        results.finish(self.url, items.count, self.call.name)
        row = StageRow(self.call.name, "map", items.count, items.count - self.done, time.time() - started, items.count)
        LAST.append(row)

    def _refuse_others(self) -> None:
        there = files.names(self.url)
        if there and results.MANIFEST not in there and not results.segment_names(self.url):
            if set(there) <= {durations.NAME}:
                return
            raise UsageError(
                f"out={self.url} holds other files ({', '.join(there[:3])}{', ...' if len(there) > 3 else ''}); "
                "choose a new folder for the results"
            )

    def _units(self) -> Iterator[Unit]:
        """Yield the items that must run (the hot path)."""
        known, ok, have = self.index.prints.tobytes(), self.index.ok.tobytes(), len(self.index)
        hasher_of_code = hashlib.blake2b(self.code, digest_size=SIZE).copy
        pending, items, packer = self.pending, self.call.items, identifier()
        pack_item, number = packer.pack, -1
        try:
            for number, item in enumerate(items.source):
                try:
                    data = pack_item(item)
                except Exception:
                    packer.reset()
                    data = _identity(number, item)
                hasher = hasher_of_code()
                hasher.update(data)
                found = hasher.digest()
                if number < have:
                    if ok[number] and known[number * SIZE : number * SIZE + SIZE] == found:
                        self.reused.append(number)
                        continue
                    self.reasons[self.index.reason(number, found, self.code)] += 1
                pending[number] = found
                yield unit((str(number), item, 1.0))
        except Exception as raised:
            items.broken = raised
        finally:
            items.count = number + 1
            if number >= have:
                self.reasons["new"] += number + 1 - have

    def _commit(self, group: Outcomes) -> None:
        numbers: list[int] = []
        values: list[bytes] = []
        errors: dict[int, str] = {}
        for part in group.parts:
            for position, failure in part.rows.failures.items():
                errors[len(values) + position] = f"{failure.error}\n{failure.traceback}".strip()
            self.call.note_failures(part)
            numbers += [int(unit.key) for unit in part.units]
            values += part.rows.values if not part.rows.failures else [value or b"" for value in part.rows.values]
        sizes = [len(part.units) for part in group.parts]
        workers = {part.worker: None for part in group.parts}
        places = {worker: place for place, worker in enumerate(workers)}
        status = np.full(len(numbers), OK, "uint8")
        status[list(errors)] = FAILED
        nanoseconds = np.concatenate([np.frombuffer(part.rows.nanoseconds, "int64") for part in group.parts])
        columns = Columns(
            numbers=np.array(numbers, "int64"),
            prints=np.frombuffer(b"".join(map(self.pending.pop, numbers)), "uint8").reshape(-1, SIZE),
            status=status,
            attempts=np.repeat(np.array([min(255, part.attempt) for part in group.parts], "uint8"), sizes),
            nanoseconds=nanoseconds,
            worker=np.repeat(np.array([places[part.worker] for part in group.parts], "uint16"), sizes),
            code=np.zeros(len(numbers), "uint16"),
            ends=np.fromiter(accumulate(map(len, values)), "uint64", len(values)),
            workers=list(workers),
            codes=[self.code],
            values=b"".join(values),
            errors=errors,
        )
        result_segments.write(self.url, self.number, columns)
        self.number += 1
        self.done += len(numbers)
        self.nanoseconds += int(nanoseconds.sum())


def _identity(number: int, item: Any) -> bytes:
    try:
        return identity(item)
    except Exception as error:
        raise UsageError(
            f"item {number} (a {type(item).__name__}) cannot be pickled: {type(error).__name__}: {error}; give plain "
            "values (a path, an index, an array) and open files, locks and connections in the function"
        ) from error


def _opened(outcome: Outcome) -> Outcome:
    return Outcome(outcome.unit, unpack(outcome.value[SIZE:]), "", "", outcome.seconds, outcome.worker, outcome.attempt)
