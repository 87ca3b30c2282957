"""The main job on the real data: trustworthy numbers, nothing leaked, everything reused the second time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

import daskml_scale as dms
from daskml_scale.spec.load import load_workflow
from daskml_scale.storage import tables
from daskml_scale.storage.ledger import Ledger

ROOT = Path(__file__).parent.parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(store: Path, *options: str) -> dict:
    command = [sys.executable, "-m", "daskml_scale", "run", "flights", "--store", str(store), "--json", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def store(tmp_path_factory, nycflights13) -> Path:
    """The whole workflow, run once by the command line on a local cluster."""
    folder = tmp_path_factory.mktemp("flights") / "store"
    run(folder)
    return folder


@pytest.fixture(scope="module")
def rows(store) -> dict:
    """Features, target and time of every flight with a label."""
    url = str(store / "features.zarr")
    keys = tables.read_columns(url, ["late", "sched"])
    labelled = ~np.isnan(keys["late"])
    features = dms.open_dataset(url).features.values
    return {"X": features[labelled], "y": keys["late"][labelled], "sched": keys["sched"][labelled]}


def test_the_summary_says_what_was_done(store):
    summary = json.loads((store / "summary.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == list(load_workflow(ROOT / "workflows/flights.yaml").stages)
    assert all({"name", "units", "reused", "seconds"} <= stage.keys() for stage in summary["stages"])
    assert summary["rows_predicted"] == 336_776
    assert {"python", "dask", "scikit-learn", "daskml-scale"} <= summary["versions"].keys()


def test_the_test_months_are_predicted_well_and_nothing_peeks(store):
    auc = json.loads((store / "summary.json").read_text())["metrics"]["roc_auc"]
    assert auc >= 0.705
    assert auc < 0.74, "grouping by the scheduled hour, which peeks, gives 0.747"


@pytest.mark.faults_long
def test_the_test_months_are_predicted_as_well_as_plain_scikit_learn_does(store, rows):
    """AUC within 0.005 of scikit-learn on the same features, parameters and seed.

    (Other seeds move the AUC of either by 0.005: above 200,000 rows scikit-learn bins a random sample.)
    """
    metrics = json.loads((store / "summary.json").read_text())["metrics"]
    workflow = load_workflow(ROOT / "workflows/flights.yaml")
    (fixed,) = workflow.stages["search"].estimator.values()
    chosen = {**fixed, **Ledger(str(store / "search.ledger")).result()["best_params"]}
    train = rows["sched"] < np.datetime64("2013-11-01")
    plain = HistGradientBoostingClassifier(random_state=workflow.seed, **chosen)
    plain.fit(rows["X"][train], rows["y"][train])
    predicted, observed = plain.predict_proba(rows["X"][~train])[:, 1], rows["y"][~train]
    assert abs(metrics["roc_auc"] - roc_auc_score(observed, predicted)) < 0.005
    assert abs(metrics["average_precision"] - average_precision_score(observed, predicted)) < 0.01
    assert abs(metrics["log_loss"] - log_loss(observed, predicted)) < 0.01


def test_the_metrics_are_those_of_the_written_predictions(store):
    """What `evaluate` reports can be recomputed from what `predict` wrote: one bundle, two ways."""
    metrics = json.loads((store / "summary.json").read_text())["metrics"]
    late = tables.read_columns(str(store / "features.zarr"), ["late", "sched"])
    predictions = dms.open_dataset(str(store / "predictions.zarr"))
    rows = (late["sched"] >= np.datetime64("2013-11-01")) & ~np.isnan(late["late"])
    auc = roc_auc_score(late["late"][rows], predictions.probability.values[rows, 1])
    assert auc == pytest.approx(metrics["roc_auc"], abs=1e-6)


def test_cancelled_flights_are_predicted_too(store):
    predictions = dms.open_dataset(str(store / "predictions.zarr"))
    late = tables.read_columns(str(store / "features.zarr"), ["late"])["late"]
    assert np.isnan(late).sum() > 8_000
    assert (predictions.status.values == 1).all()
    assert np.isfinite(predictions.probability.values).all()
    np.testing.assert_allclose(predictions.probability.values.sum(axis=1), 1, atol=1e-6)


def test_a_second_run_reuses_every_unit_and_starts_no_cluster(store):
    before = {path: path.stat().st_mtime_ns for path in store.rglob("c/*") if path.is_file()}
    summary = run(store)
    assert all(stage["units"] == stage["reused"] > 0 for stage in summary["stages"])
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.faults_long
def test_without_a_cluster_the_result_is_the_same_to_the_byte(store, tmp_path):
    """Two equal runs: data chunks, metadata and the model's file are equal, ledgers in what identifies a unit."""
    run(tmp_path / "store", "--cluster", "none")
    equal(store, tmp_path / "store")


@pytest.mark.faults_long
def test_on_hosts_over_ssh_the_result_is_the_same_to_the_byte(store, tmp_path):
    """Three workers on two hosts, from a definition in a file; one connection breaks on the way."""
    pytest.importorskip("asyncssh", reason="asyncssh is not installed: pip install 'daskml-scale[ssh]'")
    from daskml_scale.testing.ssh_hosts import farm

    with farm(tmp_path) as hosts:
        listed = [{"host": "127.0.0.2", "slots": 2}, {"host": "127.0.0.3"}]
        spec = hosts.definition({"cpu": {"workers": {"min": 2}, "memory": "2GiB", "hosts": listed}})
        (tmp_path / "farm.yaml").write_text(json.dumps(spec))  # JSON is YAML
        ended, broken = threading.Event(), []
        cut = threading.Thread(target=cut_when_at_work, args=(hosts, tmp_path / "store", ended, broken))
        cut.start()
        try:
            run(tmp_path / "store", "--cluster", str(tmp_path / "farm.yaml"))
        finally:
            ended.set()
            cut.join()
        assert broken[0] >= 1
        assert hosts.sessions["127.0.0.2"]  # opened again
    equal(store, tmp_path / "store")


def cut_when_at_work(hosts: Any, store: Path, ended: threading.Event, broken: list[int]) -> None:
    """Break the connections of a host once something has been written, and note how many there were."""
    while not ended.wait(0.1):
        if any(store.glob("*.ledger/*")):
            broken.append(len(hosts.sessions["127.0.0.2"]))
            hosts.cut("127.0.0.2")
            return


def equal(store: Path, other: Path) -> None:
    ours, theirs = content(store), content(other)
    assert sorted(ours) == sorted(theirs)
    assert [name for name in ours if ours[name] != theirs[name]] == []
    for folder in store.glob("*.ledger"):
        assert identities(folder) == identities(other / folder.name)


def content(store: Path) -> dict[str, bytes]:
    skipped = {"summary.json", ".lock"}
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and ".ledger" not in str(path) and path.name not in skipped
    }


def identities(folder: Path) -> list:
    return sorted(record.identity() for record in Ledger(str(folder)).records().values())
