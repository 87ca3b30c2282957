"""``--set KEY=VALUE``: keys of a file, before it is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from daskml_scale.errors import SpecError
from daskml_scale.spec.load import read_workflow

FLIGHTS = (Path(__file__).parent.parent.parent / "workflows" / "flights.yaml").read_text()


def test_a_setting_takes_the_place_of_what_the_file_says() -> None:
    settings = ["seed=7", "stages.scores.metrics[1]=log_loss", "stages.search.sampler.random.trials=3",
                "stages.search.estimator.sklearn.ensemble.HistGradientBoostingClassifier.max_iter=5",
                "stages.predictions.retries=2"]  # fmt: skip
    spec = read_workflow(FLIGHTS, settings=settings).model
    assert spec.seed == 7
    assert spec.stages["scores"].metrics[:2] == ["roc_auc", "log_loss"]
    assert spec.stages["search"].sampler.random.trials == 3
    assert spec.stages["search"].estimator == {
        "sklearn.ensemble.HistGradientBoostingClassifier": {"early_stopping": False, "max_iter": 5}
    }


def test_a_condition_may_begin_with_a_column_in_backticks() -> None:
    spec = read_workflow(FLIGHTS, settings=["stages.model.where=`sched` < time('2013-10-01')"]).model
    assert spec.stages["model"].where == "`sched` < time('2013-10-01')"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("seed", "write KEY=VALUE, with a dotted path as errors name it"),
        ("=3", "write KEY=VALUE"),
        ("seed=[1", "is not closed"),
        ("seed=1\nname: x", "the value is more than one; write a list as [a, b]"),
        ("stages.scores.metrics[9]=auc", "there is no item 9 in a list of"),
        ("name[0]=x", "there is no item 0 in 'flights'"),
        ("name.first=x", "'flights' has no keys, so none is 'first'"),
        ("seed=soon", "expected a whole number, found 'soon'"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(setting: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_workflow(FLIGHTS, name="f.yaml", settings=[setting])
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"--set {setting}")
