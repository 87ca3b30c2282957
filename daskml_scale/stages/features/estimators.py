"""Steps that wrap a transformer of scikit-learn: fitted in a pass of their own, kept as skops text in the recipe.

A transformer is fitted in one unit, on whole chunks chosen by a seed, or chunk by chunk by ``partial_fit``; what
the earlier steps make of those rows is known by then. Loading audits the text: nothing is unpickled.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from daskml_scale.errors import DaskMLError, SpecError
from daskml_scale.plan.records import digest
from daskml_scale.spec.expressions import Coded, Values
from daskml_scale.spec.steps_learned import SklearnStep


def build(step: SklearnStep, position: int) -> Any:
    """Return the unfitted transformer.

    Raises
    ------
    SpecError
        When it cannot be built, is no transformer, or cannot be used as the step says.
    """
    from sklearn.feature_selection import SelectorMixin

    from daskml_scale.stages.estimator import build_estimator

    place = f"steps[{position}].sklearn"
    (path,) = step.transformer
    try:
        found = build_estimator(step.transformer, {}, step.seed)
    except SpecError as error:
        raise error.below(f"{place}.transformer") from None
    if not callable(getattr(found, "transform", None)):
        raise SpecError(f"{path} has no transform: it is no transformer", path=f"{place}.transformer")
    if step.by == "partial_fit" and not callable(getattr(found, "partial_fit", None)):
        raise SpecError(f"{path} has no partial_fit; use by: sample", path=f"{place}.by")
    if _needs_target(found) and not isinstance(found, SelectorMixin):
        raise SpecError(
            f"{path} learns from the target of the very rows that it transforms; use target_mean, which is out of fold",
            path=f"{place}.transformer",
        )
    return found


def _needs_target(transformer: Any) -> bool:
    from sklearn.feature_selection import SelectorMixin
    from sklearn.utils import get_tags

    chooses = isinstance(transformer, SelectorMixin) and {"score_func", "estimator"} & set(transformer.get_params())
    return bool(chooses or get_tags(transformer).target_tags.required)


def sampled(step: SklearnStep, chunks: Sequence[tuple[int, int]], learnt: Sequence[int]) -> list[tuple[int, int]]:
    """Return the chunks to fit on, in their order: all, or so many that ``sample`` rows are among them.

    Parameters
    ----------
    chunks : sequence of (start, stop)
    learnt : sequence of int
        How many rows of each chunk may be learnt from.
    """
    able = [number for number, rows in enumerate(learnt) if rows]
    if step.by == "partial_fit":
        return [chunks[number] for number in able]
    drawn, rows = [], 0
    for number in sorted(able, key=lambda number: digest(step.seed, number)):
        drawn.append(number)
        rows += learnt[number]
        if rows >= step.sample:
            break
    return [chunks[number] for number in sorted(drawn)]


def frame(step: SklearnStep, columns: Mapping[str, Values]) -> Any:
    """Return the columns of a step as a DataFrame: numbers, times, and text with ``None`` where it is missing."""
    import pandas as pd

    return pd.DataFrame({name: plain(columns[name]) for name in step.of})


def plain(column: Values) -> np.ndarray:
    """Return a column as an array of numbers, times or text, ``None`` for missing text."""
    if isinstance(column, Coded):
        return np.array([*column.labels, None], dtype=object)[np.where(column.codes < 0, -1, column.codes)]
    return column


def fit(step: SklearnStep, position: int, parts: Iterable[tuple[Mapping[str, Values], np.ndarray | None]]) -> Any:
    """Return the fitted transformer: a JSON value of its text and the names of its features.

    Parameters
    ----------
    parts : iterable of (columns, target or None)
        Of one chunk each, without rows that may not be learnt from.

    Raises
    ------
    DaskMLError
        When it cannot be fitted or saved.
    """
    import pandas as pd

    from daskml_scale.artifacts.savable import check_loads, check_trusted, dump

    place, found = f"steps[{position}].sklearn", build(step, position)
    with_target, rows = _needs_target(found), 0
    frames: list[Any] = []
    targets: list[Any] = []
    for columns, target in parts:
        data, y = frame(step, columns), None
        if with_target:
            if target is None:
                raise SpecError("the transformer needs the target; give the recipe target:", path=place)
            data, y = data[np.isfinite(target)], target[np.isfinite(target)]
        if not len(data):
            continue
        rows += len(data)
        if step.by == "partial_fit":
            _fitted(place, lambda data=data, y=y: found.partial_fit(data, y))
        else:
            frames.append(data)
            targets.append(y)
    if not rows:
        raise DaskMLError(f"{place}: there is no row to fit {next(iter(step.transformer))} on")
    if frames:
        y = np.concatenate(targets) if with_target else None
        _fitted(place, lambda: found.fit(pd.concat(frames, ignore_index=True), y))
    names = _names(step, found)
    data = dump(found)
    check_trusted(data, step.trusted, place)
    check_loads(data, found)
    text = base64.b85encode(data).decode()
    return {"names": names, "rows": rows, "skops": text, "sha256": hashlib.sha256(data).hexdigest()}


def _fitted(place: str, call: Any) -> None:
    try:
        call()
    except MemoryError:
        raise
    except Exception as error:
        raise DaskMLError(f"{place}: cannot be fitted: {type(error).__name__}: {error}") from error


def _names(step: SklearnStep, transformer: Any) -> list[str]:
    try:
        names = [str(name) for name in transformer.get_feature_names_out(step.of)]
    except (AttributeError, ValueError, TypeError):
        kind = type(transformer).__name__.lower()
        raise DaskMLError(
            f"{kind} does not name its features (get_feature_names_out); wrap it in one that does, or use a function "
            "step, which names them in makes:"
        ) from None
    return [f"{step.prefix}{name}" for name in names]


def load(step: SklearnStep, position: int, learnt: Mapping[str, Any]) -> Any:
    """Return the fitted transformer.

    Raises
    ------
    UntrustedError
        When its text is altered, or holds types that are not trusted.
    """
    from daskml_scale.artifacts import trust
    from daskml_scale.errors import UntrustedError

    data, place = base64.b85decode(learnt["skops"]), f"steps[{position}].sklearn"
    if hashlib.sha256(data).hexdigest() != learnt["sha256"]:
        raise UntrustedError(f"{place}: the saved transformer was altered; fit the recipe again")
    return trust.load(data, step.trusted, place)


def transform(
    step: SklearnStep, position: int, transformer: Any, columns: Mapping[str, Values], names: Sequence[str]
) -> list[np.ndarray]:
    """Return the features, float64, each of shape (rows,).

    Raises
    ------
    DaskMLError
        When the transformer fails, or makes another number of features than it named.
    """
    data = frame(step, columns)
    if not len(data):
        return [np.empty(0) for _ in names]
    try:
        found = transformer.transform(data)
    except Exception as error:
        raise DaskMLError(f"steps[{position}].sklearn: {type(error).__name__}: {error}") from error
    found = found.toarray() if hasattr(found, "toarray") else found
    matrix = np.asarray(found, dtype="float64")
    if matrix.shape != (len(data), len(names)):
        raise DaskMLError(
            f"steps[{position}].sklearn: transform gave {matrix.shape}, {(len(data), len(names))} needed: a row for "
            "each row, and the features that get_feature_names_out names"
        )
    return [matrix[:, column] for column in range(len(names))]
