"""Search spaces in all the forms that people have: lists, scipy and Optuna distributions, YAML, conditional.

``spec.space`` holds the YAML form and its drawing; here the forms are turned into one another. A list of
dicts is a choice among spaces; ``when:`` in YAML and a function of an Optuna trial are conditional too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from daskml_scale.errors import SpecError, UsageError
from daskml_scale.spec import space as yaml_space
from daskml_scale.spec.yaml_text import read_text, read_yaml

BRANCH = "_space"
"""Name of the choice among a list of spaces."""


def read(space: Any) -> Any:
    """Return a space with its YAML parts read: a path to a file, or ``{"loguniform": [0.01, 10]}`` as a value.

    Raises
    ------
    SpecError
        When it is not valid: names the parameter.
    """
    if isinstance(space, (str, os.PathLike)):
        path = os.fspath(space)
        space = read_yaml(read_text(Path(path)), path).data
        if not isinstance(space, Mapping):
            raise SpecError("a space is a mapping of parameters to distributions", file=path)
        return _distributions(space)
    if isinstance(space, Mapping) and any(_is_yaml(value) for value in space.values()):
        return _distributions(space)
    return space


def _is_yaml(value: Any) -> bool:
    if isinstance(value, yaml_space.Distribution):
        return True
    return isinstance(value, Mapping) and bool(set(value) & set(yaml_space.DISTRIBUTIONS))


def _distributions(space: Mapping[str, Any]) -> dict[str, yaml_space.Distribution]:
    try:
        found: dict[str, Any] = TypeAdapter(dict[str, yaml_space.AnyDistribution]).validate_python(dict(space))
        yaml_space.in_order(found)
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(f"{first['msg']} (found {first['input']!r})", path=str(first["loc"][0])) from None
    except ValueError as error:
        raise SpecError(str(error)) from None
    return found


def is_yaml(space: Any) -> bool:
    """Return whether a space is one of our distributions."""
    return isinstance(space, Mapping) and any(isinstance(v, yaml_space.Distribution) for v in space.values())


def drawn(space: Any, trials: int, state: Any) -> Iterator[dict[str, Any]]:
    """Return the parameters of trials, drawn one after the other when they are asked for.

    Parameters
    ----------
    space : mapping, list of mappings, or path
        As `read` takes it; its values may be Optuna distributions too.
    trials : int
        At most; a space of lists may have fewer combinations.
    state : int, RandomState or None
    """
    from sklearn.model_selection import ParameterGrid, ParameterSampler
    from sklearn.utils import check_random_state

    space = read(space)
    if is_yaml(space):
        seed = int(state if isinstance(state, (int, np.integer)) else check_random_state(state).randint(2**31))
        return (yaml_space.draw_trial(space, number, seed) for number in range(trials))
    spaces = [_drawable(each) for each in _listed(space)]
    found = ParameterSampler(spaces, trials, random_state=state)
    if trials == sys.maxsize and not any(hasattr(value, "rvs") for each in spaces for value in each.values()):
        found.n_iter = len(ParameterGrid(spaces))
    return iter(found)


def _listed(space: Any) -> list[Any]:
    return list(space) if isinstance(space, (list, tuple)) else [space]


def _drawable(space: Any) -> Any:
    if not isinstance(space, Mapping):
        return space  # scikit-learn refuses it
    return {name: _Drawable(value) if _is_optuna(value) else value for name, value in space.items()}


def _is_optuna(value: Any) -> bool:
    found = sys.modules.get("optuna")
    return found is not None and isinstance(value, found.distributions.BaseDistribution)


class _Drawable:
    """An Optuna distribution as scikit-learn draws from it."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def rvs(self, random_state: Any) -> Any:
        from optuna.samplers import RandomSampler

        sampler: Any = RandomSampler(seed=random_state.randint(2**31))
        return sampler.sample_independent(None, None, "value", self.of)


