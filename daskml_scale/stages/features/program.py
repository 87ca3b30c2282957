"""A recipe as a frozen record: its steps, when rows must be predicted, and what fitting learnt.

It answers which columns are read and which features are made, and goes to JSON and back. It reads no
data and computes no features; ``transformer`` and ``planner`` are built on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

from daskml_scale.errors import SpecError, UsageError
from daskml_scale.plan.records import digest
from daskml_scale.spec.base import Spec, nanoseconds
from daskml_scale.spec.explain import explain
from daskml_scale.spec.expressions import names
from daskml_scale.spec.folds import FoldsBy
from daskml_scale.spec.steps import AnyStep, AsOf, EventStep, Lookup, Ordinal, Step, dump_step
from daskml_scale.spec.steps_categories import TargetMean
from daskml_scale.spec.steps_history import CarriedStep
from daskml_scale.spec.steps_learned import SklearnStep

from .learning import learns, lessons, reads_rows

FORMAT = 1
"""Version of a recipe's JSON."""


@dataclass(frozen=True)
class Program:
    """Steps and what fitting learnt.

    Attributes
    ----------
    steps : tuple of Step
    known_at : str
        Expression: when a row must be predicted.
    target : str or None
    categories : mapping of column to tuple of str, or None
        Sorted labels seen in ``fit``, for every ordinal column; ``None`` before fitting.
    withheld : tuple of str
        Columns whose value at the row itself never counts in a window or a join of its own table: the
        target and what goes with it, found in ``fit``. Prediction reads no target and still needs to know.
    learnt : mapping of step position to JSON value
        What the steps of ``learning`` learnt.
    folds : FoldsBy or None
        Folds whose statistics are kept apart.
    by_fold : tuple of mapping
        For each fold, ``categories`` and ``learnt`` of the other folds.
    seen : mapping or None
        The rows learnt from, as ``seen.Seen`` writes them.
    """

    steps: tuple[Step, ...]
    known_at: str
    target: str | None = None
    categories: Mapping[str, tuple[str, ...]] | None = None
    withheld: tuple[str, ...] = ()
    learnt: Mapping[str, Any] = field(default_factory=dict)
    folds: FoldsBy | None = None
    by_fold: tuple[Mapping[str, Any], ...] = ()
    seen: Mapping[str, Any] | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features, in order; those whose names are learnt are there once the recipe is fitted."""
        found: dict[str, None] = {}
        for position, step in enumerate(self.steps):
            for name in step.removes():
                found.pop(name, None)
            found.update(dict.fromkeys(self.outputs(position)))
        return tuple(found)

    def outputs(self, position: int) -> tuple[str, ...]:
        """Return the names of the features that a step appends, in order."""
        step = self.steps[position]
        return tuple(self.learnt.get(str(position), {}).get("names", ())) if step.names_learnt else step.outputs()

    @property
    def learns(self) -> bool:
        """Whether fitting must look at the rows that may be learnt from."""
        return self.categories is None and any(
            isinstance(step, (Ordinal, SklearnStep)) or learns(step) for step in self.steps
        )

    @property
    def estimators(self) -> tuple[int, ...]:
        """Positions of the steps that are fitted in a pass of their own."""
        return tuple(number for number, step in enumerate(self.steps) if isinstance(step, SklearnStep))

    @property
    def ordinal(self) -> tuple[str, ...]:
        """Columns whose categories ``fit`` collects."""
        return _unique(name for step in self.steps if isinstance(step, Ordinal) for name in step.of)

    @property
    def trailing(self) -> tuple[EventStep, ...]:
        """The steps that look at earlier rows of the table."""
        return tuple(step for step in self.steps if isinstance(step, EventStep))

    @property
    def windows(self) -> dict[tuple[str, tuple[str, ...], bool], int]:
        """Time column, match columns, and whether the history is carried -> longest window that ends there, ns."""
        longest: dict[tuple[str, tuple[str, ...], bool], int] = {}
        for step in self.trailing:
            spans = [nanoseconds(window) for window in step.spans()]
            key = (step.at, tuple(step.match), not spans)
            longest[key] = max(longest.get(key, 0), *spans, 0)
        return longest

    @property
    def times(self) -> tuple[str, ...]:
        """Time columns of the event steps."""
        return _unique(step.at for step in self.trailing)

    @property
    def matched(self) -> tuple[str, ...]:
        """Match columns of the event steps."""
        return _unique(name for step in self.trailing for name in step.match)

    @property
    def carried(self) -> dict[int, CarriedStep]:
        """Position -> step, of the steps whose state is carried from chunk to chunk."""
        return {
            number: step
            for number, step in enumerate(self.steps)
            if isinstance(step, CarriedStep) and step.within is None
        }

    @property
    def row_columns(self) -> tuple[str, ...]:
        """Columns read at the row itself."""
        found: list[str] = list(names(self.known_at))
        for position, step in enumerate(self.steps):
            made = self.made_before(position)
            found.extend(name for name in step.reads() if not (reads_rows(step) and name in made))
        return _unique(found)

    @property
    def event_columns(self) -> tuple[str, ...]:
        """Columns read from earlier rows, through trailing windows."""
        return _unique(name for step in self.trailing for name in (step.at, step.of, *step.match))

    def made_before(self, position: int) -> frozenset[str]:
        """Return the features of the steps before ``position``."""
        return frozenset(name for number in range(position) for name in self.outputs(number))

    @property
    def tables(self) -> dict[str, tuple[str, ...]]:
        """Joined table -> columns read of it."""
        found: dict[str, tuple[str, ...]] = {}
        for step in self.steps:
            if isinstance(step, (Lookup, AsOf)):
                found[step.table] = _unique((*found.get(step.table, ()), *joined_columns(step)))
        return found

    def scan_columns(self, where: str | None) -> tuple[str, ...]:
        """Return the columns that the fitting pass reads; empty when there is nothing to learn."""
        found: list[str] = []
        if self.learns:
            found.extend((*self.ordinal, *lessons(self.steps).columns, *(names(where) if where else ())))
            if self.target and any(isinstance(step, TargetMean) for step in self.steps):
                found.append(self.target)
            if self.folds is not None and self.folds.by is not None:
                found.append(self.folds.by)
        if self.trailing:
            found.extend((*names(self.known_at), *self.times, *self.matched))
        found.extend(step.of for step in self.carried.values())
        return _unique(found)

    def fitted(
        self,
        categories: Mapping[str, Sequence[str]],
        withheld: Sequence[str] = (),
        learnt: Mapping[str, Any] = MappingProxyType({}),
    ) -> Program:
        """Return the same recipe with what fitting learnt."""
        sorted_labels = {name: tuple(labels) for name, labels in sorted(categories.items())}
        return replace(self, categories=sorted_labels, withheld=tuple(withheld), learnt=dict(learnt))

    def unfitted(self) -> Program:
        """Return the same recipe before fitting."""
        return replace(self, categories=None, withheld=(), learnt={}, by_fold=(), seen=None)

    def fold(self, number: int) -> Program:
        """Return the recipe fitted on all folds but one.

        Raises
        ------
        UsageError
            When it was not fitted with folds, or has no such fold.
        """
        if not 0 <= number < len(self.by_fold):
            known = f"folds 0 to {len(self.by_fold) - 1}" if self.by_fold else "no folds; fit it with folds="
            raise UsageError(f"the recipe has no fold {number}; it has {known}")
        found = self.by_fold[number]
        seen = None if self.seen is None else {**self.seen, "but": {"fold": number, **self.folds_asked}}
        return replace(self.alone().fitted(found["categories"], self.withheld, found["learnt"]), seen=seen)

    @property
    def folds_asked(self) -> dict[str, Any]:
        return {} if self.folds is None else self.folds.params()

    def alone(self) -> Program:
        """Return the recipe without what it learnt fold by fold, and without the rows it learnt from."""
        return replace(self, folds=None, by_fold=(), seen=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as a JSON dict; :meth:`from_dict` is the inverse."""
        fitted: dict[str, Any] | None = None
        if self.categories is not None:
            categories = {name: list(labels) for name, labels in self.categories.items()}
            fitted = {"categories": categories, "withheld": list(self.withheld)}
            fitted.update({"learnt": dict(self.learnt)} if self.learnt else {})
            fitted.update({"seen": dict(self.seen)} if self.seen is not None else {})
            fitted.update({"by_fold": list(self.by_fold)} if self.by_fold else {})
        return {
            "format": FORMAT,
            "steps": [dump_step(step) for step in self.steps],
            "known_at": self.known_at,
            "target": self.target,
            **({"folds": self.folds.params()} if self.folds is not None else {}),
            "fitted": fitted,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Program:
        """Rebuild a recipe.

        Raises
        ------
        SpecError
            When it is not the JSON of a recipe of this format.
        """
        if value.get("format") != FORMAT or "steps" not in value:
            raise SpecError(
                f"not a recipe of format {FORMAT}, but format {value.get('format')!r}; save it again with this version"
            )
        folds = FoldsBy(**value["folds"]) if value.get("folds") else None
        program = cls(parse_steps(value["steps"]), value["known_at"], value.get("target"), folds=folds)
        learnt = value.get("fitted")
        if learnt is None:
            return program
        withheld = learnt.get("withheld", [program.target] if program.target else [])
        fitted = program.fitted(learnt["categories"], withheld, learnt.get("learnt", {}))
        return replace(fitted, seen=learnt.get("seen"), by_fold=tuple(learnt.get("by_fold", ())))

    @property
    def hash(self) -> str:
        """Digest of steps, ``known_at``, target and what fitting learnt; not of the rows it learnt from."""
        content = self.alone().to_dict()
        return digest(content["steps"], content["known_at"], content["target"], content["fitted"])


def joined_columns(step: Lookup | AsOf) -> tuple[str, ...]:
    """Return the columns that a step reads of its other table."""
    if isinstance(step, Lookup):
        return _unique((step.their_key or step.key, *step.take))
    return _unique((step.their_time, *step.match, *step.take))


class _Steps(Spec):
    steps: Annotated[list[AnyStep], Field(min_length=1)]


def parse_steps(values: Iterable[Any]) -> tuple[Step, ...]:
    """Return steps from instances or ``{name: settings}``.

    Raises
    ------
    SpecError
        Naming the position and the setting that is wrong, such as ``steps[2].as_of.tolerance``.
    """
    from pydantic import ValidationError

    data = {"steps": [value if isinstance(value, Step) else _plain(value) for value in values]}
    try:
        return tuple(_Steps.model_validate(data).steps)
    except ValidationError as error:
        first = explain(error, _Steps, data)[0]
        raise SpecError(first.message, path=first.path) from None


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
