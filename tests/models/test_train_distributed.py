"""XGBoost on the whole cluster: checkpoints, the same model after an interruption, and on real workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import matrix, write_matrix
from sklearn.metrics import roc_auc_score

from daskml_scale.artifacts.bundle import load_model
from daskml_scale.errors import DaskMLError, SpecError
from daskml_scale.stages import boosting
from daskml_scale.stages.run import run_stage
from daskml_scale.stages.train import TrainStage

xgboost = pytest.importorskip("xgboost")
X, Y = matrix(600)
XGB = {"xgboost.XGBClassifier": {"n_estimators": 10, "max_depth": 3, "subsample": 0.7, "max_bin": 64}}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    known = Y.copy()
    known[7] = np.nan
    write_matrix(f"{tmp_path}/features.zarr", X, known)
    return tmp_path


def stage(store: Path, **fields: Any) -> TrainStage:
    defaults = {"name": "model", "ledger": f"{store}/model.ledger", "input": f"{store}/features.zarr", "seed": 7}
    more = {"bundle": f"{store}/models/m", "estimator": XGB, "checkpoint_every": 4}
    return TrainStage(**{**defaults, **more, **fields})


def test_it_learns_from_all_rows_and_leaves_no_checkpoint(store: Path) -> None:
    result = run_stage(stage(store))
    bundle = load_model(store / "models" / "m")
    assert result.rows == 599
    assert bundle.kind == "xgboost"
    assert bundle.classes == (0, 1)
    assert roc_auc_score(Y, bundle.predict_proba(X)[:, 1]) > 0.8
    assert bundle.estimator.booster.num_boosted_rounds() == 10
    assert not [path for path in (store / "model.ledger").iterdir() if "checkpoint" in path.name]


def test_an_interrupted_training_goes_on_from_its_checkpoint_and_ends_the_same(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(stage(store))
    whole = load_model(store / "models" / "m").sha256
    again = stage(store, ledger=f"{store}/again.ledger", bundle=f"{store}/models/again")
    kept, rounds = boosting._keep, []

    def dies(*arguments: Any) -> None:
        kept(*arguments)
        if arguments[2] == 8:
            raise OSError("the machine went away")

    with monkeypatch.context() as patch:
        patch.setattr(boosting, "_keep", dies)
        with pytest.raises(DaskMLError, match="the machine went away"):
            run_stage(again)
    assert [path.name.rpartition("-")[2] for path in Path(again.ledger).glob("checkpoint-*")] == ["8.ubj"]
    train = xgboost.train

    def counted(params: Any, data: Any, portion: int, **more: Any) -> Any:
        rounds.append(portion)
        return train(params, data, portion, **more)

    monkeypatch.setattr(xgboost, "train", counted)
    run_stage(again)
    assert rounds == [2]
    assert load_model(store / "models" / "again").sha256 == whole


def test_a_checkpoint_of_other_data_or_parameters_is_not_used(store: Path) -> None:
    folder = f"{store}/model.ledger"
    booster = xgboost.train({}, xgboost.DMatrix(X, Y), 3)
    boosting._keep(folder, "0" * 40, 3, booster)
    run_stage(stage(store))
    assert load_model(store / "models" / "m").estimator.booster.num_boosted_rounds() == 10


def test_on_a_cluster_every_worker_trains(store: Path, client: Any) -> None:
    result = run_stage(stage(store), client=client)
    bundle = load_model(store / "models" / "m")
    assert result.rows == 599
    assert roc_auc_score(Y, bundle.predict_proba(X)[:, 1]) > 0.8


def test_other_estimators_are_refused(store: Path) -> None:
    with pytest.raises((SpecError, DaskMLError), match="cannot be trained by several workers"):
        run_stage(stage(store, estimator={"sklearn.linear_model.LogisticRegression": {}}))


def test_a_fixed_xgboost_is_trained_as_any_estimator(store: Path) -> None:
    run_stage(stage(store, checkpoint_every=0))
    bundle = load_model(store / "models" / "m")
    direct = xgboost.XGBClassifier(**XGB["xgboost.XGBClassifier"], random_state=7)
    keep = np.arange(len(Y)) != 7
    np.testing.assert_allclose(
        bundle.predict_proba(X), direct.fit(X[keep], Y[keep]).predict_proba(X), rtol=1e-5, atol=1e-6
    )
    assert run_stage(stage(store, checkpoint_every=0)).rows == 599
