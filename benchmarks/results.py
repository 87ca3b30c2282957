"""What result files hold: rows by module, the goals and what was measured for them, what became slower.

A result file is what ``python -m benchmarks --folder`` writes per module (``modules``), what ``benchmarks.clusters``
writes with ``--json`` (``rows``), or numbers by name, each with its goal (``found`` of ``benchmarks.runs``,
``.kubernetes``, ``.watching`` and ``.scaling``), verdicts in words (``goals`` of ``.scaling``), or curves (``curves``).
Parts of one module may have been measured apart and lie in several files: a row knows its file.
Nothing here measures, and nothing is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

GOALS = Path(__file__).parent / "goals.yaml"
Files = Mapping[str, Mapping[str, Any]]
"""Result files by name."""
KINDS = {"modules", "rows", "found", "goals", "curves"}


@dataclass(frozen=True)
class Measured:
    """One row of a result file: a work, ours and a peer."""

    module: str
    file: str
    row: Mapping[str, Any]

    @property
    def work(self) -> str:
        return str(self.row["work"])

    @property
    def peer(self) -> str:
        return str(self.row["peer"])

    @property
    def ratio(self) -> float:
        """Ours / peer's, the median of the rounds; above 1 we are slower."""
        return float(self.row["ratio"]["median"])


@dataclass(frozen=True)
class Goal:
    """A goal, and what was measured; ``value`` is ``None`` where no file has it."""

    area: str
    goal: str
    wanted: str
    value: float | None
    spread: tuple[float, float] | None = None
    """Lowest and highest of the rounds, where there are rounds."""
    file: str = ""
    why: str = ""
    """The reason of a miss, and what was tried."""
    said: str = ""
    """What a file tells in words of its own, with ``kept``."""
    kept: bool = False

    @property
    def held(self) -> bool | None:
        """Whether the goal is kept; ``None`` where nobody measured."""
        if self.said:
            return self.kept
        return None if self.value is None else holds(self.value, self.wanted)

    @property
    def miss(self) -> float:
        """By what factor it is missed, above 1 where it is; 0 where nothing was measured or a file says it in words."""
        if self.value is None:
            return 0.0
        sign, limit = self.wanted.split()
        aim = float(limit)
        if aim == 0:
            return 1.0 + self.value
        return self.value / aim if sign.startswith("<") else aim / self.value if self.value else float("inf")


def holds(value: float, wanted: str) -> bool:
    """Return whether a value keeps a limit such as ``<= 1.3``."""
    sign, limit = wanted.split()
    aim = float(limit)
    return {"<": value < aim, "<=": value <= aim, ">": value > aim, ">=": value >= aim}[sign]


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the result files of a folder by name."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    for name, data in found.items():
        if not KINDS & set(data):
            raise SystemExit(f"{folder / name}.json: not a result file; it has none of {', '.join(sorted(KINDS))}")
    return found


def modules(files: Files) -> dict[str, list[Measured]]:
    """Return module -> its rows of all files, our worst ratio first."""
    found: dict[str, list[Measured]] = {}
    for name, data in files.items():
        parts = {module: each["rows"] for module, each in data.get("modules", {}).items()}
        if "rows" in data:
            parts[name.partition("-")[0]] = data["rows"]
        for module, rows in parts.items():
            found.setdefault(module, []).extend(Measured(module, name, row) for row in rows)
    return {module: sorted(rows, key=lambda one: -one.ratio) for module, rows in sorted(found.items()) if rows}


@cache
def listed() -> tuple[Mapping[str, str], ...]:
    """Return the entries of ``goals.yaml``."""
    return tuple(yaml.safe_load(GOALS.read_text()))


