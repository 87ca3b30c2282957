"""What does a search cost? Tiny fits, long ones, shared prefixes, early stopping, stragglers, a sampler, a failure.

All run on two slots, one inner thread each, over made-up rows, and must find the same scores as their peers
where both try the same. The limit is the same fits one after the other, in one thread, shared by the slots,
where nothing else is said.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.search import GridSearchCV, OptunaSearchCV, RandomizedSearchCV

from . import search_flights, search_stragglers
from .common import SLOTS, Bench, Counts, Row, Runner, Work, costed, counting, installed, least
from .search_work import Raising, Spinning, steps_for, texts

Make = Callable[..., Any]
"""Takes more keywords of a search, ours or scikit-learn's; returns it, unfitted, with X and y."""


@dataclass(frozen=True)
class Size:
    """How much of each work.

    Attributes
    ----------
    alphas : int
        Of Ridge, five fits each.
    fits, seconds : int, float
        Fits that take so long.
    trials, rows, trees : int
        Of the gradient boosting.
    shapes : int
        Rows of the pipeline with polynomials.
    documents, grid : int
        Texts, and candidates over them.
    asha, seeds : int
        Trials, and repetitions of early stopping.
    suggested : int
        Trials of the sampler.
    played : int
        Repetitions of the simulated stragglers.
    """

    alphas: int
    fits: int
    seconds: float
    trials: int
    rows: int
    trees: int
    shapes: int
    documents: int
    grid: int
    asha: int
    seeds: int
    suggested: int
    played: int


SIZES = {
    "toy": Size(4, 6, 0.001, 2, 500, 3, 100, 60, 2, 4, 1, 6, 1),
    "small": Size(120, 40, 0.1, 8, 8_000, 15, 400, 150, 16, 16, 2, 60, 1),
    "full": Size(120, 200, 0.1, 12, 100_000, 50, 5_000, 2_000, 96, 64, 10, 300, 10),
}


SERIAL = "sklearn, n_jobs=1"
RAISING = "an estimator that raises, until the caller has it"


def measure(bench: Bench) -> list[Row]:
    """Return the rows of this question."""
    from sklearn import model_selection as theirs

    wanted = SIZES[bench.size]
    kinds = (
        (f"{wanted.alphas * 5} fits of Ridge", _ridge, GridSearchCV, theirs.GridSearchCV,
         {"serial": True, "dask_ml": True}),
        (f"{wanted.fits} fits of {wanted.seconds * 1000:g} ms", _spinning, GridSearchCV, theirs.GridSearchCV,
         {"serial": True, "dask_ml": False}),
        (f"{wanted.trials} trials of gradient boosting", _boosting, RandomizedSearchCV, theirs.RandomizedSearchCV, {}),
        ("polynomials, scaling, PCA, logistic regression, 12 x 3", _shapes, GridSearchCV, theirs.GridSearchCV,
         {"serial": True, "dask_ml": True}),
        (f"hashing, tf-idf, SVD, SGD, {wanted.grid} x 5", _words, GridSearchCV, theirs.GridSearchCV,
         {"memory": True, "dask_ml": True}),
    )  # fmt: skip
    rows = wanted.rows if bench.size != "full" else None
    flights = search_flights.named(wanted.asha, wanted.seeds)
    works = [
        *(_work(name, made(ours, wanted), made(peer, wanted), bench, **more)
          for name, made, ours, peer, more in kinds if bench.wants(name)),
        *([search_flights.work(wanted.asha, wanted.seeds, wanted.trees * 4, rows, bench.client)]
          if bench.wants(flights) else []),
        *search_stragglers.works(wanted.played),
        _sampler(wanted),
        *([_raising(bench)] if bench.wants(RAISING) else []),
    ]  # fmt: skip
    return bench.compare(works)


