"""MLflow: what is really in its store after runs of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daskml_scale import events
from daskml_scale.runs.tracking import Tracker

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # tests ask nobody anything
mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed (pip install daskml-scale[mlflow])")


def stream(state: str = "succeeded") -> list[events.Event]:
    trials = [
        {"trial": number, "score": score, "params": {"depth": number}} for number, score in enumerate([0.5, 0.7, None])
    ]
    done = {"state": "ok", "seconds": 2.0, "units": 4, "reused": 1}
    return [
        events.RunStarted(time=1.0, run="w-1", workflow="w", store="s"),
        events.StageFinished(time=2.0, run="w-1", stage="search", result={"trials": trials}, **done),
        events.StageFinished(time=3.0, run="w-1", stage="score", result={"metrics": {"auc": 0.8, "t": []}}, **done),
        events.RunFinished(time=4.0, run="w-1", state=state, seconds=3.0, exit_code=0),
    ]


def test_a_run_has_a_parent_and_its_trials_and_a_resumed_one_adds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri, notes = (tmp_path / "mlruns").as_uri(), []
    for state in ("failed", "succeeded"):
        tracker = Tracker(uri, tmp_path / "run", notes.append)
        for event in stream(state):
            tracker.sink(event)
    assert notes == []
    client = mlflow.MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("w").experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert (parent.data.tags["mlflow.runName"], parent.data.metrics["score.auc"]) == ("w-1", 0.8)
    children = {run.data.tags["mlflow.runName"]: run for run in runs if run is not parent}
    assert set(children) == {"search trial 0", "search trial 1"}
    best = children["search trial 1"]
    assert (best.data.params, best.data.metrics) == ({"depth": "1"}, {"score": 0.7})
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert mlflow.active_run() is None


def test_a_server_that_does_not_answer_costs_one_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    notes: list[str] = []
    tracker = Tracker("http://127.0.0.1:9", tmp_path, notes.append)
    for event in stream():
        tracker.sink(event)
    assert len(notes) == 1
    assert "MLflow does not take this run any more" in notes[0]
