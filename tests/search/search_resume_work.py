"""Searches that are killed by the tests: each fit is noted, and takes a moment."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import loguniform
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression, SGDClassifier

X, Y = make_classification(120, 6, random_state=0)


class Noted(LogisticRegression):  # type: ignore[misc]
    """Notes each fit in a folder named by the environment."""

    def fit(self, X: Any, y: Any) -> Any:
        note()
        return super().fit(X, y)


class NotedSteps(SGDClassifier):  # type: ignore[misc]
    """Notes each pass over the rows."""

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Any:
        note()
        return super().partial_fit(X, y, classes=classes, sample_weight=sample_weight)


def note() -> None:
    if "NOTED" in os.environ:
        (Path(os.environ["NOTED"]) / uuid.uuid4().hex).touch()
    time.sleep(0.05)


def noted(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def result(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def search(kind: str, folder: str) -> None:
    """Run one search and write down what it found."""
    from daskml_scale.search import AshaSearchCV, GridSearchCV, OptunaSearchCV

    at = Path(folder)
    (at / "noted").mkdir(exist_ok=True)
    os.environ["NOTED"] = str(at / "noted")
    more: dict[str, Any] = {"cv": 2, "refit": False, "out": at / "out"}
    if kind == "grid":
        made = GridSearchCV(Noted(), {"C": list(np.logspace(-3, 3, 12))}, **more)
    elif kind == "asha":
        # One pass a rung: as many notes as segments.
        made = AshaSearchCV(
            NotedSteps(random_state=0), {"alpha": loguniform(1e-5, 1)}, n_trials=8, min_resources=1, max_resources=2,
            factor=2, random_state=0, **more,
        )  # fmt: skip
    else:
        made = OptunaSearchCV(Noted(), {"C": loguniform(0.001, 100)}, n_trials=10, random_state=0, **more)
    made.fit(X, Y)
    found = {key: np.asarray(values).tolist() for key, values in made.cv_results_.items() if "_test_score" in key}
    (at / "result.json").write_text(json.dumps(found))
