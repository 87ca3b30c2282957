"""What a model file may hold, what common options need, and what is refused when it is saved."""

from __future__ import annotations

import importlib
import io
import json
import zipfile
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.model_selection
from model_helpers import matrix
from scipy.stats import randint
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    StackingClassifier,
)
from sklearn.feature_selection import SelectKBest, chi2, f_classif
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct, Matern, PairwiseKernel, RationalQuadratic, WhiteKernel
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.model_selection import RandomizedSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, KBinsDiscretizer, StandardScaler
from sklearn.svm import SVC

import daskml_scale.search
from daskml_scale.artifacts import trust
from daskml_scale.artifacts.bundle import load_model, save_model
from daskml_scale.artifacts.canonical import nodes
from daskml_scale.artifacts.harmless import CLASSES, FUNCTIONS
from daskml_scale.errors import UntrustedError, UsageError


def lookup(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_what_is_let_through_is_of_the_libraries_and_is_what_the_list_says() -> None:
    for name in CLASSES | FUNCTIONS:
        assert name.partition(".")[0] in {"sklearn", "numpy", "scipy", "daskml_scale"}
    assert all(isinstance(lookup(name), type) for name in CLASSES)
    assert not [name for name in FUNCTIONS if isinstance(lookup(name), type) or not callable(lookup(name))]


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval", "functools.partial", "joblib.numpy_pickle.load", "numpy.fromfile", "numpy.load",
        "numpy.memmap", "operator.methodcaller", "os.system", "sklearn.datasets._base.load_files",
        "sklearn.metrics._dist_metrics.PyFuncDistance64", "sklearn.metrics._scorer.make_scorer",
        "scipy.stats._distn_infrastructure.rv_frozen", "subprocess.Popen",
    ],
)  # fmt: skip
def test_what_reads_files_or_runs_code_is_not_let_through(name: str) -> None:
    assert name not in CLASSES | FUNCTIONS


def relabelled(value: object, old: dict[str, str], new: dict[str, str]) -> bytes:
    """Return a skops file of ``value`` in which the first node with the entries ``old`` got those of ``new``."""
    data = trust.dumps(value)
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        files = {name: source.read(name) for name in source.namelist()}
    schema = json.loads(files["schema.json"])
    node = next(node for node in nodes(schema) if old.items() <= node.items())
    node.update(new)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, content in {**files, "schema.json": json.dumps(schema).encode()}.items():
            target.writestr(name, content)
    return buffer.getvalue()


def test_a_function_may_be_named_and_not_called() -> None:
    named = trust.dumps({"score": f_classif})
    assert trust.untrusted(named) == []
    assert trust.load(named, (), "f")["score"] is f_classif
    assert trust.load(trust.dumps([np.asarray, np.clip, int, np.float32]), (), "f") == [
        np.asarray,
        np.clip,
        int,
        np.float32,
    ]
    called = relabelled({"items": [1, 2]}, {"__class__": "list"}, {"__module__": "numpy", "__class__": "asarray"})
    with pytest.raises(UntrustedError, match=r"numpy\.asarray"):
        trust.load(called, (), "f")
    built = relabelled(
        {"score": (1, 2)}, {"__loader__": "TupleNode"},
        {"__loader__": "ConstructorFromReduceNode", "__module__": "numpy", "__class__": "asarray",
         "content": json.loads(json.dumps({"__loader__": "TupleNode", "__module__": "builtins", "__class__": "tuple",
                                           "content": []}))},
    )  # fmt: skip
    with pytest.raises(UntrustedError, match=r"numpy\.asarray"):
        trust.load(built, (), "f")


def test_a_file_nested_without_end_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep]
    data = trust.dumps(deep)
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        text = source.read("schema.json").decode()
    opening, closing = '{"__class__": "list", "__module__": "builtins", "__loader__": "ListNode", "content": [', "]}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        head = json.dumps({"protocol": json.loads(text)["protocol"], "_skops_version": "0.16.0"})[:-1]
        target.writestr("schema.json", head + "," + opening[1:] + opening * 5000 + closing * 5000 + "]}")
    with pytest.raises(UntrustedError, match="not a model file that this skops can read"):
        trust.untrusted(buffer.getvalue())


