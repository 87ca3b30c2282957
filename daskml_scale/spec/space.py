"""Search spaces as data: ``{loguniform: [0.02, 0.3]}``, ``{choice: [15, 31]}``. Drawing is pure in the seed.

``when`` makes a parameter conditional: ``{loguniform: [0.01, 1], when: {kernel: [rbf]}}`` is drawn always and
kept only where ``kernel`` is ``rbf``, so that a condition changes no other parameter.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from .base import Spec


class Distribution(Spec):
    """Base of the distributions: one key that names the kind, and ``when`` for a condition."""

    kind: ClassVar[str]
    when: dict[str, list[bool | int | float | str | None]] | None = None

    def draw(self, rng: np.random.Generator) -> Any:
        """Return one value."""
        raise TypeError(f"{type(self).__name__} cannot be drawn from")


class LogUniform(Distribution):
    """Real number whose logarithm is uniform between ``low`` and ``high``, both above zero."""

    kind: ClassVar[str] = "loguniform"
    loguniform: Annotated[list[float], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_bounds(self.loguniform, above_zero=True)
        return self

    def draw(self, rng: np.random.Generator) -> float:
        low, high = self.loguniform
        return float(np.clip(math.exp(rng.uniform(math.log(low), math.log(high))), low, high))


class Uniform(Distribution):
    """Real number, uniform between ``low`` and ``high``."""

    kind: ClassVar[str] = "uniform"
    uniform: Annotated[list[float], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_bounds(self.uniform)
        return self

    def draw(self, rng: np.random.Generator) -> float:
        low, high = self.uniform
        return float(rng.uniform(low, high))


class RandInt(Distribution):
    """Integer, uniform between ``low`` and ``high``, both included."""

    kind: ClassVar[str] = "randint"
    randint: Annotated[list[int], Field(min_length=2, max_length=2)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_bounds(self.randint)
        return self

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.randint[0], self.randint[1], endpoint=True))


class Choice(Distribution):
    """One of the listed values, each as likely."""

    kind: ClassVar[str] = "choice"
    choice: Annotated[list[bool | int | float | str | None], Field(min_length=1)]

    def draw(self, rng: np.random.Generator) -> Any:
        return self.choice[int(rng.integers(len(self.choice)))]


def _check_bounds(bounds: list[Any], above_zero: bool = False) -> None:
    low, high = bounds
    if not low < high or (above_zero and low <= 0):
        raise PydanticCustomError(
            "bounds", "[{low}, {high}]: write [low, high] with {rule}",
            {"low": low, "high": high, "rule": "0 < low < high" if above_zero else "low < high"},
        )  # fmt: skip


DISTRIBUTIONS: dict[str, type[Distribution]] = {c.kind: c for c in (LogUniform, Uniform, RandInt, Choice)}


def _tag(value: Any) -> str | None:
    if isinstance(value, Distribution):
        return value.kind
    names = [name for name in value if name != "when"] if isinstance(value, dict) else []
    return names[0] if len(names) == 1 and names[0] in DISTRIBUTIONS else None


def _list_is_choice(value: Any) -> Any:
    return {"choice": value} if isinstance(value, list) else value


AnyDistribution = Annotated[
    Annotated[
        Annotated[LogUniform, Tag("loguniform")]
        | Annotated[Uniform, Tag("uniform")]
        | Annotated[RandInt, Tag("randint")]
        | Annotated[Choice, Tag("choice")],
        Discriminator(
            _tag,
            custom_error_type="unknown_distribution",
            custom_error_message="write a list of values or one of these; known: loguniform, uniform, randint, choice",
        ),
    ],
    BeforeValidator(_list_is_choice, json_schema_input_type=LogUniform | Uniform | RandInt | Choice | list[Any]),
]


def seed_from(*parts: object) -> int:
    """Return a 32-bit seed derived from the parts' text, the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def draw_trials(space: Mapping[str, Distribution], trials: int, seed: int) -> list[dict[str, Any]]:
    """Draw ``trials`` parameter settings; trial k depends on the seed and k only."""
    return [draw_trial(space, number, seed) for number in range(trials)]


def draw_trial(space: Mapping[str, Distribution], number: int, seed: int) -> dict[str, Any]:
    """Draw the parameters of one trial."""
    rng = np.random.default_rng(seed_from(seed, "trial", number))
    return pruned(space, {name: space[name].draw(rng) for name in sorted(space)})


def in_order(space: Mapping[str, Distribution]) -> list[str]:
    """Return the names so that each comes after those that its condition names, else in alphabetical order.

    Raises
    ------
    ValueError
        When a condition names what is no parameter of the space, or itself in the end.
    """
    done: list[str] = []
    waiting = sorted(space)
    while waiting:
        ready = [name for name in waiting if set(space[name].when or ()) <= set(done)]
        if not ready:
            name = waiting[0]
            wrong = sorted(set(space[name].when or ()) - set(done))
            raise ValueError(f"{name}: when: {', '.join(wrong)}: no parameter of the space that is known before it")
        done += ready
        waiting = [name for name in waiting if name not in done]
    return done


def active(distribution: Any, params: Mapping[str, Any]) -> bool:
    """Return whether the condition of a parameter holds for what is known of the others."""
    when = getattr(distribution, "when", None) or {}
    return all(name in params and params[name] in values for name, values in when.items())


def pruned(space: Mapping[str, Distribution], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without those whose condition does not hold."""
    if not any(distribution.when for distribution in space.values()):
        return dict(params)
    kept: dict[str, Any] = {}
    for name in in_order(space):
        if active(space[name], kept):
            kept[name] = params[name]
    return {name: kept[name] for name in params if name in kept}


def grid(space: Mapping[str, Distribution]) -> list[dict[str, Any]]:
    """Return every combination of a space of choices, the last name varying fastest.

    Raises
    ------
    ValueError
        If a parameter is not a ``choice``.
    """
    ordered = sorted(space)
    for name in ordered:
        if not isinstance(space[name], Choice):
            raise ValueError(f"{name} is {space[name].kind}; a grid takes choices only: {{choice: [...]}}")
    columns = [space[name].choice for name in ordered]  # type: ignore[attr-defined]
    found: list[dict[str, Any]] = []
    for values in itertools.product(*columns):
        params = pruned(space, dict(zip(ordered, values, strict=True)))
        if len(params) == len(ordered) or params not in found:
            found.append(params)
    return found
