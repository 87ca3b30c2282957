"""What a recipe is, for people: where a feature comes from, what each step reads and has learnt. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from daskml_scale import html
from daskml_scale.errors import UsageError
from daskml_scale.spec.base import Spec
from daskml_scale.spec.explain import nearest
from daskml_scale.spec.expressions import names
from daskml_scale.spec.step_base import EventStep, Step
from daskml_scale.spec.steps import AsOf, Lookup
from daskml_scale.spec.steps_learned import Aggregate

from .learning import reads_rows
from .program import Program, joined_columns


@dataclass(frozen=True)
class Explanation:
    """How something is made.

    Attributes
    ----------
    name : str
        A feature, or a column: ``weather.temp`` is one of another table.
    how : str
        The step that makes it, with its settings; ``column`` for what a table holds.
    of : tuple of Explanation
        What it is made of.
    """

    name: str
    how: str
    of: tuple[Explanation, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that it depends on in the end, sorted."""
        if not self.of:
            return (self.name,)
        return tuple(sorted({name for part in self.of for name in part.columns}))

    def lines(self, depth: int = 0) -> Iterator[tuple[int, str, str]]:
        """Yield (depth, name, how) from the feature down."""
        yield depth, self.name, self.how
        for part in self.of:
            yield from part.lines(depth + 1)

    def __repr__(self) -> str:
        return "\n".join(f"{'  ' * depth}{name}: {how}" for depth, name, how in self.lines())

    def _repr_html_(self) -> str:
        rows = [("\N{NO-BREAK SPACE}" * 4 * depth + name, how) for depth, name, how in self.lines()]
        return html.table(("", "made by"), rows, title=self.name)


def explanation(program: Program, feature: str, derived: Mapping[str, Sequence[str]]) -> Explanation:
    """Return how a feature is made, down to the columns of the tables.

    Parameters
    ----------
    derived : mapping of column to columns
        What columns of the table were computed from.

    Raises
    ------
    UsageError
        When there is no such feature.
    """
    if feature not in program.features:
        known = ", ".join(program.features[:20])
        close = nearest(feature, program.features)
        raise UsageError(f"the recipe makes no feature {feature!r}{close}; it makes {known}")
    return _made(program, feature, len(program.steps), derived)


def _made(program: Program, name: str, before: int, derived: Mapping[str, Sequence[str]]) -> Explanation:
    """Return how a name is made, as the step at ``before`` finds it."""
    makers = [position for position in range(before) if name in program.outputs(position)]
    if not makers:
        return _column(name, derived)
    position = makers[-1]
    step = program.steps[position]
    timed = names(program.known_at) if isinstance(step, (EventStep, AsOf)) else ()
    own = position if reads_rows(step) else 0  # steps that look at other rows read no features
    reads = dict.fromkeys((*_sources(step, name), *timed))
    parts = [_made(program, read, own, derived) for read in reads]
    if isinstance(step, (Lookup, AsOf)):
        wanted = name.removeprefix(f"{step.table}_")
        taken = [column for column in joined_columns(step) if column == wanted or column not in step.take]
        parts += [Explanation(f"{step.table}.{column}", "column") for column in taken]
    return Explanation(name, f"steps[{position}].{step.step}{_settings(step)}", tuple(parts))


def _column(name: str, derived: Mapping[str, Sequence[str]], above: frozenset[str] = frozenset()) -> Explanation:
    sources = [source for source in derived.get(name, ()) if source not in above | {name}]
    parts = tuple(_column(source, derived, above | {name}) for source in sources)
    return Explanation(name, "column, computed when the table was read" if parts else "column", parts)


def _sources(step: Step, name: str) -> tuple[str, ...]:
    """Return what a step reads to make one of its features."""
    if isinstance(step, EventStep):
        return (step.of, step.at, *step.match)
    if isinstance(step, Aggregate):
        by = "_".join(step.by)
        made = {f"{column}_{stat}_by_{by}": column for column in step.of for stat in step.stats}
        return (made[name], *step.reads())
    alike = [read for read in step.reads() if read == name or name in (f"{read}_missing", f"{read}_count")]
    return tuple(alike) if alike and step.replaces else step.reads()


def _settings(step: Step) -> str:
    """Return the settings that are not what they are by default, without the columns read."""
    named = {"of", "match", "at", "table", "take"}
    said = {name: value for name, value in step if name in step.model_fields_set and name not in named}
    return "(" + ", ".join(f"{name}={_short(value)}" for name, value in said.items()) + ")" if said else ""


def _short(value: object) -> str:
    text = str(value.params()) if isinstance(value, Spec) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def reading(step: Step) -> str:
    """Return what a step reads."""
    if isinstance(step, Lookup):
        return f"{step.table} by {step.key}"
    if isinstance(step, AsOf):
        return f"{step.table} by {', '.join((*step.match, step.their_time))}"
    if isinstance(step, EventStep):
        by = f" by {', '.join(step.match)}" if step.match else ""
        return f"earlier {step.of}, recorded at {step.at}{by}"
    if isinstance(step, Aggregate):
        return f"{', '.join(step.of)} by {', '.join(step.by)}"
    return ", ".join(step.reads())


def learning(program: Program, position: int) -> str:
    """Return in a few words what a step has learnt."""
    step, learnt = program.steps[position], program.learnt.get(str(position))
    if step.step == "ordinal" and program.categories is not None:
        return ", ".join(f"{len(program.categories[name]):,} categories" for name in step.reads())
    if not isinstance(learnt, Mapping):
        return ""
    if step.step == "one_hot":
        return f"{len(learnt['levels']):,} of {learnt['categories']:,} categories"
    if step.step == "sklearn":
        return f"{len(learnt['names']):,} features from {learnt['rows']:,} rows"
    if step.step == "count":
        return ", ".join(f"{len(found['counts']):,} categories" for found in learnt.values())
    return "code" if step.step == "function" else "yes"
