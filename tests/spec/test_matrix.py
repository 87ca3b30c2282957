"""Sweeps: a stage for every combination, those that need it follow, names are stable, errors are placed."""

from __future__ import annotations

import pytest

from daskml_scale.errors import SpecError
from daskml_scale.plan.dag import order, users
from daskml_scale.spec.load import read_workflow
from daskml_scale.spec.matrix import MOST_STAGES

TEXT = """
version: 1
name: sweep
store: ./runs/sweep
stages:
  table: {kind: ingest, source: a.csv, row: {dim: row}}
  features: {kind: features, input: table, known_at: at, target: late, steps: [{keep: {of: [x]}}]}
  model:
    kind: train
    input: features
    save_as: best
    estimator: {sklearn.linear_model.LogisticRegression: {C: 1.0}}
    matrix:
      estimator.sklearn.linear_model.LogisticRegression.C: [0.1, 10]
      where: ["x > 0", "x > 1"]
  scores: {kind: evaluate, model: model, input: features, metrics: [roc_auc]}
  put: {kind: register, model: model, name: best, scores: scores, when: {of: scores, metric: roc_auc, least: 0.7}}
"""
COPIES = ["C_0_1-where_x_0", "C_0_1-where_x_1", "C_10-where_x_0", "C_10-where_x_1"]


def test_every_combination_is_a_stage_and_what_needs_it_follows():
    model = read_workflow(TEXT).model
    assert list(model.stages) == [
        "table", "features", *(f"{stage}-{copy}" for stage in ("model", "scores", "put") for copy in COPIES)
    ]  # fmt: skip
    first = model.stages["model-C_10-where_x_1"]
    assert first.estimator == {"sklearn.linear_model.LogisticRegression": {"C": 10}}
    assert (first.where, first.input, first.matrix) == ("x > 1", "features", {})
    assert first.save_as == "best-C_10-where_x_1"
    put = model.stages["put-C_10-where_x_1"]
    assert (put.model, put.scores, put.when.of, put.name) == (
        "model-C_10-where_x_1", "scores-C_10-where_x_1", "scores-C_10-where_x_1", "best",
    )  # fmt: skip
    assert users(model, "model-C_10-where_x_1") == ("scores-C_10-where_x_1", "put-C_10-where_x_1")


def test_a_value_more_leaves_the_names_of_the_others():
    more = TEXT.replace("[0.1, 10]", "[0.5, 0.1, 10]")
    assert set(read_workflow(TEXT).model.stages) < set(read_workflow(more).model.stages)


def test_two_sweeps_make_their_product_and_one_reached_twice_is_not_mixed():
    two = TEXT.replace("  scores: {kind: evaluate,", "  scores: {kind: evaluate, matrix: {bootstrap: [0, 5, 9]},")
    model = read_workflow(two).model
    assert sum(name.startswith("scores-") for name in model.stages) == 12
    puts = [spec for name, spec in model.stages.items() if name.startswith("put-")]
    assert len(puts) == 12
    assert all(spec.scores.removeprefix("scores-").startswith(spec.model.removeprefix("model-")) for spec in puts)
    assert len(order(model)) == 2 + 4 + 12 + 12


def test_settings_and_workflows_made_in_python_can_sweep():
    from daskml_scale.spec.load import check_workflow
    from daskml_scale.spec.workflow import Workflow

    plain = TEXT[: TEXT.index("    matrix:")] + TEXT[TEXT.index("  scores:") :]
    model = Workflow.model_validate(read_workflow(plain, settings=["stages.scores.matrix={bootstrap: [1, 2]}"]).data)
    assert [name for name in check_workflow(model).model.stages if name.startswith("scores")] == [
        "scores-bootstrap_1", "scores-bootstrap_2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "where: [",
            "wher: [",
            r"<text>:15: stages.model-C_0_1-wher_x_0.wher: unknown key 'wher'; did you mean 'where'",
        ),
        ("[0.1, 10]", "[]", r"<text>:14: stages.model.matrix"),
        ("[0.1, 10]", "3", r"expected a list"),
        ("[0.1, 10]", "[0.1, 0.1]", r"two stages would be called"),
        ("C: [0.1, 10]", "C.x: [1]", r"<text>:14: .*1.0 has no keys, so none is 'x'"),
        ("metric: roc_auc", "metric: f1", r"<text>:17: stages.put.when.metric: unknown metric 'f1'; known: roc_auc"),
        (
            "when: {of: scores",
            "when: {of: model",
            r"'model' is of kind train and has no metrics; evaluate stages: scores",
        ),
        (", least: 0.7", "", r"give least: or most:, or both"),
        ("[0.1, 10]", str(list(range(MOST_STAGES))), r"the matrices make \d+ stages of 5; at most 500"),
    ],
)
def test_a_wrong_sweep_or_condition_is_placed(old, new, said):
    with pytest.raises(SpecError, match=said):
        read_workflow(TEXT.replace(old, new))
