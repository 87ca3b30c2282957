"""Look at the ledgers of a store, and compare everything that lies there with what they say.

``verify`` reads every stored object. Repairing changes no data: it marks the units whose objects are not
what they wrote, so that the next run writes exactly these again, and drops segments that are torn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from daskml_scale.errors import UsageError
from daskml_scale.plan.records import Record
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.lock import hold
from daskml_scale.storage.verify import LOST, Problem, repairs, verify

from .show import columns
from .words import plural, size, took

SUFFIX = ".ledger"


@dataclass(frozen=True, slots=True)
class Summary:
    """One ledger.

    Attributes
    ----------
    units : mapping of status to int
    objects, nbytes : int
        Stored objects, and their encoded bytes.
    seconds : float
        Kernel time of all units.
    torn : tuple of str
        Segments that cannot be read.
    """

    stage: str
    units: Mapping[str, int]
    rows: int
    objects: int
    nbytes: int
    seconds: float
    torn: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification found in one ledger.

    Attributes
    ----------
    units, objects : int
        That were looked at.
    problems : list of Problem
    repaired : int
        Units that were marked.
    """

    stage: str
    units: int
    objects: int
    problems: tuple[Problem, ...] = ()
    repaired: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def found_in(store: str) -> dict[str, str]:
    """Return stage -> URL of its ledger: those of a store, or that of one dataset.

    Parameters
    ----------
    store : str
        URL of a store, of a ``.zarr`` dataset or of its ``.ledger``.

    Raises
    ------
    UsageError
        When there is none.
    """
    url = files.normal(store)
    if url.endswith((".zarr", SUFFIX)):
        ledger = url if url.endswith(SUFFIX) else stores.beside(url, "ledger")
        listed = {ledger.rpartition("/")[2].removesuffix(SUFFIX): ledger} if files.names(ledger) else {}
    else:
        names = [name for name in files.names(url) if name.endswith(SUFFIX)]
        listed = {name.removesuffix(SUFFIX): files.join(url, name) for name in names}
    if not listed:
        raise UsageError(f"{store} holds no ledger; give the store of a workflow, or a dataset that a stage wrote")
    return listed


def chosen(store: str, stage: str | None) -> dict[str, str]:
    """Return the ledgers of a store, or of one stage in it.

    Raises
    ------
    UsageError
        When it has no such stage.
    """
    listed = found_in(store)
    if stage is not None and stage not in listed:
        raise UsageError(f"{store} has no ledger of a stage {stage!r}; it has {', '.join(listed)}")
    return listed if stage is None else {stage: listed[stage]}


def summaries(store: str) -> list[Summary]:
    """Return what the ledgers of a store hold."""
    return [_summary(stage, Ledger(url)) for stage, url in found_in(store).items()]


def _summary(stage: str, ledger: Ledger) -> Summary:
    records = ledger.records()
    sizes = [known[1] for _, _, known in records.objects()]
    return Summary(
        stage,
        dict(sorted(Counter(record.status for record in records.values()).items())),
        int(records.total("rows")),
        len(sizes),
        sum(sizes),
        float(records.total("seconds")),
        ledger.torn,
    )


def records_of(store: str, stage: str) -> Iterator[Record]:
    """Yield the records of one stage, in the order of its units."""
    records = Ledger(chosen(store, stage)[stage]).records()
    return (records[unit] for unit in sorted(records))


def checked(store: str, stage: str | None = None, *, repair: bool = False) -> list[Verdict]:
    """Compare what lies in a store with what its ledgers say, every byte of it.

    Parameters
    ----------
    store : str
    stage : str, optional
        Only this one.
    repair : bool
        Mark the units that are concerned, so that the next run repeats exactly these.

    Raises
    ------
    ConflictError
        When a run holds the store that is to be repaired.
    """
    listed = chosen(store, stage)
    with ExitStack() as held:
        if repair:
            for folder in {url.rpartition("/")[0] for url in listed.values()} | set(listed.values()):
                held.enter_context(hold(folder, "ledger verify --repair"))
        return [_verdict(name, Ledger(url), repair) for name, url in listed.items()]


def _verdict(stage: str, ledger: Ledger, repair: bool) -> Verdict:
    records = ledger.records()
    problems = [Problem("", name, LOST) for name in ledger.torn]
    problems += verify(stores.dataset_of(ledger.url), records)
    marks = repairs(problems) if repair else {}
    if marks:
        ledger.mark(marks)
    if repair and ledger.torn:
        ledger.compact()
    return Verdict(stage, len(records), sum(1 for _ in records.objects()), tuple(problems), len(marks))


def show(found: Iterable[Summary]) -> RenderableType:
    """Return the table of ledgers."""
    listed = list(found)
    header = ("stage", "units", "rows", "objects", "bytes", "time", "status")
    rows = [
        (
            one.stage, f"{sum(one.units.values()):,}", f"{one.rows:,}", f"{one.objects:,}", size(one.nbytes),
            took(one.seconds), _statuses(one),
        )
        for one in listed
    ]  # fmt: skip
    return columns(header, rows, header[1:6])


def _statuses(one: Summary) -> str:
    counts = [f"{count:,} {status}" for status, count in one.units.items()]
    return ", ".join([*counts, *(f"segment {name} is torn" for name in one.torn)])


def listing(records: Iterable[Record]) -> RenderableType:
    """Return the table of units."""
    header = ("unit", "status", "rows", "attempt", "time", "worker", "ran because")
    rows = [
        (one.unit, one.status, f"{one.rows:,}", str(one.attempt), took(one.seconds), one.worker, one.why or "-")
        for one in records
    ]
    return columns(header, rows, ("rows", "attempt", "time"))


def verdicts(found: Iterable[Verdict]) -> RenderableType:
    """Return what a verification found, one line per problem and a sentence."""
    listed = list(found)
    rows = [
        (one.stage, what.unit or "-", what.object or "its record", what.status)
        for one in listed
        for what in one.problems
    ]
    count, bad = sum(one.objects for one in listed), len({row[:2] for row in rows})
    looked = f"{plural(count, 'object')} of {plural(sum(one.units for one in listed), 'unit')}"
    if not rows:
        return Text(f"{looked} are what the ledger says.")
    repaired = sum(one.repaired for one in listed)
    end = f"{plural(repaired, 'unit')} marked: the next run repeats exactly these." if repaired else (
        "Mark them by --repair, and the next run repeats exactly these."
    )  # fmt: skip
    table = columns(("stage", "unit", "object", "is"), rows)
    return Group(table, Text(), Text(f"{looked} compared, {plural(bad, 'unit')} not as the ledger says. {end}"))


def said_by(store: str, unit: str) -> list[str]:
    """Return what is kept of a unit: one line per record, and the traceback of one that failed.

    Parameters
    ----------
    unit : str
        Its key, or ``STAGE:KEY``.

    Raises
    ------
    UsageError
        When no ledger of the store has it.
    """
    stage, _, key = unit.rpartition(":")
    lines: list[str] = []
    for name, url in chosen(store, stage or None).items():
        records = Ledger(url).records()
        if key in records:
            found = records[key]
            where = f" on {found.worker}" if found.worker else ""
            lines.append(
                f"{name}:{key}: {found.status}, attempt {found.attempt}, {took(found.seconds)}{where}, "
                f"because: {found.why or 'not noted'}"
            )
            lines += found.error.splitlines()
    if not lines:
        raise UsageError(f"no ledger in {store} has a unit {unit!r}; see: daskml-scale ledger show {store}")
    return lines
