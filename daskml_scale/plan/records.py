"""Ledger records, fingerprints and the reason for every re-run. Pure.

A unit is reused when its newest record is ``ok`` and carries the fingerprint that the plan computes
now. Otherwise the first part that differs is the reason.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

from .units import Outcome, Parts, Plan, Reads, Unit
from .why import Why

FORMAT = 1
"""Version of fingerprints."""
OK, FAILED = "ok", "failed"
MISSING, TORN, ALTERED = "missing", "torn", "altered"
"""Statuses of a record whose stored output is gone, cut short, or not the bytes that the unit wrote."""
NEW = "new"
"""Reason of a unit that has never run."""
RETRY = "retry"
"""Status of a record whose unit somebody asked to run again."""
_REASONS = {
    OK: "",
    RETRY: "asked to run again",
    MISSING: "output missing",
    TORN: "output torn",
    ALTERED: "output altered",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One unit in the ledger.

    ``unit``, ``fingerprint``, ``digest`` and ``status`` are equal between equal runs; the rest is not.

    Attributes
    ----------
    digest : str
        Of the encoded output, or of ``result``.
    inputs : str
        Digest of the ids of the input chunks read.
    parts : Parts
        The shared parts of the fingerprint, to explain a later re-run.
    result : object
        Small JSON value: statistics, a score, metrics.
    chunks : mapping
        Object key (``late/c/3``) -> (digest, size in bytes, stamp) of what the unit wrote. A key that
        begins with ``../`` names an object of a dataset beside the stage's.
    why : str
        Why the unit ran: a reason of :func:`reason`.
    """

    unit: str
    fingerprint: str
    digest: str
    status: str
    rows: int = 0
    attempt: int = 1
    inputs: str = ""
    parts: Parts = field(default_factory=Parts)
    result: Any = None
    chunks: Mapping[str, tuple[str, int, int]] = field(default_factory=dict)
    error: str = ""
    seconds: float = 0.0
    worker: str = ""
    why: str = ""

    def identity(self) -> tuple[str, str, str, str]:
        """Return what must be equal between two equal runs."""
        return self.unit, self.fingerprint, self.digest, self.status


def digest(*values: Any) -> str:
    """Return the BLAKE2b hex digest (20 bytes) of the canonical JSON of ``values``."""
    return hashlib.blake2b(_CANONICAL.encode(values).encode(), digest_size=20).hexdigest()


def _plain(value: Any) -> Any:
    if hasattr(value, "params"):
        return value.params()
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "__dataclass_fields__"):
        return asdict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a fingerprint")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_plain)
_quoted = json.encoder.encode_basestring_ascii


@lru_cache(maxsize=256)
def _head(parts: Parts) -> Any:
    """Return a hash that has read what all units of a pass share."""
    return hashlib.blake2b(_CANONICAL.encode([FORMAT, asdict(parts)])[:-1].encode(), digest_size=20)


def fingerprint(parts: Parts, key: str, inputs: str) -> str:
    """Return the fingerprint of a unit from the shared parts and the digest of what it reads.

    It is ``digest(FORMAT, parts, key, inputs)``; the shared part is hashed once.
    """
    return _fingerprint(_head(parts), key, inputs).hex()


def _fingerprint(head: Any, key: str, inputs: str) -> bytes:
    hasher = head.copy()
    hasher.update(f",{_quoted(key)},{_quoted(inputs)}]".encode())
    raw: bytes = hasher.digest()
    return raw


def reason(record: Record | None, parts: Parts, inputs: str, fingerprint_now: str) -> str:
    """Return why a unit must run, or an empty string when its record is valid."""
    if record is None:
        return NEW
    if record.fingerprint == fingerprint_now:
        return _REASONS.get(record.status, "failed before")
    for changed, name in (
        (record.parts.code != parts.code, "code changed"),
        (record.parts.parameters != parts.parameters, "parameters changed"),
        (record.parts.model != parts.model, "model changed"),
        (record.parts.schema != parts.schema, "output schema changed"),
        (record.inputs != inputs, "input changed"),
    ):
        if changed:
            return name
    return "format changed"


@runtime_checkable
class _Holds(Protocol):
    """Records that can be asked without being made."""

    def holds(self, unit: str, fingerprint: bytes) -> bool: ...


def select(
    units: Iterable[tuple[Unit, Reads]],
    parts: Parts,
    records: Mapping[str, Record],
    **plan: Any,
) -> Plan:
    """Return the plan that runs exactly the units without a valid record.

    Parameters
    ----------
    units : iterable of (unit, digest of the input ids that it reads)
        In place of a digest a function that finds it: called here for units that have a record, else when committed.
    parts : Parts
    records : mapping of unit key to its newest record
        A ``plan.table.Records`` is compared without making its records.
    **plan
        The other fields of :class:`Plan`.
    """
    run: list[Unit] = []
    inputs: dict[str, Reads] = {}
    because: dict[str, list[str]] = {}
    keys: list[str] = []
    head, holds = _head(parts), records.holds if isinstance(records, _Holds) else None
    for unit, read in units:
        key = unit.key
        keys.append(key)
        why = NEW
        if key in records:
            read = digest_read(read)
            now = _fingerprint(head, key, read)
            if holds is not None and holds(key, now):
                continue
            why = reason(records[key], parts, read, now.hex())
        if why:
            run.append(unit)
            inputs[key] = read
            because.setdefault(why, []).append(key)
    return Plan(
        units=tuple(run),
        inputs=inputs,
        reused=len(keys) - len(run),
        reasons={why: len(because[why]) for why in sorted(because)},
        why=Why.of(because),
        parts=parts,
        keys=tuple(keys),
        **plan,
    )


def after(earlier: Plan, plan: Plan) -> Plan:
    """Return the plan of a later pass of a stage whose ``earlier`` pass has no unit left to run."""
    return replace(plan, keys=earlier.keys + plan.keys, reused=earlier.reused + plan.reused)


@dataclass(frozen=True, slots=True)
class Written:
    """What a kernel that wrote a region returns: stored objects, rows, and a small result."""

    chunks: Mapping[str, tuple[str, int, int]]
    rows: int
    result: Any = None


def digest_read(read: Reads) -> str:
    """Return the digest of what a unit reads."""
    return read if isinstance(read, str) else read()


def to_record(outcome: Outcome, plan: Plan) -> Record:
    """Fold an outcome into its ledger record. ``Written`` values give chunks and rows, others the result."""
    key = outcome.unit.key
    read = digest_read(plan.inputs[key])
    common: dict[str, Any] = {
        "unit": key,
        "fingerprint": fingerprint(plan.parts, key, read),
        "inputs": read,
        "attempt": outcome.attempt,
        "parts": plan.parts,
        "seconds": outcome.seconds,
        "worker": outcome.worker,
        "why": plan.why.get(key),
    }
    if not outcome.ok:
        return Record(**common, digest="", status=FAILED, error=f"{outcome.error}\n{outcome.traceback}".strip())
    value, chunks, rows = outcome.value, {}, 0
    if isinstance(value, Written):
        value, chunks, rows = value.result, value.chunks, value.rows
    return Record(
        **common, digest=output_digest(chunks, value), status=OK, rows=rows, result=value, chunks=chunks
    )  # fmt: skip


def output_digest(chunks: Mapping[str, tuple[str, int, int]], result: Any) -> str:
    """Return the digest of what a unit made: of the objects that it wrote, if any, and of its result."""
    if not chunks:
        return digest(result)
    return digest([sorted((name, stored[0]) for name, stored in chunks.items()), result])
