"""A recipe as a frozen record: its steps, when rows must be predicted, and what fitting learnt.

It answers which columns are read and which features are made, and goes to JSON and back. It reads no
data and computes no features; ``transformer`` and ``planner`` are built on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

from daskml_scale.errors import SpecError
from daskml_scale.plan.records import digest
from daskml_scale.spec.base import Spec, seconds
from daskml_scale.spec.explain import explain
from daskml_scale.spec.expressions import names
from daskml_scale.spec.steps import AnyStep, AsOf, EventStep, Lookup, Ordinal, Step, dump_step
from daskml_scale.spec.steps_categories import TargetMean

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
    """

    steps: tuple[Step, ...]
    known_at: str
    target: str | None = None
    categories: Mapping[str, tuple[str, ...]] | None = None
    withheld: tuple[str, ...] = ()
    learnt: Mapping[str, Any] = field(default_factory=dict)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return _unique(name for step in self.steps for name in step.outputs())

    @property
    def learns(self) -> bool:
        """Whether fitting must look at the rows that may be learnt from."""
        return self.categories is None and any(isinstance(step, Ordinal) or learns(step) for step in self.steps)

    @property
    def ordinal(self) -> tuple[str, ...]:
        """Columns whose categories ``fit`` collects."""
        return _unique(name for step in self.steps if isinstance(step, Ordinal) for name in step.of)

    @property
    def trailing(self) -> tuple[EventStep, ...]:
        """The steps that look at earlier rows of the table."""
        return tuple(step for step in self.steps if isinstance(step, EventStep))

    @property
    def windows(self) -> dict[str, int]:
        """Time column of the trailing steps -> longest window that ends there, ns."""
        longest: dict[str, int] = {}
        for step in self.trailing:
            longest[step.at] = max(longest.get(step.at, 0), *(nanoseconds(window) for window in step.spans()))
        return longest

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
        return frozenset(name for step in self.steps[:position] for name in step.outputs())

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
        if self.trailing:
            found.extend((*names(self.known_at), *self.windows))
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
        return replace(self, categories=None, withheld=(), learnt={})

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as a JSON dict; :meth:`from_dict` is the inverse."""
        fitted: dict[str, Any] | None = None
        if self.categories is not None:
            categories = {name: list(labels) for name, labels in self.categories.items()}
            fitted = {"categories": categories, "withheld": list(self.withheld)}
            fitted.update({"learnt": dict(self.learnt)} if self.learnt else {})
        return {
            "format": FORMAT,
            "steps": [dump_step(step) for step in self.steps],
            "known_at": self.known_at,
            "target": self.target,
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
        program = cls(parse_steps(value["steps"]), value["known_at"], value.get("target"))
        learnt = value.get("fitted")
        if learnt is None:
            return program
        withheld = learnt.get("withheld", [program.target] if program.target else [])
        return program.fitted(learnt["categories"], withheld, learnt.get("learnt", {}))

    @property
    def hash(self) -> str:
        """Digest of steps, ``known_at``, target and what fitting learnt."""
        content = self.to_dict()
        return digest(content["steps"], content["known_at"], content["target"], content["fitted"])


def joined_columns(step: Lookup | AsOf) -> tuple[str, ...]:
    """Return the columns that a step reads of its other table."""
    if isinstance(step, Lookup):
        return _unique((step.their_key or step.key, *step.take))
    return _unique((step.their_time, *step.match, *step.take))


@lru_cache(maxsize=256)
def nanoseconds(duration: str) -> int:
    """Return a duration in ns."""
    return round(seconds(duration) * 1e9)


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
