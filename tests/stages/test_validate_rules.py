"""Every rule of validate: what keeps it, what breaks it, in any chunking; and the profile of the table."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import daskml_scale as dms
from daskml_scale.errors import PlanError, SpecError, ValidationFailedError
from daskml_scale.plan.units import Variable, row_ranges
from daskml_scale.spec.expressions import Coded
from daskml_scale.spec.rules import Rising
from daskml_scale.spec.workflow import ValidateSpec
from daskml_scale.stages.run import run_stage
from daskml_scale.stages.validate import ValidateStage
from daskml_scale.stages.validate_judge import Evidence, judged
from daskml_scale.stages.validate_profile import profile
from daskml_scale.stages.validate_statistics import scan
from daskml_scale.stages.validate_unique import duplicates

ROWS = """\
when,who,x,y
2024-01-01 00:00,ann,1,10
2024-01-02 00:00,ann,2,
2024-01-01 12:00,bob,inf,30
2024-01-03 00:00,bob,4,40
2024-01-03 00:00,,5,50
"""


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "t.csv").write_text(ROWS)
    dms.ingest(str(tmp_path / "t.csv"), tmp_path / "t.zarr", chunk=2)
    return str(tmp_path / "t.zarr")


def check(table: str, *rules):
    spec = ValidateSpec.model_validate({"kind": "validate", "input": "t", "rules": list(rules)})
    return run_stage(ValidateStage("check", str(Path(table).parent / "check.ledger"), table, tuple(spec.rules)))


@pytest.mark.parametrize(
    "rule",
    [
        {"dtype": {"of": "x", "is": "number"}},
        {"dtype": {"of": "x", "is": "float64"}},
        {"dtype": {"of": "when", "is": "time"}},
        {"dtype": {"of": "who", "is": "category"}},
        {"categories": {"of": "who", "among": ["ann", "bob", "eve"]}},
        {"rising": {"of": "when", "match": ["who"]}},
        {"rising": {"of": "y"}},
        {"rows": {"least": 5, "most": 5}},
        {"fresh": {"of": "when", "within": "100000d"}},
    ],
)
def test_a_rule_that_is_kept(table, rule):
    assert check(table, rule).warnings == ()


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"dtype": {"of": "x", "is": "time"}}, "x: is number, expected time"),
        ({"dtype": {"of": "x", "is": "int64"}}, "x: is float64, expected int64"),
        ({"categories": {"of": "who", "among": ["ann"]}}, r"1 categories are not among those listed: 'bob' \(2 rows\)"),
        ({"rising": {"of": "when"}}, "when: falls at 1 of 5 rows, first at row 2"),
        ({"rising": {"of": "when", "strictly": True}}, "when: does not rise at 2 of 5 rows, first at row 2"),
        ({"rows": {"least": 6}}, "5 rows, expected at least 6"),
        ({"rows": {"least": 1, "most": 4}}, "5 rows, expected 1 to 4"),
        (
            {"fresh": {"of": "when", "within": "2h"}},
            "the newest time is 2024-01-03T00:00:00, .* d before now; at most 2h",
        ),
        ({"range": {"of": "x", "most": 100}}, "1 of 5 rows outside .* first at row 2: inf"),
    ],
)
def test_a_rule_that_is_broken_fails_or_warns(table, rule, message):
    with pytest.raises(ValidationFailedError, match=message) as failed:
        check(table, rule)
    ((name, of),) = rule.items()
    (warning,) = check(table, {name: {**of, "else": "warn"}}).warnings
    assert warning.partition(",")[0] in str(failed.value)


def test_the_age_is_judged_anew_although_nothing_runs(table):
    rule = ValidateSpec.model_validate(
        {"kind": "validate", "input": "t", "rules": [{"fresh": {"of": "when", "within": "1d"}}]}
    ).rules[0]
    known = {"rows": 1, "columns": {"when": {"last": "2024-01-03T00:00:00"}}}
    then = 1704240000.0
    assert judged(rule, "0", Evidence(known, (), {}, then + 86_400), ()) == ""
    assert "1.0 d before now" in judged(rule, "0", Evidence(known, (), {}, then + 86_401), ())
    nothing = {"rows": 1, "columns": {"when": {"last": None}}}
    assert "holds no time" in judged(rule, "0", Evidence(nothing, (), {}, then), ())


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        ({"rising": {"of": "who"}}, PlanError, "'who' is a category, a number or time needed"),
        ({"fresh": {"of": "x", "within": "1d"}}, PlanError, "'x' is a number, a time needed"),
        ({"categories": {"of": "x", "among": ["a"]}}, PlanError, "a category needed"),
        ({"rising": {"of": "when", "match": ["z"]}}, PlanError, "no column 'z'"),
        ({"rows": {}}, (SpecError, ValueError), "give least: or most:"),
        ({"dtype": {"of": "x", "is": "nonsense"}}, (SpecError, ValueError), "'nonsense' is no type"),
    ],
)
def test_a_rule_that_cannot_be_checked_is_refused(table, rule, error, message):
    with pytest.raises(error, match=message):
        check(table, rule)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), chunk=st.integers(1, 9), strictly=st.booleans())
def test_falls_are_found_across_chunks(data, chunk, strictly):
    rows = data.draw(st.integers(0, 20))
    values = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0, np.nan]), min_size=rows, max_size=rows)))
    keys = np.array(data.draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)), dtype="int64")
    rule = Rising.model_validate({"rising": {"of": "v", "match": ["k"], "strictly": strictly}})
    parts = [scan({"v": values[a:b], "k": keys[a:b]}, [rule], a, b - a) for a, b in row_ranges(rows, chunk)]
    evidence = Evidence({"rows": rows}, json.loads(json.dumps(parts)), {}, 0.0)
    there = np.flatnonzero(~np.isnan(values))
    v, k = values[there], keys[there]
    bad = (k[1:] == k[:-1]) & ((v[1:] <= v[:-1]) if strictly else (v[1:] < v[:-1]))
    message = judged(rule, "0", evidence, ())
    if bad.any():
        assert f"at {bad.sum()} of {rows} rows within equal k, first at row {there[1:][bad][0]}" in message
    else:
        assert message == ""


@settings(max_examples=30, deadline=None)
@given(data=st.data(), chunk=st.integers(1, 50))
def test_the_profile_does_not_depend_on_chunks(data, chunk):
    random = np.random.default_rng(data.draw(st.integers(0, 100)))
    rows = data.draw(st.integers(0, 60))
    x, y = random.normal(5, 2, rows), random.normal(0, 1, rows)
    y = y + x
    x[random.random(rows) < 0.2] = np.nan
    codes = random.integers(-1, 3, rows).astype("int32")
    when = np.datetime64("2024-01-01", "ns") + random.integers(0, 1000, rows).astype("timedelta64[s]")
    columns = {"x": x, "y": y, "c": Coded(codes, ("a", "b", "c")), "t": when}
    variables = {
        "x": Variable("float64", ("row",), (rows,), (chunk,)),
        "y": Variable("float64", ("row",), (rows,), (chunk,)),
        "c": Variable("int32", ("row",), (rows,), (chunk,), None, {"categories": ["a", "b", "c"]}),
        "t": Variable("int64", ("row",), (rows,), (chunk,), None, {"units": "seconds since 1970-01-01"}),
    }
    parts = [scan({n: v[a:b] for n, v in columns.items()}, [], a, b - a) for a, b in row_ranges(rows, chunk)]
    found = profile(json.loads(json.dumps(parts)), variables)
    json.dumps(found, allow_nan=False)
    assert found["rows"] == rows
    series = pd.Series(x)
    assert found["columns"]["x"]["missing"] == int(series.isna().sum())
    if series.notna().any():
        number = found["columns"]["x"]
        assert number["mean"] == pytest.approx(series.mean())
        assert number["std"] == pytest.approx(series.std(ddof=0), abs=1e-12)
        assert (number["min"], number["max"]) == (series.min(), series.max())
        assert sum(number["histogram"]["counts"]) == series.notna().sum()
        low, high = (np.quantile(series.dropna(), 0.5, method=how) for how in ("lower", "higher"))
        wide = 2**-4 * max(abs(low), abs(high))
        assert low - wide <= number["quantiles"]["0.5"] <= high + wide
    expected = pd.DataFrame({"x": x, "y": y}).corr().to_numpy()
    for ours, theirs in zip(np.ravel(found["correlations"]["values"] or []), expected.ravel(), strict=False):
        assert (ours is None and np.isnan(theirs)) or ours == pytest.approx(theirs, abs=2e-6)
    counted = pd.Series(codes[codes >= 0]).value_counts()
    expected_top = {("a", "b", "c")[code]: int(count) for code, count in counted.items()}
    assert dict(found["columns"]["c"]["top"]) == expected_top
    if rows:
        assert found["columns"]["t"]["last"] == str(when.max()).removesuffix(".000000000")


def test_the_profile_lies_beside_the_run(table):
    result = check(table, {"rows": {"least": 1}})
    assert result.result["profile"] == "check.profile.json"
    written = json.loads((Path(table).parent / "check.profile.json").read_text())
    assert set(written["columns"]) == {"who", "when", "x", "y"}
    assert written["columns"]["x"]["infinite"] == 1
    assert written["columns"]["y"]["missing"] == 1
    assert written["columns"]["who"]["top"] == [["ann", 2], ["bob", 2]]
    assert written["correlations"]["columns"] == ["x", "y"]


def test_duplicates_are_the_same_in_any_number_of_parts():
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"{a},{b}" for a, b in zip(random.integers(0, 30, 200), random.integers(0, 30, 200), strict=True)]
        (Path(folder) / "d.csv").write_text("\n".join(["a,b", *lines]))
        url = str(Path(folder) / "d.zarr")
        dms.ingest(str(Path(folder) / "d.csv"), url, chunk=30)
        whole = duplicates(url, ["a", "b"], 200, 0, 1)
        parts = [duplicates(url, ["a", "b"], 200, part, 5) for part in range(5)]
    assert whole["count"] == sum(part["count"] for part in parts) > 0
    assert whole["row"] == min(part["row"] for part in parts if part["count"])


def test_a_table_without_rows(tmp_path: Path):
    (tmp_path / "t.csv").write_text("a,b\n")
    dms.ingest(str(tmp_path / "t.csv"), tmp_path / "t.zarr")
    assert check(str(tmp_path / "t.zarr"), {"rows": {"most": 0}}, {"unique": ["a"]}).rows == 0
    with pytest.raises(ValidationFailedError, match="0 rows, expected at least 1"):
        check(str(tmp_path / "t.zarr"), {"rows": {"least": 1}})
