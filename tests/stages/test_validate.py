from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import daskml_scale as dms
from daskml_scale.errors import PlanError, ValidationFailedError
from daskml_scale.spec.workflow import ValidateSpec
from daskml_scale.stages.run import run_stage
from daskml_scale.stages.validate import ValidateStage
from daskml_scale.storage.ledger import Ledger


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "t.csv").write_text("k,g,x\n1,a,1\n2,a,\n2,b,5\n3,b,9\n")
    dms.ingest(str(tmp_path / "t.csv"), tmp_path / "t.zarr", chunk=2)
    return str(tmp_path / "t.zarr")


def check(table: str, *rules):
    spec = ValidateSpec.model_validate({"kind": "validate", "input": "t", "rules": list(rules)})
    stage = ValidateStage("check", str(Path(table).parent / "check.ledger"), table, tuple(spec.rules))
    return run_stage(stage)


def test_rules_that_hold_pass(table):
    result = check(
        table, {"unique": ["k", "g"]}, {"missing": {"of": "x", "at_most": 0.25}}, {"range": {"of": "k", "least": 1}}
    )
    assert result.result["rules"] == 3
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"unique": ["k"]}, r"2 of 4 rows are not unique in \['k'\], first at row 1: \{'k': '2'\}"),
        ({"unique": "g"}, "first at row 0: {'g': 'a'}"),
        ({"missing": {"of": "x", "at_most": 0.2}}, "x: 25.00% missing \\(1 of 4 rows\\), at most 20.00% allowed"),
        ({"range": {"of": "x", "least": 2, "most": 8}}, r"2 of 4 rows outside \[2.0, 8.0\], first at row 0: 1"),
    ],
)
def test_a_broken_rule_fails_with_what_was_found(table, rule, message):
    with pytest.raises(ValidationFailedError, match=message):
        check(table, rule)
    with pytest.raises(ValidationFailedError, match=message):
        check(table, rule)  # also when the unit is reused


def test_a_broken_rule_may_only_warn(table):
    result = check(table, {"missing": {"of": "x", "else": "warn"}})
    assert result.warnings == ("x: 25.00% missing (1 of 4 rows), at most 0.00% allowed",)


def test_only_what_changed_is_read_again(table):
    rules = ({"unique": ["k", "g"]}, {"missing": {"of": "x", "at_most": 0.25}})
    check(table, *rules)
    assert dms.last_run().reused == 0
    source = Path(table).parent / "t.csv"
    source.write_text("k,g,x\n1,a,1\n2,a,\n2,b,5\n3,b,7\n")
    dms.ingest(str(source), table, chunk=2)
    check(table, *rules)
    # Of the two chunks one changed; the keys did not.
    assert (dms.last_run().units, dms.last_run().reused) == (3, 2)


def test_an_unknown_column_is_named_before_anything_runs(table):
    with pytest.raises(PlanError, match=r"rules\[0\].*no column 'z'; it has g, k, x"):
        check(table, {"unique": ["z"]})


def test_a_rule_that_does_not_fit_its_column_is_refused_before_anything_runs(table):
    ledger = Ledger(str(Path(table).parent / "check.ledger"))
    with pytest.raises(PlanError, match=r"rules\[1\]\.range\.of: column 'g' is a category, a number needed"):
        check(table, {"unique": ["k", "g"]}, {"range": {"of": "g", "least": 1}})
    assert not ledger.records()
    recipe = dms.Recipe([{"keep": {"of": ["k"]}}], known_at="w")
    ds = dms.open_dataset(table).load().assign(w=("row", np.array(["2024-01-01"] * 4, dtype="datetime64[ns]")))
    matrix = str(Path(table).parent / "f.zarr")
    recipe.fit_transform(ds, matrix)
    for column in ("features", "feature"):
        with pytest.raises(PlanError, match=rf"rules\[0\]\.missing\.of: '{column}' holds not one value per row"):
            check(matrix, {"missing": {"of": column}})
