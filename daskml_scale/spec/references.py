"""Which stage needs which: edges, and what is wrong with them. Pure.

An edge comes from a reference (``input: flights``) or from ``after:``. The order of stages is
``plan.dag``'s; this module only says whether there is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from daskml_scale.errors import SpecError

from .explain import Problem, nearest, unknown
from .space import Choice
from .workflow import EvaluateSpec, FeaturesSpec, Grid, SearchSpec, StageSpec, TrainSpec, Workflow


def edges(workflow: Workflow) -> dict[str, tuple[str, ...]]:
    """Return stage -> the existing stages that it needs, each once, in the order of its references."""
    stages = workflow.stages
    return {
        name: tuple(dict.fromkeys(wanted for wanted in stage.references().values() if wanted in stages))
        for name, stage in stages.items()
    }


def check_references(workflow: Workflow) -> None:
    """Raise the first problem of :func:`reference_problems`.

    Raises
    ------
    SpecError
        With the key path, and how many more problems there are.
    """
    problems = reference_problems(workflow)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise SpecError(problems[0].message + more, path=problems[0].path)


def reference_problems(workflow: Workflow) -> list[Problem]:
    """Return what is wrong between stages: unknown names, wrong kinds, cycles, clashes, no target."""
    stages = workflow.stages
    found = (problem for name, stage in stages.items() for problem in _stage_problems(name, stage, stages))
    problems = list(islice(found, 100))
    cycle = find_cycle(edges(workflow))
    if len(cycle) > 2:
        key = next(key for key, wanted in workflow.stages[cycle[0]].references().items() if wanted == cycle[1])
        chain = " -> ".join(cycle)
        message = f"these stages wait for each other: {chain}; remove one of these references"
        problems.append(Problem(f"stages.{cycle[0]}.{key}", message))
    return problems + _save_clashes(workflow)


def find_cycle(needs: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return one cycle as names, the first repeated at the end; empty when there is none."""
    waiting = {name: set(wanted) for name, wanted in needs.items()}
    users: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in waiting.items():
        for other in wanted:
            users[other].append(name)
    ready = [name for name, wanted in waiting.items() if not wanted]
    while ready:
        done = ready.pop()
        del waiting[done]
        for user in users[done]:
            waiting[user].discard(done)
            if not waiting[user]:
                ready.append(user)
    if not waiting:
        return ()
    trail = [next(iter(waiting))]  # everything left waits for something left: walking must come round
    while trail[-1] not in trail[:-1]:
        trail.append(next(other for other in needs[trail[-1]] if other in waiting))
    loop = trail[trail.index(trail[-1]) : -1]
    first = min(loop, key=list(needs).index)
    start = loop.index(first)
    return (*loop[start:], *loop[:start], first)


def _stage_problems(name: str, stage: StageSpec, stages: Mapping[str, StageSpec]) -> Iterator[Problem]:
    allowed = stage.resolves_to()
    for key, wanted in stage.references().items():
        path = f"stages.{name}.{key}"
        kinds = allowed.get(key)
        if wanted != name and wanted in stages and (kinds is None or _kind(stages[wanted]) in kinds):
            continue
        fitting = [other for other in stages if other != name and (kinds is None or _kind(stages[other]) in kinds)]
        takes = f" ({', '.join(kinds)})" if kinds else ""
        choice = f"stages that fit here{takes}: {', '.join(fitting[:20]) or 'none'}"
        if wanted == name:
            yield Problem(path, f"{wanted!r} is this stage itself; {choice}")
        elif wanted not in stages:
            guess = nearest(wanted, fitting) or nearest(wanted, stages)
            yield Problem(path, f"there is no stage {wanted!r}{guess or ';'} {choice}")
        else:
            yield Problem(path, f"{wanted!r} is of kind {_kind(stages[wanted])}, which does not fit; {choice}")
    yield from _when_problems(name, stage, stages)
    features = stages.get(getattr(stage, "input", ""))
    learns = isinstance(stage, (SearchSpec, TrainSpec, EvaluateSpec))
    if learns and isinstance(features, FeaturesSpec) and features.target is None:
        message = (
            f"{_kind(stage)} needs a target, and {getattr(stage, 'input', '')!r} has none; add target: to that stage"
        )
        yield Problem(f"stages.{name}.input", message)
    if isinstance(stage, SearchSpec) and isinstance(stage.sampler, Grid):
        for parameter, values in stage.space.items():
            if not isinstance(values, Choice):
                message = (
                    f"a grid needs a list of values, not {values.kind}; list them, or use sampler: {{random: ...}}"
                )
                yield Problem(f"stages.{name}.space.{parameter}", message)


def _when_problems(name: str, stage: StageSpec, stages: Mapping[str, StageSpec]) -> Iterator[Problem]:
    if stage.when is None or stage.when.of == name or stage.when.of not in stages:
        return
    judged = stages[stage.when.of]
    if not isinstance(judged, EvaluateSpec):
        fitting = [other for other, spec in stages.items() if isinstance(spec, EvaluateSpec)]
        message = f"{stage.when.of!r} is of kind {_kind(judged)} and has no metrics; evaluate stages: "
        yield Problem(f"stages.{name}.when.of", message + (", ".join(fitting) or "none"))
        return
    known = [metric for metric in judged.metrics if metric != "calibration"]  # which is no number
    if stage.when.metric not in known:
        yield Problem(f"stages.{name}.when.metric", unknown("metric", stage.when.metric, known))


def _kind(stage: StageSpec) -> str:
    return str(getattr(stage, "kind", "stage"))


def _save_clashes(workflow: Workflow) -> list[Problem]:
    saved: dict[str, str] = {}
    problems: list[Problem] = []
    for name, stage in workflow.stages.items():
        if not isinstance(stage, TrainSpec):
            continue
        model = stage.save_as or name
        if model in saved:
            message = f"duplicate name: {saved[model]!r} saves its model as {model!r} too; choose another save_as:"
            problems.append(Problem(f"stages.{name}.save_as", message))
        saved.setdefault(model, name)
    return problems