def goals(files: Files) -> list[Goal]:
    """Return all goals, missed ones first, then by how near the limit is; unmeasured ones last."""
    rows = modules(files)
    found: list[Goal] = []
    known: set[tuple[str, str]] = set()
    for each in listed():
        if "wanted" not in each:
            continue
        if "module" in each:
            found.append(_of_rows(each, rows))
        else:
            told = [one for one in _told(files) if re.search(each["named"], one.goal)]
            known |= {(one.file, one.goal) for one in told}
            found += [_named(each, one) for one in told] or [_nobody(each)]
    found += [one for one in _told(files) if (one.file, one.goal) not in known and one.wanted]
    return sorted(found, key=lambda goal: -goal.miss)


def why(row: Measured) -> str:
    """Return what is known of why a row is as it is: said of losses, or else of a goal that it is held against."""
    return _loss(row) or next((each["why"] for each in listed() if "why" in each and _matches(each, row)), "")


def _loss(row: Measured) -> str:
    found = (each["why"] for each in listed() if "wanted" not in each and _matches(each, row))
    return next(found, "")


def dropped(before: Files, now: Files, most: float = 0.15) -> list[str]:
    """Return what became slower against its limit by more than a share, from one set of files to another."""
    old = {(one.module, one.work): _of_limit(one) for rows in modules(before).values() for one in rows}
    new = {(one.module, one.work): _of_limit(one) for rows in modules(now).values() for one in rows}
    return [
        f"{module}: {work}: {share:.3g} of its limit, {was:.3g} before (+{share / was - 1:.0%})"
        for (module, work), share in new.items()
        if (was := old.get((module, work))) is not None and share > was * (1 + most)
    ]


def _of_limit(one: Measured) -> float:
    return float(one.row["ours"]["median"] / one.row["limit"])


def _nobody(each: Mapping[str, str]) -> Goal:
    return Goal(each["area"], each["goal"], each["wanted"], None)


def _of_rows(each: Mapping[str, str], rows: Mapping[str, Sequence[Measured]]) -> Goal:
    """The worst of the rows that a goal is about."""
    found = [
        (values, one)
        for one in rows.get(each["module"], ())
        if _matches(each, one) and (values := _values(one.row, each["value"])) is not None
    ]
    if not found:
        return _nobody(each)
    pick = max if each["wanted"].startswith("<") else min
    (value, *spread), one = pick(found, key=lambda pair: pair[0][0])
    ends = (min(spread), max(spread)) if spread else None
    return Goal(each["area"], each["goal"], each["wanted"], value, ends, one.file, each.get("why") or _loss(one))


def _matches(each: Mapping[str, str], one: Measured) -> bool:
    if each.get("module") != one.module:
        return False
    return bool(re.search(each["work"], one.work) and re.search(each["peer"], one.peer))


def _values(row: Mapping[str, Any], what: str) -> tuple[float, ...] | None:
    """Return the median and the ends of what a goal is about; a count stands alone."""
    whose, _, name = what.partition("counts: ")
    if name:
        found = row["counts"].get("peer" if whose else "ours", {}).get(name)
        return None if found is None else (float(found),)
    ends = ("median", "min", "max")
    if what in ("ratio", "faster"):
        values = [row["ratio"][end] for end in ends]
        return tuple(values) if what == "ratio" else tuple(1 / value for value in values)
    values = [row["ours"][end] for end in ends]
    return tuple(values) if what == "seconds" else tuple(row["limit"] / value for value in values)


def _told(files: Files) -> Iterator[Goal]:
    """Numbers that files give a name to; those without a goal of their own have no ``wanted``."""
    for name, data in files.items():
        area = data.get("area", name)
        for what, got, wanted, kept in data.get("goals", ()):
            yield Goal(area, what, wanted, None, file=name, said=got, kept=kept)
        for what, (value, goal) in data.get("found", {}).items():
            yield Goal(area, what, "" if goal is None else f"<= {goal:g}", float(value), file=name)


def _named(each: Mapping[str, str], told: Goal) -> Goal:
    wanted = told.wanted if told.said else each["wanted"]
    return Goal(each["area"], told.goal, wanted, told.value, None, told.file, each.get("why", ""), told.said, told.kept)