def _ridge(kind: Make, wanted: Size) -> Make:
    from sklearn.linear_model import Ridge

    def make(**more: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        X = rng.normal(size=(200, 10))
        y = X @ rng.normal(size=10) + rng.normal(size=200)
        return kind(Ridge(), {"alpha": np.logspace(-3, 3, wanted.alphas)}, cv=5, **more), X, y

    return make


def _spinning(kind: Make, wanted: Size) -> Make:
    steps = steps_for(wanted.seconds)

    def make(**more: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        X, y = np.zeros((20, 2)), np.arange(20.0)
        constants = list(range(wanted.fits // 2))
        return kind(Spinning(steps), {"constant": constants}, cv=2, refit=False, **more), X, y

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


def _shapes(kind: Make, wanted: Size) -> Make:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    def make(memory: Any = None, **more: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(2)
        X = rng.normal(size=(wanted.shapes, 20))
        y = (X[:, 0] * X[:, 1] + X[:, 2] > 0).astype(int)
        steps = (PolynomialFeatures(2), StandardScaler(), PCA(random_state=0), LogisticRegression(max_iter=200))
        grid = {"pca__n_components": [5, 10, 20], "logisticregression__C": [0.01, 0.1, 1.0, 10.0]}
        return kind(make_pipeline(*steps, memory=memory), grid, cv=3, refit=False, **more), X, y

    return make


def _words(kind: Make, wanted: Size) -> Make:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import Pipeline

    def make(memory: Any = None, **more: Any) -> tuple[Any, list[str], np.ndarray]:
        X, y = texts(wanted.documents)
        steps = [
            ("hashing", HashingVectorizer(n_features=2**14)), ("tfidf", TfidfTransformer()),
            ("svd", TruncatedSVD(random_state=0)), ("sgd", SGDClassifier(random_state=0)),
        ]  # fmt: skip
        grid = {
            "hashing__ngram_range": [(1, 1), (1, 2)],
            "svd__n_components": [20, 50],
            "sgd__alpha": list(np.logspace(-6, -2, max(1, wanted.grid // 4))),
        }
        return kind(Pipeline(steps, memory=memory), grid, cv=5, refit=False, **more), X, y

    return make


def _work(
    name: str, ours: Make, theirs: Make, bench: Bench, serial: bool = False, memory: bool = False, dask_ml: bool = False
) -> Work:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        kept = {"memory": tempfile.mkdtemp(dir=bench.folder)} if memory else {}
        search, X, y = theirs(n_jobs=1, **kept)
        alone = least(lambda: search.fit(X, y), times=1)
    expected = np.asarray(search.cv_results_["mean_test_score"])
    runners = {"ours": _on_dask(ours, bench.client, expected), "sklearn, n_jobs=2": _on_loky(theirs, expected, memory)}
    if serial:
        runners[SERIAL] = lambda folder: _fitted(theirs(n_jobs=1), expected)
    if not memory:
        runners["joblib dask backend"] = _on_joblib_dask(theirs, bench.client, expected)
    if dask_ml and installed("dask_ml"):
        runners["dask-ml"] = _on_dask_ml(theirs, bench.client)
    means = f"the same fits in one thread{' with Pipeline(memory=)' * memory}, divided by {SLOTS} slots"
    work = Work(name, runners.pop("ours"), runners, alone / SLOTS, means)
    if not memory:
        bench.warm(work, but=SERIAL)  # which `alone` was
    return costed(work)


def _fitted(made: tuple[Any, Any, np.ndarray], expected: np.ndarray) -> None:
    search, X, y = made
    search.fit(X, y)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], expected, rtol=1e-9)


def _on_dask(make: Make, client: Any, expected: np.ndarray) -> Runner:
    return counting(client, lambda: _fitted(make(client=client), expected))


def _on_loky(make: Make, expected: np.ndarray, memory: bool) -> Runner:
    def fit(folder: Path) -> None:
        more = {"memory": tempfile.mkdtemp(dir=folder)} if memory else {}
        _fitted(make(n_jobs=SLOTS, **more), expected)

    return fit


def _on_joblib_dask(make: Make, client: Any, expected: np.ndarray) -> Runner:
    import joblib

    def fit() -> None:
        with joblib.parallel_config("dask", client=client):
            _fitted(make(n_jobs=-1), expected)

    return counting(client, fit)


def _on_dask_ml(make: Make, client: Any) -> Runner:
    def fit() -> None:
        from dask_ml.model_selection import GridSearchCV as DaskMLSearch

        search, X, y = make()
        other = DaskMLSearch(search.estimator, search.param_grid, cv=search.cv, refit=False, scheduler=client)
        with client.as_current():
            other.fit(np.asarray(X), y)

    return counting(client, fit)


def _sampler(wanted: Size) -> Work:
    """Seconds of the coordinator for each trial of a sampler, the fits themselves not counted."""
    from scipy.stats import loguniform

    X, y = np.zeros((20, 2)), np.arange(20.0)

    def search(trials: int) -> Counts:
        space = {"constant": loguniform(0.01, 10), "steps": [1, 2, 3]}
        found = OptunaSearchCV(Spinning(1), space, n_trials=trials, cv=2, refit=False, random_state=0).fit(X, y)
        ends = [each["elapsed"] for each in found.history_]
        first, last = np.diff(ends[: max(2, trials // 5)]), np.diff(ends[-max(2, trials // 5) :])
        fits = sum(each["seconds"] for each in found.history_)
        return {"seconds": (ends[-1] - fits) / trials, "first ms": round(1e3 * float(np.mean(first)), 2),
                "last ms": round(1e3 * float(np.mean(last)), 2)}  # fmt: skip

    name = f"a trial of TPE among {wanted.suggested}"
    peer = {"the same among a fifth as many": lambda folder: search(max(3, wanted.suggested // 5))}
    goal = "the goal, 12 ms at the coordinator"
    return costed(Work(name, lambda folder: search(wanted.suggested), peer, 0.012, goal))


def _raising(bench: Bench) -> Work:
    """An estimator that raises: until the caller has the exception."""
    from sklearn import model_selection as theirs

    X, y = np.zeros((20, 2)), np.arange(20.0)

    def fails(kind: Make, **more: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                kind(Raising(), {"constant": [0, 1, 2]}, cv=3, error_score="raise", **more).fit(X, y)
            except ValueError as error:
                if "does not fit" not in str(error):
                    raise

    ours = counting(bench.client, lambda: fails(GridSearchCV, client=bench.client))
    peers: dict[str, Runner] = {"sklearn, n_jobs=2": lambda folder: fails(theirs.GridSearchCV, n_jobs=SLOTS)}
    work = Work(RAISING, ours, peers, 1.0, "the goal, one second")
    bench.warm(work)
    return costed(work)
