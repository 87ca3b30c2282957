"""The passes of a search stage: which settings are tried next, from the scores so far. Pure.

A pass is a batch of suggestions, or a rung of halving; the next one is known when the ledger has the scores
of the one before. A grid, or drawn settings without early stopping, are a single pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.plan.asha import rungs
from daskml_scale.spec.searching import EarlyStopping, Grid, Optuna, OptunaTrials, Random
from daskml_scale.spec.space import Distribution, draw_trials, grid, seed_from

Scores = Callable[[int, int], "float | bool | None"]
"""(trial, rung) -> its mean score, None for a failed one, False when it did not run yet."""


@dataclass(frozen=True, slots=True)
class Step:
    """One trial at one rung.

    Attributes
    ----------
    resource : int or None
        None is all.
    """

    trial: int
    rung: int
    params: Mapping[str, Any]
    resource: int | None = None


def steps(
    space: Mapping[str, Distribution],
    sampler: Random | Grid | Optuna,
    stopping: EarlyStopping | None,
    seed: int,
    scores: Scores,
) -> tuple[list[Step], int]:
    """Return all that is to be run as far as it is known, and how many more trials and rungs will follow."""
    if isinstance(sampler, Optuna):
        return _suggested(space, sampler.optuna, seed, scores)
    drawn = grid(space) if isinstance(sampler, Grid) else draw_trials(space, sampler.random.trials, seed)
    if stopping is None:
        return [Step(number, 0, params) for number, params in enumerate(drawn)], 0
    return _halved(drawn, stopping, scores)


def _halved(drawn: Sequence[Mapping[str, Any]], stopping: EarlyStopping, scores: Scores) -> tuple[list[Step], int]:
    ladder = rungs(stopping.min, stopping.max, stopping.factor)
    found: list[Step] = []
    alive = list(range(len(drawn)))
    for rung, resource in enumerate(ladder):
        found += [Step(trial, rung, drawn[trial], resource) for trial in alive]
        known = {trial: scores(trial, rung) for trial in alive}
        rest = len(ladder) - rung - 1
        if any(score is False for score in known.values()):
            return found, sum(max(1, math.ceil(len(alive) / stopping.factor**more)) for more in range(1, rest + 1))
        ranked = sorted(
            (trial for trial in alive if known[trial] is not None),
            key=lambda trial: (-float(known[trial] or 0.0), trial),
        )
        alive = ranked[: max(1, math.ceil(len(alive) / stopping.factor))]
        if not alive:
            break
    return found, 0


def _suggested(
    space: Mapping[str, Distribution], wanted: OptunaTrials, seed: int, scores: Scores
) -> tuple[list[Step], int]:
    """Return the batches that can be asked for: each is asked from a sampler seeded by its number."""
    import optuna

    from .spaces import Suggested

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        suggested = Suggested(space)
        study = optuna.create_study(direction="maximize", sampler=_sampler(wanted.sampler, seed))
        found: list[Step] = []
        while len(found) < wanted.trials:
            study.sampler = _sampler(wanted.sampler, seed_from(seed, "batch", len(found)))
            asked = []
            for number in range(len(found), min(len(found) + wanted.batch, wanted.trials)):
                trial = study.ask()
                found.append(Step(number, 0, suggested.suggest(trial)))
                asked.append(trial)
            for step, trial in zip(found[-len(asked) :], asked, strict=True):
                score = scores(step.trial, 0)
                if score is False:
                    return found, wanted.trials - len(found)
                study.tell(trial, score, state=optuna.trial.TrialState.FAIL if score is None else None)
        return found, 0
    finally:
        optuna.logging.set_verbosity(before)


def _sampler(kind: str, seed: int) -> Any:
    from optuna import samplers

    if kind == "tpe":
        return samplers.TPESampler(seed=seed)
    if kind == "gp":
        return samplers.GPSampler(seed=seed)
    if kind == "qmc":
        return samplers.QMCSampler(seed=seed, warn_independent_sampling=False)
    return samplers.RandomSampler(seed=seed)


def unit_key(trial: int, split: int) -> str:
    """Return the key of one unit."""
    return f"trial/{trial:04d}/split/{split}"


def key_of(trial: int, rung: int, split: int, rungs: bool) -> str:
    """Return the key of a unit of a search with or without rungs."""
    return f"trial/{trial:04d}/rung/{rung}/split/{split}" if rungs else unit_key(trial, split)


def step_key(step: Step, split: int) -> str:
    """Return the key of one unit of a step."""
    return key_of(step.trial, step.rung, split, step.resource is not None)


def summarize(number: int, params: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one trial: the mean of its scores, or none where a split has none."""
    scores = [result["score"] for result in results]
    errors = [str(result["error"]) for result in results if result["score"] is None]
    trial = {
        "trial": number,
        "params": dict(params),
        "score": None if errors else float(np.mean(scores)),
        "scores": scores,
    }
    return {**trial, "error": errors[0]} if errors else trial
