"""What does a search cost? Many tiny fits, and a few long ones: us, scikit-learn's own, joblib's Dask backend.

All three run scikit-learn's search on two slots, one inner thread each, over made-up rows, and must find
the same scores.
The limit is the same fits one after the other, in one thread, shared by the slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.search import GridSearchCV, RandomizedSearchCV

from .common import SLOTS, Bench, Row, Runner, Work, counting, least

Make = Callable[..., Any]
"""Takes more keywords of a search, ours or scikit-learn's; returns it, unfitted, with X and y."""


@dataclass(frozen=True)
class Size:
    """Values of alpha (five fits each); trials, rows and trees of the gradient boosting."""

    alphas: int
    trials: int
    rows: int
    trees: int


SIZES = {"toy": Size(4, 2, 500, 3), "small": Size(120, 12, 20_000, 20), "full": Size(120, 12, 100_000, 50)}


def measure(bench: Bench) -> list[Row]:
    """Return the rows of this question."""
    from sklearn import model_selection as theirs

    wanted = SIZES[bench.size]
    tiny = _ridge(GridSearchCV, wanted), _ridge(theirs.GridSearchCV, wanted)
    long = _boosting(RandomizedSearchCV, wanted), _boosting(theirs.RandomizedSearchCV, wanted)
    works = [
        _work(f"{wanted.alphas * 5} fits of Ridge", *tiny, bench),
        _work(f"{wanted.trials} trials of gradient boosting", *long, bench),
    ]
    return bench.compare(works)


def _ridge(kind: Make, wanted: Size) -> Make:
    from sklearn.linear_model import Ridge

    def make(**more: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        X = rng.normal(size=(200, 10))
        y = X @ rng.normal(size=10) + rng.normal(size=200)
        return kind(Ridge(), {"alpha": np.logspace(-3, 3, wanted.alphas)}, cv=5, **more), X, y

    return make


def _boosting(kind: Make, wanted: Size) -> Make:
    from scipy.stats import loguniform
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import ShuffleSplit

    space = {
        "learning_rate": loguniform(0.02, 0.3),
        "max_leaf_nodes": [15, 31, 63, 127],
        "l2_regularization": loguniform(0.001, 10),
    }

    def make(**more: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(1)
        X = rng.normal(size=(wanted.rows, 23)).astype("float32")
        y = (X[:, 0] * X[:, 1] + X[:, 2] + rng.normal(size=wanted.rows) > 0).astype(int)
        search = kind(
            HistGradientBoostingClassifier(max_iter=wanted.trees, early_stopping=False, random_state=0),
            space,
            n_iter=wanted.trials,
            scoring="roc_auc",
            cv=ShuffleSplit(1, test_size=0.2, random_state=0),
            refit=False,
            random_state=0,
            **more,
        )
        return search, X, y

    return make


def _work(name: str, ours: Make, theirs: Make, bench: Bench) -> Work:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        search, X, y = theirs(n_jobs=1)
        alone = least(lambda: search.fit(X, y), times=2)
    expected = np.asarray(search.cv_results_["mean_test_score"])
    runners = {
        "ours": _on_dask(ours, bench.client, expected),
        "sklearn, n_jobs=2": _on_loky(theirs, expected),
        "joblib dask backend": _on_joblib_dask(theirs, bench.client, expected),
    }
    for runner in runners.values():  # imports and pools start outside the clock
        runner(bench.folder)
    return Work(
        name, runners.pop("ours"), runners, alone / SLOTS, f"the same fits in one thread, divided by {SLOTS} slots"
    )


def _fitted(made: tuple[Any, np.ndarray, np.ndarray], expected: np.ndarray) -> None:
    search, X, y = made
    search.fit(X, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected, rtol=1e-9)


def _on_dask(make: Make, client: Any, expected: np.ndarray) -> Runner:
    return counting(client, lambda: _fitted(make(client=client), expected))


def _on_loky(make: Make, expected: np.ndarray) -> Runner:
    return lambda folder: _fitted(make(n_jobs=SLOTS), expected)


def _on_joblib_dask(make: Make, client: Any, expected: np.ndarray) -> Runner:
    import joblib

    def fit() -> None:
        with joblib.parallel_config("dask", client=client):
            _fitted(make(n_jobs=-1), expected)

    return counting(client, fit)