class Suggested:
    """A space as Optuna suggests from it.

    Parameters
    ----------
    space : mapping, list of mappings, or callable (optuna trial) -> parameters

    Raises
    ------
    UsageError
        When a value is no list and no distribution that Optuna can suggest from.
    """

    def __init__(self, space: Any) -> None:
        self.function: Callable[[Any], dict[str, Any]] | None = space if callable(space) else None
        spaces = space if isinstance(space, Sequence) and not isinstance(space, str) else [space]
        self.spaces: list[Mapping[str, Any]] = [] if self.function else list(spaces)
        for each in self.spaces:
            if not isinstance(each, Mapping):
                raise UsageError(
                    f"param_distributions is a {type(each).__name__}; give a dict, a list of dicts, the path of a "
                    "YAML file, or a function of an Optuna trial that returns parameters"
                )
        self.known = [{name: distribution(name, value) for name, value in each.items()} for each in self.spaces]

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Return the parameters of an Optuna trial."""
        if self.function is not None:
            found = self.function(trial)
            if not isinstance(found, dict):
                raise UsageError(f"the space function returned a {type(found).__name__}; return a dict of parameters")
            return found
        number = 0
        if len(self.spaces) > 1:
            number = int(trial.suggest_categorical(BRANCH, list(range(len(self.spaces)))))
        given, known = self.spaces[number], self.known[number]
        prefix = f"{number}:" if len(self.spaces) > 1 else ""
        params: dict[str, Any] = {}
        for name in _ordered(given):
            if yaml_space.active(given[name], params):
                params[name] = given_value(given[name], _suggest(trial, prefix + name, known[name]))
        return params


def _suggest(trial: Any, name: str, of: Any) -> Any:
    kind = type(of).__name__
    if kind == "CategoricalDistribution":
        return trial.suggest_categorical(name, of.choices)
    suggest = trial.suggest_int if kind == "IntDistribution" else trial.suggest_float
    return suggest(name, of.low, of.high, step=of.step, log=of.log)


def _ordered(space: Mapping[str, Any]) -> list[str]:
    """Return names so that a conditional parameter comes after those that it depends on."""
    if is_yaml(space):
        return yaml_space.in_order(space)
    return sorted(space)


def given_value(given: Any, raw: Any) -> Any:
    """Return what a suggestion means: the value itself, or the item of a list at that place."""
    if isinstance(given, yaml_space.Choice):
        return given.choice[int(raw)]
    if isinstance(given, (list, tuple)) or type(given).__name__ == "ndarray":
        return given[int(raw)]
    return raw


def distribution(name: str, value: Any) -> Any:
    """Return the Optuna distribution of one parameter's values; places in a list for choices.

    Raises
    ------
    UsageError
        When there is none.
    """
    from optuna import distributions as of

    if isinstance(value, of.BaseDistribution):
        return value
    if isinstance(value, yaml_space.LogUniform):
        return of.FloatDistribution(*value.loguniform, log=True)
    if isinstance(value, yaml_space.Uniform):
        return of.FloatDistribution(*value.uniform)
    if isinstance(value, yaml_space.RandInt):
        return of.IntDistribution(*value.randint)
    if isinstance(value, yaml_space.Choice):
        return of.CategoricalDistribution(list(range(len(value.choice))))
    if isinstance(value, (list, tuple)) or type(value).__name__ == "ndarray":
        if not len(value):
            raise UsageError(f"{name}: an empty list; give at least one value")
        return of.CategoricalDistribution(list(range(len(value))))
    found = _scipy(value)
    if found is None:
        raise UsageError(
            f"{name}: {value!r} cannot be suggested by Optuna; give a list, an Optuna distribution, or scipy's "
            "uniform, loguniform or randint"
        )
    return found


def _scipy(value: Any) -> Any:
    from optuna import distributions as of

    kind = getattr(getattr(value, "dist", None), "name", "")
    if kind not in ("uniform", "loguniform", "reciprocal", "randint"):
        return None
    low, high = value.support()
    if kind == "randint":
        return of.IntDistribution(int(low), int(high))
    return of.FloatDistribution(float(low), float(high), log=kind != "uniform")
