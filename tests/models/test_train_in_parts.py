"""``partial_fit`` over the shards of a matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import NAMES, matrix, write_matrix
from sklearn.base import clone
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import SGDClassifier, SGDRegressor
from sklearn.naive_bayes import GaussianNB

from daskml_scale.artifacts.bundle import load_model
from daskml_scale.errors import DaskMLError, PlanError, SpecError
from daskml_scale.stages import incremental
from daskml_scale.stages.inputs import checked_records, gather
from daskml_scale.stages.matrix import matrix_bytes
from daskml_scale.stages.run import run_stage
from daskml_scale.stages.train import TrainStage
from daskml_scale.storage import stores
from daskml_scale.storage.ledger import Ledger

X, Y = np.nan_to_num(matrix()[0]), matrix()[1]
Y[5] = np.nan
SGD = {"sklearn.linear_model.SGDClassifier": {}}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_matrix(f"{tmp_path}/features.zarr", X, Y)
    return tmp_path


def stage(store: Path, **fields: Any) -> TrainStage:
    defaults = {"name": "model", "ledger": f"{store}/model.ledger", "input": f"{store}/features.zarr", "seed": 7}
    return TrainStage(**{**defaults, "bundle": f"{store}/models/m", "estimator": SGD, "passes": 1, **fields})


def by_hand(estimator: Any, passes: int, **options: Any) -> Any:
    estimator = clone(estimator)
    for _ in range(passes):
        for start in range(0, 300, 100):
            known = np.flatnonzero(~np.isnan(Y[start : start + 100])) + start
            estimator.partial_fit(X[known], Y[known], **options)
    return estimator


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize(
    ("path", "estimator", "options"),
    [
        ("sklearn.linear_model.SGDClassifier", SGDClassifier(random_state=7), {"classes": [0.0, 1.0]}),
        ("sklearn.naive_bayes.GaussianNB", GaussianNB(), {"classes": [0.0, 1.0]}),
        ("sklearn.linear_model.SGDRegressor", SGDRegressor(random_state=7), {}),
        ("sklearn.cluster.MiniBatchKMeans", MiniBatchKMeans(random_state=7), {}),
    ],
)
def test_it_learns_what_partial_fit_in_table_order_learns(
    store: Path, path: str, estimator: Any, options: dict[str, Any], passes: int
) -> None:
    result = run_stage(stage(store, estimator={path: {}}, passes=passes))
    bundle = load_model(store / "models" / "m")
    direct = by_hand(estimator, passes, **options)
    assert np.array_equal(bundle.predict(X), direct.predict(X))
    assert result.rows == bundle.training["rows"] == 299
    assert bundle.training["passes"] == passes
    assert bundle.features == NAMES


def test_classes_of_later_shards_are_known_from_the_first(tmp_path: Path) -> None:
    late = np.zeros(300)
    late[250:] = 2.0
    write_matrix(f"{tmp_path}/features.zarr", X, late)
    run_stage(stage(tmp_path))
    assert load_model(tmp_path / "models" / "m").classes == (0.0, 2.0)


def test_a_condition_chooses_the_rows_of_each_shard(store: Path) -> None:
    result = run_stage(stage(store, where="when < time('2013-01-03')"))
    direct = SGDClassifier(random_state=7).partial_fit(X[np.r_[:5, 6:48]], Y[np.r_[:5, 6:48]], classes=[0.0, 1.0])
    assert result.rows == 47
    assert np.array_equal(load_model(store / "models" / "m").decision_function(X), direct.decision_function(X))
    with pytest.raises(PlanError, match=r"no row where: when > time\('2030-01-01'\) has a value of the target"):
        run_stage(stage(store, where="when > time('2030-01-01')"))


def test_one_shard_is_what_it_needs_in_memory(store: Path) -> None:
    snapshot = stores.snapshot(f"{store}/features.zarr")
    assert snapshot is not None
    assert incremental.part_bytes(snapshot) < matrix_bytes(snapshot)
    sizes = [len(y) for _, y in incremental.parts(f"{store}/features.zarr", None)]
    assert sizes == [99, 100, 100]


def test_the_passes_are_part_of_the_fingerprint(store: Path) -> None:
    def reasons(training: TrainStage) -> Any:
        return training.plan(gather(training.reads()), checked_records(Ledger(training.ledger))).reasons

    run_stage(stage(store))
    assert not reasons(stage(store))
    assert reasons(stage(store, passes=2)) == {"parameters changed": 1}
    assert reasons(stage(store, passes=0)) == {"parameters changed": 1}


def test_an_estimator_that_learns_at_once_only_is_refused(store: Path) -> None:
    forest = {"sklearn.ensemble.RandomForestClassifier": {}}
    with pytest.raises((SpecError, DaskMLError), match="RandomForestClassifier has no partial_fit"):
        run_stage(stage(store, estimator=forest))
    assert not (store / "models").exists()
