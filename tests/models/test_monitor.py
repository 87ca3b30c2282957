"""Monitoring in the prediction pass: the numbers of the whole table, slices, limits, files, workflows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from model_helpers import NAMES, matrix, write_matrix
from sklearn.ensemble import HistGradientBoostingClassifier

import daskml_scale as dms
from daskml_scale.artifacts.bundle import Bundle, save_model
from daskml_scale.cli import verbs
from daskml_scale.errors import DriftError, PlanError, SpecError, UsageError
from daskml_scale.stages.drift import Limits
from daskml_scale.stages.monitor import MonitorStage
from daskml_scale.stages.predict import PredictStage
from daskml_scale.stages.run import run_stage
from daskml_scale.storage.ledger import Ledger

X, Y = matrix()
SCHEMA = {"features": list(NAMES), "dtype": "float32"}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    model = HistGradientBoostingClassifier(max_iter=5, early_stopping=False).fit(X, Y)
    return save_model(model, tmp_path / "m", schema=SCHEMA, reference=X)


def shifted() -> np.ndarray:
    other = X.copy()
    other[:, 0] += 2
    other[::2, 3] = np.nan
    return other


def line(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(line for line in found["features"] if line["name"] == name)


def test_training_rows_themselves_show_no_drift(bundle: Bundle, tmp_path: Path, recwarn: Any) -> None:
    write_matrix(f"{tmp_path}/f.zarr", X, Y, chunk=37)
    dms.predict(bundle, f"{tmp_path}/f.zarr", tmp_path / "p.zarr", method="predict_proba", monitor=True)
    found = dms.drift(tmp_path / "p.zarr")
    assert found["rows"] == found["rows_in_training"] == 300
    for one in (*found["features"], *found["predictions"]):
        assert one["psi"] == one["ks"] == 0
        assert one["missing"] == one["missing_in_training"]
        assert one["expected"] == one["actual"]
    assert line(found, "b")["missing"] > 0.1
    assert len(found["predictions"]) == 2
    assert not [one for one in recwarn if "PSI" in str(one.message)]


def test_a_shift_is_found_and_told_whatever_the_chunks(bundle: Bundle, tmp_path: Path) -> None:
    found = []
    for chunk in (300, 37):
        write_matrix(f"{tmp_path}/f{chunk}.zarr", shifted(), Y, chunk=chunk)
        out = tmp_path / f"p{chunk}.zarr"
        with pytest.warns(UserWarning, match=r"(PSI|missing values rose by) \d+\.\d+, more than 0\.") as told:
            dms.predict(bundle, f"{tmp_path}/f{chunk}.zarr", out, method="predict_proba", monitor=True)
        assert [str(one.message).split(": ")[1] for one in told] == ["a", "d", "predictions (0)", "predictions (1)"]
        found.append(dms.drift(out))
    assert found[0] == found[1]
    assert line(found[0], "a")["ks"] > 0.5
    assert line(found[0], "d")["missing"] == 0.5
    assert line(found[0], "c")["psi"] < 0.01
    assert found[0]["predictions"][0]["psi"] > 0.25
    assert found[0]["features"][0]["name"] == "a"


def test_a_limit_that_fails_leaves_the_predictions(bundle: Bundle, tmp_path: Path) -> None:
    write_matrix(f"{tmp_path}/f.zarr", shifted(), Y)
    with pytest.raises(DriftError, match=r"not like those of training: a: PSI .* more than 1"):
        dms.predict(bundle, f"{tmp_path}/f.zarr", tmp_path / "p.zarr", monitor={"psi": {"fail": 1}})
    assert (dms.open_dataset(str(tmp_path / "p.zarr")).status.values == 1).all()
    assert dms.drift(tmp_path / "p.zarr")["rows"] == 300


def test_slices_say_where(bundle: Bundle, tmp_path: Path) -> None:
    other = X.copy()
    other[200:, 0] += 5
    write_matrix(f"{tmp_path}/f.zarr", other, Y, chunk=90)
    with pytest.warns(UserWarning, match="a: PSI"):
        dms.predict(bundle, f"{tmp_path}/f.zarr", tmp_path / "p.zarr", monitor={"slices": ["late"]})
    slices = dms.drift(tmp_path / "p.zarr")["slices"]["late"]
    assert [(one["value"], one["rows"]) for one in slices] == [("0.0", int((Y == 0).sum())), ("1.0", int(Y.sum()))]
    assert all({"features", "predictions"} <= set(one) for one in slices)


def test_a_second_run_counts_nothing_again_and_a_changed_chunk_counts_its_own(bundle: Bundle, tmp_path: Path) -> None:
    write_matrix(f"{tmp_path}/f.zarr", X, Y)
    for expected in (0, 3):
        dms.predict(bundle, f"{tmp_path}/f.zarr", tmp_path / "p.zarr", monitor=True)
        row = dms.last_run()
        assert row is not None
        assert (row.units, row.reused) == (3, expected)
    write_matrix(f"{tmp_path}/f.zarr", np.concatenate([X[:200], shifted()[200:]]), Y)
    with pytest.warns(UserWarning, match=r"a: PSI|d: share of missing values rose by") as told:
        dms.predict(bundle, f"{tmp_path}/f.zarr", tmp_path / "p.zarr", monitor=True)
    assert len(told) == 2
    row = dms.last_run()
    assert row is not None
    assert (row.units, row.reused) == (3, 2)
    assert line(dms.drift(tmp_path / "p.zarr"), "d")["missing"] == pytest.approx(50 / 300)


def test_rows_that_cannot_be_predicted_count_as_missing_predictions(bundle: Bundle, tmp_path: Path) -> None:
    write_matrix(f"{tmp_path}/f.zarr", X, Y)
    stage = PredictStage("p", f"{tmp_path}/p.ledger", f"{tmp_path}/f.zarr", bundle.path, watched=True, max_bad=300,
                         function=None, method="predict")  # fmt: skip
    result = run_stage(stage)
    assert result.rows == 300
    unit = Ledger(stage.ledger).records()["rows/00000000"].result
    assert unit["seen"]["rows"] == 100
    assert unit["bad_input"] == 0


def test_without_training_statistics_it_is_refused_before_anything_runs(tmp_path: Path) -> None:
    model = HistGradientBoostingClassifier(max_iter=2).fit(X, Y)
    bare = save_model(model, tmp_path / "m", schema=SCHEMA)
    write_matrix(f"{tmp_path}/f.zarr", X, Y)
    with pytest.raises(PlanError, match=r"does not say what it was trained on.*reference="):
        dms.predict(bare, f"{tmp_path}/f.zarr", tmp_path / "p.zarr", monitor=True)
    assert not (tmp_path / "p.zarr").exists()
    with pytest.raises(UsageError, match="was not compared with training"):
        dms.drift(tmp_path / "p.zarr")


def test_wrong_options_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    write_matrix(f"{tmp_path}/f.zarr", X, Y)
    data, out = f"{tmp_path}/f.zarr", tmp_path / "p.zarr"
    with pytest.raises(SpecError, match=r"monitor\.psy.*unknown"):
        dms.predict(bundle, data, out, monitor={"psy": {"warn": 1}})
    with pytest.raises(PlanError, match="no column 'nope' to slice by"):
        dms.predict(bundle, data, out, monitor={"slices": ["nope"]})
    with pytest.raises(UsageError, match="give out="):
        dms.predict(bundle, data, monitor=True)


def test_an_empty_and_a_one_row_table_are_monitored(bundle: Bundle, tmp_path: Path) -> None:
    for rows in (0, 1):
        write_matrix(f"{tmp_path}/f{rows}.zarr", X[:rows], Y[:rows])
        monitor = {"psi": {}, "missing": {}, "prediction": {}}
        dms.predict(bundle, f"{tmp_path}/f{rows}.zarr", tmp_path / f"p{rows}.zarr", monitor=monitor)
        assert dms.drift(tmp_path / f"p{rows}.zarr")["rows"] == rows


def test_the_stage_reads_only_sums(bundle: Bundle, tmp_path: Path) -> None:
    write_matrix(f"{tmp_path}/f.zarr", shifted(), Y)
    predictions = PredictStage("p", f"{tmp_path}/p.ledger", f"{tmp_path}/f.zarr", bundle.path, watched=True)
    stage = MonitorStage("watch", f"{tmp_path}/watch.ledger", f"{tmp_path}/p.zarr", bundle.path, "predict", Limits())
    with pytest.raises(PlanError, match="was not counted"):
        run_stage(stage)
    run_stage(predictions)
    result = run_stage(stage)
    assert any("a: PSI" in text for text in result.warnings)
    assert result.result["worst"][0]["name"] == "a"
    written = json.loads((tmp_path / "watch.drift.json").read_text())
    assert written["features"][0]["actual"]
    with pytest.raises(DriftError):
        run_stage(MonitorStage(**{**vars(stage), "limits": Limits(psi=(None, 0.5))}))


def test_drift_is_shown_and_drawn_from_the_command_line(bundle: Bundle, tmp_path: Path) -> None:
    write_matrix(f"{tmp_path}/f.zarr", shifted(), Y)
    with pytest.warns(UserWarning, match="PSI|share of missing values"):
        dms.predict(bundle, f"{tmp_path}/f.zarr", tmp_path / "p.zarr", method="predict_proba", monitor=True)

    def say(*words: str) -> Any:
        return CliRunner().invoke(verbs, ["models", "drift", str(tmp_path / "p.zarr"), *words])

    shown = say("--plot", str(tmp_path / "drift.html"))
    assert shown.exit_code == 0, shown.output
    names = [line.split()[1] for line in shown.output.splitlines() if line.startswith("feature")]
    assert names == [one["name"] for one in dms.drift(tmp_path / "p.zarr")["features"]]
    page = (tmp_path / "drift.html").read_text()
    for text in ("a: PSI", "predictions: 1: PSI", "missing 50.0%, in training 0.0%"):
        assert text in page
    assert json.loads(say("--json").output) == dms.drift(tmp_path / "p.zarr")
    assert isinstance(say("--plot", str(tmp_path / "drift.txt")).exception, UsageError)
