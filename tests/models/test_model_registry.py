"""The registry: versions that never change, aliases that move, and the stage that registers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_helpers import NAMES, matrix, write_matrix
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from daskml_scale.artifacts.bundle import load_model, save_model
from daskml_scale.artifacts.registry import CANDIDATE, CHAMPION, Registry, Shelf, Version, resolved
from daskml_scale.errors import ConflictError, DaskMLError, StoreError, UntrustedError, UsageError
from daskml_scale.stages.evaluate import EvaluateStage
from daskml_scale.stages.inputs import checked_records, gather
from daskml_scale.stages.register import Condition, RegisterStage
from daskml_scale.stages.run import run_stage
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.lock import hold

X, Y = np.nan_to_num(matrix()[0]), matrix()[1]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_matrix(f"{tmp_path}/features.zarr", X, Y)
    return tmp_path


def save(store: Path, estimator: Any) -> str:
    """Put an estimator where the train stage would."""
    return save_model(estimator.fit(X, Y), store / "models" / "m", schema={"features": list(NAMES)}).sha256


def good(regularization: float = 1.0) -> Any:
    return LogisticRegression(C=regularization)


def evaluation(store: Path) -> EvaluateStage:
    return EvaluateStage(
        "scores", f"{store}/scores.ledger", f"{store}/features.zarr", f"{store}/models/m", ("roc_auc", "log_loss"),
        store=str(store), champion="late",
    )  # fmt: skip


def registration(store: Path, **condition: Any) -> RegisterStage:
    return RegisterStage(
        "register", f"{store}/register.ledger", store=str(store), bundle=f"{store}/models/m", model_name="late",
        scores=f"{store}/scores.ledger", condition=Condition(**{"metric": "log_loss", **condition}),
    )  # fmt: skip


def closed_loop(store: Path, estimator: Any, **condition: Any) -> dict[str, Any]:
    """Train, evaluate against the champion, register; return the result of the last."""
    save(store, estimator)
    run_stage(evaluation(store))
    return dict(run_stage(registration(store, **condition)).result)


# ------------------------------------------------------------------------------------------------ the loop


def test_only_a_model_that_beats_the_champion_on_the_same_rows_takes_its_place(store: Path) -> None:
    first = closed_loop(store, DummyClassifier())
    assert (first["version"], first["champion"]) == (1, True)
    assert first["why"].endswith("and there is no champion")
    better = closed_loop(store, good())
    assert (better["version"], better["champion"]) == (2, True)
    assert "of 0001" in better["why"]
    worse = closed_loop(store, good(1e-5))
    assert (worse["version"], worse["champion"]) == (3, False)
    assert worse["why"].endswith("not better")
    shelf = Registry(str(store)).shelf("late")
    assert shelf.aliases == {CANDIDATE: 3, CHAMPION: 2}
    assert [set(version.metrics) for version in shelf.versions] == [{"roc_auc", "log_loss"}] * 3
    champion = load_model(f"{store}/registry/late@champion")
    assert np.array_equal(champion.predict_proba(X), good().fit(X, Y).predict_proba(X))


def test_a_model_must_be_good_enough_and_better_by_a_margin(store: Path) -> None:
    assert closed_loop(store, DummyClassifier(), least=0.1) == {
        "name": "late", "version": 1, "champion": False,
        "why": f"log_loss {run_stage(evaluation(store)).result['metrics']['log_loss']:.4g} is not at most 0.1",
    }  # fmt: skip
    assert closed_loop(store, good(0.5), least=0.9)["champion"]
    assert "not better by 0.5" in closed_loop(store, good(), by=0.5)["why"]


def test_a_second_run_changes_nothing_and_runs_nothing(store: Path) -> None:
    closed_loop(store, DummyClassifier())
    closed_loop(store, good())
    file = store / "registry" / "late" / "registry.json"
    before = file.read_bytes()
    for stage in (evaluation(store), registration(store)):
        plan = stage.plan(gather(stage.reads()), checked_records(Ledger(stage.ledger)))
        assert plan.units == ()
        run_stage(stage)
    assert file.read_bytes() == before
    assert Ledger(f"{store}/scores.ledger").result()["against"]["model"] == "0001"  # type: ignore[index]


def test_a_rollback_by_hand_stays_when_the_workflow_runs_again(store: Path) -> None:
    closed_loop(store, DummyClassifier())
    closed_loop(store, good())
    assert Registry(str(store)).rollback("late").aliases[CHAMPION] == 1
    result = closed_loop(store, good())
    assert (result["version"], result["champion"]) == (2, False)
    assert Registry(str(store)).shelf("late").aliases[CHAMPION] == 1


def test_a_condition_without_a_comparison_does_not_promote_over_a_champion() -> None:
    condition = Condition("roc_auc", least=0.6)
    assert condition.judge({"metrics": {"roc_auc": 0.9}}, rival=False)[0]
    promoted, why = condition.judge({"metrics": {"roc_auc": 0.9}}, rival=True)
    assert not promoted
    assert "add champion: NAME to the evaluation" in why
    assert not condition.judge({"metrics": {"log_loss": 0.1}}, rival=False)[0]
    assert not Condition("roc_auc").judge({"metrics": {"roc_auc": float("nan")}}, rival=False)[0]


def test_a_model_that_is_not_trained_cannot_be_registered(store: Path) -> None:
    with pytest.raises(DaskMLError, match="do not exist; run the stages that write them"):
        run_stage(registration(store))
    assert not (store / "registry" / "late").exists()


# ------------------------------------------------------------------------------------------------ versions


def test_a_version_never_changes_and_equal_content_is_one_version(store: Path) -> None:
    registry = Registry(str(store))
    save(store, good())
    _, first = registry.register("late", f"{store}/models/m", now=1.0, metrics={"a": 1.0}, champion=True)
    kept = (store / "registry" / "late" / "0001" / "model.skops").read_bytes()
    shelf, again = registry.register("late", f"{store}/models/m", now=2.0, metrics={"a": 9.0}, note="other")
    assert again == first
    assert len(shelf.versions) == 1
    save(store, good(0.1))
    registry.register("late", f"{store}/models/m", now=3.0)
    assert (store / "registry" / "late" / "0001" / "model.skops").read_bytes() == kept
    assert registry.shelf("late").aliases == {CANDIDATE: 2, CHAMPION: 1}


def test_files_that_are_gone_come_back_from_the_same_model(store: Path) -> None:
    registry = Registry(str(store))
    save(store, good())
    registry.register("late", f"{store}/models/m", now=1.0)
    shutil.rmtree(store / "registry" / "late" / "0001")
    with pytest.raises(StoreError, match="there is no bundle"):
        load_model(f"{store}/registry/late@1")
    registry.register("late", f"{store}/models/m", now=2.0)
    assert load_model(f"{store}/registry/late@1").predict(X).shape == (300,)
    assert registry.shelf("late").versions[0].registered == 1.0


def test_a_registration_that_was_cut_short_has_not_happened(store: Path) -> None:
    registry = Registry(str(store))
    save(store, good())
    registry.register("late", f"{store}/models/m", now=1.0)
    (store / "registry" / "late" / "registry.json").unlink()  # it is written last
    assert registry.names() == []
    save(store, good(0.1))
    assert registry.register("late", f"{store}/models/m", now=2.0)[1].number == 1
    assert load_model(f"{store}/registry/late@candidate").sha256 == load_model(f"{store}/models/m").sha256


def test_an_altered_version_is_refused(store: Path) -> None:
    save(store, good())
    Registry(str(store)).register("late", f"{store}/models/m", now=1.0, champion=True)
    file = store / "registry" / "late" / "0001" / "model.skops"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UntrustedError, match="altered"):
        load_model(f"{store}/registry/late@champion")


def test_one_process_changes_the_registry_at_a_time(store: Path) -> None:
    save(store, good())
    registry = Registry(str(store))
    registry.register("late", f"{store}/models/m", now=1.0)
    with hold(registry.url, "somebody else"), pytest.raises(ConflictError, match="somebody else"):
        registry.promote("late", 1)


def test_what_is_not_there_is_said_with_what_is(store: Path) -> None:
    registry = Registry(str(store))
    with pytest.raises(UsageError, match="has no registered model 'late'; it has none"):
        registry.promote("late", 1)
    save(store, good())
    registry.register("late", f"{store}/models/m", now=1.0)
    with pytest.raises(UsageError, match="late has no version 'champion'; it has 1, candidate"):
        load_model(f"{store}/registry/late@champion")
    with pytest.raises(UsageError, match="champion has pointed nowhere else"):
        registry.rollback("late")
    (store / "registry" / "late" / "registry.json").write_text(json.dumps({"format": 1, "versions": [{}]}))
    with pytest.raises(StoreError, match="is no registry of models"):
        registry.shelf("late")


def test_a_path_with_an_at_sign_is_a_path_unless_it_is_in_a_registry() -> None:
    assert resolved("/tmp/a@b/models/m@x") == "/tmp/a@b/models/m@x"
    assert resolved("memory://models/m") == "memory://models/m"


# ------------------------------------------------------------------------------------------------ pure parts


def version(content: str) -> Version:
    return Version(0, content, content, "E")


@given(st.lists(st.tuples(st.sampled_from(["add", "promote", "back"]), st.integers(0, 9)), max_size=25))
def test_aliases_always_point_at_versions_and_a_rollback_undoes_a_promotion(steps: list[tuple[str, int]]) -> None:
    shelf = Shelf("m")
    for position, (step, number) in enumerate(steps):
        if step == "add":
            shelf = shelf.added(version(str(position)))
        elif step == "promote" and 0 < number <= len(shelf.versions):
            before = shelf
            shelf = shelf.pointed(CHAMPION, number)
            if CHAMPION in before.aliases and shelf != before:
                assert shelf.back(CHAMPION).aliases == before.aliases
                assert shelf.back(CHAMPION).past == before.past
        elif step == "back" and any(alias == CHAMPION for alias, _ in shelf.past):
            shelf = shelf.back(CHAMPION)
        assert [v.number for v in shelf.versions] == list(range(1, len(shelf.versions) + 1))
        assert set(shelf.aliases.values()) <= {v.number for v in shelf.versions}
        assert Shelf.from_json(json.loads(json.dumps(shelf.to_json())), "f") == shelf


def test_the_rival_of_the_champion_is_the_one_before_it() -> None:
    shelf = Shelf("m").added(version("a"))
    assert shelf.rival("x") is None
    shelf = shelf.pointed(CHAMPION, 1).added(version("b"))
    assert shelf.rival("b").number == 1  # type: ignore[union-attr]
    assert shelf.rival("a") is None
    shelf = shelf.pointed(CHAMPION, 2)
    assert shelf.rival("b").number == 1  # type: ignore[union-attr]
    assert shelf.rival("c").number == 2  # type: ignore[union-attr]
