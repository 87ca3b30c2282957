"""Every estimator of scikit-learn, fitted on small data: it is saved and loads the same, or is refused by name."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge
from sklearn.utils import all_estimators
from sklearn.utils._test_common.instance_generator import _construct_instances
from sklearn.utils.estimator_checks import _enforce_estimator_tags_X, _enforce_estimator_tags_y

from daskml_scale.artifacts.bundle import load_model, save_model
from daskml_scale.errors import UsageError

METHODS = ("predict", "predict_proba", "decision_function", "transform", "score_samples", "kneighbors")
TEXTS = ["one two", "two three", "three four five"] * 20
REFUSED = {"Birch": "Birch cannot be saved without pickle"}
"""What skops cannot save; all else must load again."""


def cases(name: str, kind: type[Any]) -> list[tuple[Any, Any, Any]]:
    """Return (estimator, X, y) for each way in which scikit-learn tests the class."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), np.arange(60) % 3
    special: dict[str, tuple[Any, ...]] = {
        "CountVectorizer": (TEXTS,),
        "DictVectorizer": ([{"a": 1.0, "b": "x"}, {"b": "y"}],),
        "FeatureHasher": ([{"a": 1.0, "b": 2.0}],),
        "HashingVectorizer": (TEXTS,),
        "LabelBinarizer": (y,),
        "LabelEncoder": (y,),
        "MultiLabelBinarizer": ([("a", "b"), ("a",)],),
        "PatchExtractor": (rng.normal(size=(3, 8, 8)),),
        "TfidfVectorizer": (TEXTS,),
    }
    if name == "FrozenEstimator":
        return [(FrozenEstimator(Ridge().fit(X, y)), X, y)]
    if name == "SparseCoder":
        return [(kind(dictionary=rng.normal(size=(5, 4))), X, y)]
    if name in special:
        return [(kind(), *special[name], None)]
    return [
        (made, _enforce_estimator_tags_X(made, X.copy()), _enforce_estimator_tags_y(made, y.copy()))
        for made in _construct_instances(kind)
    ]


def outputs(estimator: Any, X: Any) -> dict[str, Any]:
    found = {}
    for name in METHODS:
        if hasattr(estimator, name):
            np.random.seed(0)  # the dummies and the Boltzmann machine draw from it
            try:
                found[name] = getattr(estimator, name)(X)
            except ValueError as error:
                found[name] = str(error)  # then the loaded one must refuse it with the same words
    return found


def plain(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)) and value and hasattr(value[0], "shape"):
        return [part for item in value for part in plain(item)]
    if hasattr(value, "tocsr"):  # a million columns of a hashing vectorizer are a gigabyte as an array
        rows = value.tocsr()
        rows.sum_duplicates()
        return [rows.data, rows.indices, rows.indptr, rows.shape]
    return [value]


@pytest.mark.parametrize(("name", "kind"), all_estimators(), ids=[name for name, _ in all_estimators()])
def test_it_is_saved_and_loads_the_same_or_is_refused(name: str, kind: type[Any], tmp_path: Path) -> None:
    made = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (estimator, X, y) in enumerate(cases(name, kind)):
            fitted = estimator.fit(X) if y is None else estimator.fit(X, y)
            path = tmp_path / str(number)
            if name in REFUSED:
                with pytest.raises(UsageError, match=REFUSED[name]):
                    save_model(fitted, path)
                assert not path.exists()
                made += 1
                continue
            assert save_model(fitted, path).trusted == ()
            loaded = load_model(path).estimator
            assert type(loaded) is type(fitted)
            before, after = outputs(fitted, X), outputs(loaded, X)
            assert before.keys() == after.keys()
            for method, value in before.items():
                for one, two in zip(plain(value), plain(after[method]), strict=True):
                    if isinstance(one, np.ndarray) and one.dtype.kind == "f":
                        np.testing.assert_allclose(two, one, rtol=1e-9, atol=1e-12)  # another alignment, another sum
                    else:
                        assert np.array_equal(one, two), method
            made += 1
    assert made


def test_there_are_as_many_as_scikit_learn_has() -> None:
    names = [name for name, _ in all_estimators()]
    assert len(names) >= 200
    assert all(issubclass(kind, BaseEstimator) for _, kind in all_estimators())
