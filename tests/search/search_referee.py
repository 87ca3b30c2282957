"""scikit-learn's own test modules, loaded while its four searches mean ours."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Collection
from functools import cache
from types import ModuleType
from typing import Any

from sklearn import model_selection
from sklearn.experimental import enable_halving_search_cv  # noqa: F401

import daskml_scale.search

OURS = ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV")
SEARCH = "sklearn.model_selection.tests.test_search"
HALVING = "sklearn.model_selection.tests.test_successive_halving"
ON_A_CLUSTER = {
    "test_search_cv_verbose_3": "the lines are printed on the workers",
    "test_search_callbacks_receive_search_instance": "hooks that ran on a worker tell of a copy of the search",
    "test_search_callbacks_with_partial_fit_failures": "its callback sends an instance of a class that no import finds",
    "test_multi_metric_search_forwards_metadata": "it looks into objects that changed on the workers",
}
HALVING_ON_A_CLUSTER = {
    "test_cv_results": "its scorer draws from one generator, and every worker has its own copy",
    "test_base_estimator_inputs": "it looks into lists that grew on the workers",
}
"""Starts of names -> why they cannot pass on a cluster. All others must; without one all must."""
OF_A_GPU = "array_api"
"""In the names of tests that need a GPU library."""


def own_tests(name: str, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the test functions of a module of scikit-learn's, with our classes in the place of its own."""
    module = _loaded(name)
    assert module.HalvingGridSearchCV is daskml_scale.search.HalvingGridSearchCV
    return {
        name: test
        for name, test in vars(module).items()
        if name.startswith("test_") and not name.startswith(tuple(without)) and OF_A_GPU not in name
    }


@cache
def _loaded(name: str) -> ModuleType:
    """Return a module, the same one to all who ask: its classes are pickled by their names."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    theirs = {each: getattr(model_selection, each) for each in OURS}
    try:
        for each in OURS:
            setattr(model_selection, each, getattr(daskml_scale.search, each))
        sys.modules[spec.name] = module  # workers find its estimators by this name
        spec.loader.exec_module(module)
    finally:
        for each, their in theirs.items():
            setattr(model_selection, each, their)
    return module
