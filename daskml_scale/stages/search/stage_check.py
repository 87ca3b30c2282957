"""What can be known of a search stage without data: its estimator, the names in its space, its scoring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from daskml_scale.errors import SpecError
from daskml_scale.spec.searching import Grid
from daskml_scale.spec.space import Distribution, grid
from daskml_scale.spec.workflow import SearchSpec
from daskml_scale.stages.estimator import build_estimator, check_parameters, did_you_mean

if TYPE_CHECKING:
    from .stage import SearchStage


def _grid(space: Mapping[str, Distribution]) -> list[dict[str, Any]]:
    try:
        return grid(space)
    except ValueError as error:
        raise SpecError(str(error), path="space") from None


def check(spec: SearchSpec | SearchStage) -> None:
    """Check all that can be known without data: estimator, its parameters, the space's names, the scoring.

    Raises
    ------
    SpecError
        Naming the key path, the value and the nearest known name.
    """
    from sklearn.metrics import get_scorer_names

    if isinstance(spec.sampler, Grid):
        _grid(spec.space)
    ((path, _),) = spec.estimator.items()
    try:
        estimator = build_estimator(spec.estimator, {}, 0)
    except SpecError as error:
        raise error.at(path="estimator") from None
    for name in spec.space:
        try:
            check_parameters(path, estimator, [name])
        except SpecError as error:
            raise error.at(path=f"space.{name}") from None
    stopping = spec.early_stopping
    if stopping is not None and stopping.resource != "n_samples":
        try:
            check_parameters(path, estimator, [stopping.resource])
        except SpecError as error:
            raise error.at(path="early_stopping.resource") from None
    scorers = get_scorer_names()
    if spec.scoring not in scorers:
        nearest = did_you_mean(spec.scoring, scorers)
        raise SpecError(f"unknown scoring {spec.scoring!r}{nearest}; known: {', '.join(scorers)}", path="scoring")
