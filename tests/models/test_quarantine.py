"""Rows in quarantine from the command line: shown with reasons, tried again after a mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from model_helpers import Mended, fragile, opened, plan_of

from daskml_scale.cli import verbs
from daskml_scale.errors import UnitsFailedError, UsageError
from daskml_scale.runs import quarantine
from daskml_scale.stages.run import run_stage
from daskml_scale.storage.lock import hold


def say(*words: str) -> Any:
    return CliRunner().invoke(verbs, ["quarantine", "show", *words])


def test_rows_are_listed_with_their_reasons(tmp_path: Path) -> None:
    run_stage(fragile(tmp_path, {7: 3.5, 150: 2.5, 151: 2.25}, max_bad=3))
    shown = say(str(tmp_path))
    assert shown.exit_code == 0
    for text in ("150", "ValueError: value 2.500 above the limit 2.0", "model error", "3 rows in 2 units", "--retry"):
        assert text in shown.output
    listed = json.loads(say(str(tmp_path / "p.zarr"), "--json").output)
    assert [(one["stage"], one["unit"], one["model_error"]) for one in listed] == [
        ("p", "rows/00000000", 1),
        ("p", "rows/00000001", 2),
    ]
    assert listed[1]["reasons"][0] == [150, 3, "ValueError: value 2.500 above the limit 2.0"]


def test_after_a_mend_exactly_these_units_run_again(tmp_path: Path) -> None:
    (tmp_path / "limit").write_text("2")
    stage = fragile(tmp_path, {150: 2.5}, max_bad=1, model=Mended(file=str(tmp_path / "limit")))
    run_stage(stage)
    assert not plan_of(stage).units
    (tmp_path / "limit").write_text("9")
    assert not plan_of(stage).units  # no fingerprint knows of the mend
    assert "The next run repeats exactly these units." in say(str(tmp_path), "--retry").output
    plan = plan_of(stage)
    assert [unit.key for unit in plan.units] == ["rows/00000001"]
    assert plan.reasons == {"asked to run again": 1}
    assert json.loads(say(str(tmp_path), "--json").output)[0]["retry"]
    run_stage(stage)
    assert (opened(stage).status.values == 1).all()
    assert "Nothing is in quarantine." in say(str(tmp_path)).output
    assert not plan_of(stage).units


def test_a_unit_that_failed_is_listed_and_runs_again_by_itself(tmp_path: Path) -> None:
    stage = fragile(tmp_path, dict.fromkeys(range(200, 300), 2.5), on_error="raise")
    with pytest.raises(UnitsFailedError):
        run_stage(stage)
    (one,) = quarantine.held(str(tmp_path))
    assert one.unit == "rows/00000002"
    assert "cannot be predicted" in one.error
    assert "1 unit failed" in say(str(tmp_path)).output


def test_wrong_places_and_a_held_store_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no ledger"):
        quarantine.held(str(tmp_path))
    run_stage(fragile(tmp_path, {7: 3.5}, max_bad=1))
    assert say(str(tmp_path), "nope").exit_code != 0
    with hold(str(tmp_path), "a run"), pytest.raises(Exception, match="a run"):
        quarantine.retry(str(tmp_path))
