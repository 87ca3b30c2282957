"""Cells as rows and back: what is learnt from samples predicts the cube that they were taken from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gridded_helpers import cube, stored

import daskml_scale as dms
from daskml_scale.errors import PlanError
from daskml_scale.stages.gridded.samples import SamplesStage
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import stores

WORKFLOW = """\
version: 1
name: months
store: {store}
cluster: none
stages:
  climate: {{kind: rechunk, source: {source}, chunks: {{time: 6}}}}
  features:
    kind: cube
    input: climate
    steps: [{{anomalies: {{of: t}}}}, {{lag: {{of: t_anomaly, lags: [1]}}}}, {{lead: {{of: t_anomaly, leads: [1]}}}}]
  samples: {{kind: samples, input: features, target: t_anomaly_lead_1}}
  model:
    kind: train
    input: samples
    estimator: {{sklearn.ensemble.HistGradientBoostingRegressor: {{max_iter: 5, early_stopping: false}}}}
    where: time < time('2001-01-01')
  scores: {{kind: evaluate, model: model, input: samples, where: time >= time('2001-01-01'), metrics: [r2]}}
  predictions: {{kind: predict, model: model, input: features}}
"""


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    source = stored(cube(40), tmp_path / "raw.zarr", (10, 4, 6))
    path = tmp_path / "months.yaml"
    path.write_text(WORKFLOW.format(store=tmp_path / "store", source=source))
    return path


def test_a_cube_is_learnt_from_and_predicted(workflow: Path, tmp_path: Path):
    plan = dms.dry_run(workflow)
    assert [row.name for row in plan][-1] == "predictions"
    summary = dms.run(workflow)
    assert np.isfinite(summary.metrics["r2"])
    store = tmp_path / "store"
    features = dms.open_dataset(str(store / "features.zarr")).load()
    samples = dms.open_dataset(str(store / "samples.zarr")).load()
    assert samples.feature.values.tolist() == ["t_anomaly", "t_anomaly_lag_1"]
    rows = samples.features.values.reshape(40, 4, 6, 2)
    np.testing.assert_array_equal(rows[..., 0], features.t_anomaly.values)
    np.testing.assert_array_equal(samples.lat.values.reshape(40, 4, 6)[3, :, 0], features.lat.values)
    np.testing.assert_array_equal(samples.time.values.reshape(40, 4, 6)[:, 1, 2], features.time.values)
    predictions = dms.open_dataset(str(store / "predictions.zarr")).load()
    assert predictions.prediction.dims == ("time", "lat", "lon")
    model = dms.load_model(str(store / "models" / "model")).estimator
    known = ~np.isnan(rows).all(axis=-1)
    expected = np.full((40, 4, 6), np.nan)
    expected[known] = model.predict(rows[known])
    np.testing.assert_allclose(predictions.prediction.values, expected, rtol=1e-6)
    assert set(np.unique(predictions.status.values[known])) == {1}
    again = dms.run(workflow)
    assert all(stage.units == stage.reused > 0 for stage in again.stages)


def test_what_is_made_of_a_lead_is_no_feature(workflow: Path, tmp_path: Path):
    dms.run(workflow)
    url = str(tmp_path / "store" / "features.zarr")
    for target, features, message in (
        ("t_anomaly", ("t_anomaly_lead_1",), "made of a lead"),
        ("nothing", (), "no variable 'nothing'"),
    ):
        with pytest.raises(PlanError, match=message):
            run_stage(SamplesStage("s", str(tmp_path / "s.ledger"), url, target, features))


def test_a_cube_without_the_features_of_the_model_is_refused(workflow: Path, tmp_path: Path):
    text = workflow.read_text().replace("predict, model: model, input: features", "predict, model: model, input: other")
    other = "  other: {kind: cube, input: climate, steps: [{keep: {of: t}}]}\n"
    workflow.write_text(text + other)
    with pytest.raises(PlanError, match="the model's feature 't_anomaly' is no variable"):
        dms.run(workflow)
    assert not stores.exists(str(tmp_path / "store" / "predictions.zarr"))
