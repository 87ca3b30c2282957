"""scikit-learn's own tests of its searches, with ours in their place, on a cluster."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client
from sklearn import model_selection

from daskml_scale.search import GridSearchCV, RandomizedSearchCV

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ELSEWHERE = {
    "test_search_cv_verbose_3": "the lines are printed on the workers",
    "test_multi_metric_search_forwards_metadata": "it looks into objects that changed on the workers",
    "test_search_callbacks": "callbacks are refused on a cluster",
}
"""Starts of names -> why they cannot pass on a cluster. All others must."""
OTHERS = ("halving", "array_api")
"""In the names of tests of other classes, and of those that need a GPU library."""


def _tests() -> dict[str, Any]:
    """Return the test functions of scikit-learn's module, loaded while its names mean our classes."""
    theirs = model_selection.GridSearchCV, model_selection.RandomizedSearchCV
    spec = importlib.util.find_spec("sklearn.model_selection.tests.test_search")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        model_selection.GridSearchCV, model_selection.RandomizedSearchCV = GridSearchCV, RandomizedSearchCV
        sys.modules[spec.name] = module  # workers find its estimators by this name
        spec.loader.exec_module(module)
    finally:
        model_selection.GridSearchCV, model_selection.RandomizedSearchCV = theirs
    assert module.GridSearchCV is GridSearchCV
    return {
        name: test
        for name, test in vars(module).items()
        if name.startswith("test_") and not name.startswith(tuple(ELSEWHERE)) and not any(w in name for w in OTHERS)
    }


globals().update(_tests())


@pytest.fixture(scope="module", autouse=True)
def default_client(cluster: Any) -> Iterator[None]:
    with Client(cluster):
        yield
