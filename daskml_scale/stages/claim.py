"""The right to write an output from Python: it is nothing that is read, nothing of another kind, and nobody else's now.

``stores.create`` adapts or replaces what lies at a URL; this module decides before it whether that may be.
It writes nothing but the lock. A workflow needs none of this: its stages' names keep their outputs apart,
and it holds its whole store.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from daskml_scale.errors import UsageError
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.lock import hold

KINDS = {
    "ingest": "a table that ingest wrote",
    "features": "a feature matrix",
    "predict": "predictions",
    "rechunk": "a rechunked dataset",
}
"""Stage kind -> what it leaves, for people."""
_CODES = {
    "ingest": ("ingest",), "features": ("features",), "predict": ("predict", "features"), "rechunk": ("rechunk",),
}  # fmt: skip
"""Stage kind -> the kernels whose records its ledger holds."""


@contextmanager
def claim(out: str, kind: str, reads: Iterable[tuple[str, str]]) -> Iterator[None]:
    """Hold the right to write an output while the block runs.

    Parameters
    ----------
    out : str
        Normal URL of the output, ending in ``.zarr``.
    kind : str
        Of the output: a key of ``KINDS``.
    reads : iterable of (argument, URL)
        What the output is made from; an empty URL (data in memory) is passed over.

    Raises
    ------
    UsageError
        When ``out`` is, holds or lies in something that is read, or holds an output of another kind.
    ConflictError
        When another process writes there, or runs a workflow in the store that ``out`` lies in.
    """
    for argument, url in reads:
        if url and overlap(out, url):
            raise UsageError(
                f"out={out} would write over {argument} ({url}), which is read for it; choose another out, "
                f"such as {_another(out, kind)}"
            )
    with ExitStack() as held:
        for folder in _locked(out):
            held.enter_context(hold(folder, f"{kind} {out.rpartition('/')[2]}"))
        _refuse_another_kind(out, kind)
        yield


def overlap(one: str, other: str) -> bool:
    """Return whether two URLs name the same place, or one a place inside the other, however they are spelt."""
    first, second = _place(one), _place(other)
    if first[: len(second)] == second or second[: len(first)] == first:
        return True
    try:
        here = files.is_local(one) and files.is_local(other)
        return here and os.path.samefile(files.local_path(one), files.local_path(other))
    except OSError:
        return False  # at most one of them exists


def _place(url: str) -> list[str]:
    """Return the steps of the way to a place: links followed, doubled and trailing slashes left out."""
    path = os.path.realpath(files.local_path(url).expanduser()) if files.is_local(url) else url
    return [part for part in path.split("/") if part]


def _locked(out: str) -> list[str]:
    """Return the folders to hold: the output's ledger, and the store of a workflow if it lies in one."""
    folder = out.rpartition("/")[0]
    in_a_store = not files.is_memory(out) and files.stat(files.join(folder, ".lock")) is not None
    return [*([folder] if in_a_store else []), stores.beside(out, "ledger")]


def _refuse_another_kind(out: str, kind: str) -> None:
    """Refuse to replace what a stage of another kind wrote."""
    if stores.exists(out):
        found = _kind_at(out)
        if found not in (kind, ""):
            raise UsageError(
                f"out={out} holds {KINDS.get(found, 'another dataset')}, which {KINDS[kind]} would replace; "
                f"choose another out, such as {_another(out, kind)}, or remove it first"
            )
        return
    ledger = stores.beside(out, "ledger")
    codes = {record.parts.code.partition("-")[0] for record in Ledger(ledger).records().values()}
    strange = sorted(codes.difference(_CODES[kind]))
    if strange:
        raise UsageError(
            f"{ledger} holds the records of {strange[0]}, which those of out={out} would replace; "
            f"choose another out, such as {_another(out, kind)}"
        )


def _kind_at(url: str) -> str:
    """Return the stage kind of a dataset; empty when it was never completed, or is not ours (``create`` refuses it)."""
    attrs = dict(stores.open_group(url).attrs)
    mark = attrs.get(stores.MARK)
    if not isinstance(mark, dict) or not mark.get("layout"):
        return ""
    if "rechunked" in attrs:
        return "rechunk"
    if "model_sha256" in attrs:
        return "predict"
    if "recipe" in attrs:
        return "features"
    return "ingest" if "derived_from" in attrs and "source" in attrs else "other"


def _another(out: str, kind: str) -> str:
    """Return a name for an output beside ``out``."""
    return f"{out.rpartition('/')[2].removesuffix('.zarr')}-{'table' if kind == 'ingest' else kind}.zarr"