OPTIONS: dict[str, Any] = {
    "losses": [HistGradientBoostingRegressor(loss=loss, max_iter=2) for loss in ("gamma", "poisson", "absolute_error")],
    "quantile": HistGradientBoostingRegressor(loss="quantile", quantile=0.3, max_iter=2),
    "processes": [
        GaussianProcessRegressor(kernel, optimizer=None)
        for kernel in (DotProduct() + WhiteKernel(), RationalQuadratic() ** 2, PairwiseKernel(), 2.0 * Matern())
    ],
    "neighbours": [
        KNeighborsClassifier(metric=metric, algorithm=algorithm)
        for metric in ("chebyshev", "manhattan", "minkowski") for algorithm in ("ball_tree", "kd_tree", "brute")
    ],
    "columns": make_column_transformer(
        (SimpleImputer(add_indicator=True), make_column_selector(dtype_include=np.number)), (KBinsDiscretizer(3), ["a"])
    ),
    "functions": make_pipeline(
        FunctionTransformer(np.abs), FunctionTransformer(np.log1p, np.expm1), SelectKBest(chi2, k=2)
    ),
    "targets": TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
    "calibrated": [
        CalibratedClassifierCV(SGDClassifier(), method=how, cv=2) for how in ("isotonic", "sigmoid", "temperature")
    ],
    "searches": [
        kind(LogisticRegression(), {"C": [0.1, 1.0]}, cv=StratifiedKFold(2), scoring="roc_auc")
        for kind in (sklearn.model_selection.GridSearchCV, daskml_scale.search.GridSearchCV)
    ],
    "stacks": StackingClassifier([("a", LogisticRegression()), ("b", SGDClassifier())], cv=2),
    "kernels": SVC(kernel=rbf_kernel),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_common_options_need_no_trust(name: str, tmp_path: Path) -> None:
    import pandas as pd

    X, y = matrix()
    X, y = np.abs(np.nan_to_num(X)).astype("float64"), y + 1.0
    found = OPTIONS[name] if isinstance(OPTIONS[name], list) else [OPTIONS[name]]
    for number, estimator in enumerate(found):
        data = pd.DataFrame(X, columns=list("abcd")) if name == "columns" else X
        estimator.fit(data, y)
        assert save_model(estimator, tmp_path / f"{number}").trusted == ()
        loaded = load_model(tmp_path / f"{number}").estimator
        method = "predict" if hasattr(estimator, "predict") else "transform"
        np.testing.assert_allclose(getattr(loaded, method)(data), getattr(estimator, method)(data), rtol=1e-12)


# ------------------------------------------------------------------------------------------------ refused at save


class Local(Ridge):  # type: ignore[misc]
    """Found by name where the tests are imported from, as ``trusted`` needs it."""


@cache
def refusals() -> dict[str, tuple[Any, str]]:
    X, y = np.nan_to_num(matrix()[0]), matrix()[1]

    class Hidden(Ridge):  # type: ignore[misc]
        pass

    def nothing(values: Any) -> Any:
        return values

    def calls(function: Any) -> Pipeline:
        return make_pipeline(FunctionTransformer(function), Ridge())

    main = type("Mine", (Ridge,), {"__module__": "__main__"})
    selfish = HistGradientBoostingClassifier(max_iter=2, early_stopping=True, scoring="roc_auc")
    search = RandomizedSearchCV(Ridge(), {"alpha": randint(1, 3)}, n_iter=1, cv=2)
    return {
        "unfitted": (LogisticRegression(), "LogisticRegression is not fitted; call fit"),
        "unfitted in a pipeline": (make_pipeline(StandardScaler(), Ridge()), "Pipeline is not fitted"),
        "a class": (LogisticRegression, "not the class LogisticRegression"),
        "a number": (3, "not an object of type int"),
        "nothing": (None, "not an object of type NoneType"),
        "a lambda": (calls(lambda values: values).fit(X, y), r"<lambda>, which cannot be imported"),
        "a local function": (calls(nothing).fit(X, y), "nothing, which cannot be imported"),
        "a local class": (Hidden().fit(X, y), "Hidden, which cannot be imported"),
        "of main": (main().fit(X, y), "__main__.Mine, which no other process can load"),
        "holds itself": (selfish.fit(X, y), "it holds itself"),
        "a search": (search.fit(X, y), "save its best_estimator_ instead"),
    }  # fmt: skip


@pytest.mark.parametrize("name", refusals())
def test_what_could_not_be_loaded_is_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    estimator, text = refusals()[name]
    with pytest.raises(UsageError, match=text):
        save_model(estimator, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_class_of_a_module_is_saved_and_names_itself(tmp_path: Path) -> None:
    saved = save_model(Local().fit(np.nan_to_num(matrix()[0]), matrix()[1]), tmp_path / "m")
    assert saved.trusted == (f"{__name__}.Local",)
    assert load_model(tmp_path / "m", trusted=saved.trusted).estimator.alpha == 1.0


def test_a_file_that_does_not_load_again_is_not_kept(tmp_path: Path) -> None:
    estimator = Ridge().fit(np.nan_to_num(matrix()[0]), matrix()[1])
    estimator.groups_ = defaultdict(list, {1: [2]})  # skops saves it, and loads text keys only
    with pytest.raises(UsageError, match="does not load again"):
        save_model(estimator, tmp_path / "m")
    assert not (tmp_path / "m").exists()
