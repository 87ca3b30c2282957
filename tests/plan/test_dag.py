"""The order of stages: after what they need, otherwise as written; wrong references are refused first."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.errors import SpecError
from daskml_scale.plan.dag import order
from daskml_scale.spec.load import load_workflow
from daskml_scale.spec.references import edges, find_cycle, reference_problems
from daskml_scale.spec.workflow import Workflow

FLIGHTS = Path(__file__).parents[2] / "workflows" / "flights.yaml"


def chain(after: dict[str, list[str]]) -> Workflow:
    """A workflow of ingest stages that wait for each other only through ``after``."""
    stages = {
        name: {"kind": "ingest", "source": "x.csv", "row": {"dim": "row"}, "after": wanted}
        for name, wanted in after.items()
    }
    return Workflow.model_validate({"version": 1, "name": "w", "store": "s", "stages": stages})


def test_flights_runs_as_it_is_written() -> None:
    workflow = load_workflow(FLIGHTS)
    assert order(workflow) == tuple(workflow.stages)
    assert edges(workflow)["features"] == ("flights", "weather", "planes", "check")
    assert edges(workflow)["predictions"] == ("model", "flights")


def test_a_stage_written_before_what_it_needs_waits_for_it() -> None:
    assert order(chain({"a": ["c"], "b": [], "c": [], "d": ["b"]})) == ("b", "c", "a", "d")


@settings(max_examples=150, deadline=None)
@given(st.permutations(range(9)), st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8))))
def test_every_order_is_topological_and_prefers_the_file_order(written: list[int], pairs: set[tuple[int, int]]) -> None:
    needs = {f"s{name}": sorted(f"s{low}" for low, high in pairs if low < high and high == name) for name in written}
    ordered = order(chain(needs))
    assert sorted(ordered) == sorted(needs)
    done: set[str] = set()
    for name in ordered:
        ready = [other for other in needs if other not in done and done.issuperset(needs[other])]
        assert name == ready[0]
        done.add(name)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3), min_size=1))
def test_a_cycle_is_found_exactly_when_there_is_one(drawn: dict[str, list[str]]) -> None:
    needs = {name: [other for other in wanted if other in drawn] for name, wanted in drawn.items()}
    reach = {name: set(wanted) for name, wanted in needs.items()}
    for _ in needs:
        reach = {name: seen.union(*(reach[other] for other in seen)) for name, seen in reach.items()}
    cycle = find_cycle(needs)
    assert bool(cycle) == any(name in seen for name, seen in reach.items())
    if cycle:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert all(after in needs[before] for before, after in pairwise(cycle))


def test_a_cycle_is_printed_with_its_names_and_key() -> None:
    workflow = chain({"z": [], "a": ["z", "b"], "b": ["c"], "c": ["a"], "d": ["c"]})
    with pytest.raises(SpecError, match="a -> b -> c -> a; remove one of these references") as caught:
        order(workflow)
    assert caught.value.path == "stages.a.after[1]"


def test_a_long_chain_neither_recurses_nor_takes_for_ever() -> None:
    names = [f"s{number}" for number in range(3000)]
    needs = {name: [names[number - 1]] if number else [] for number, name in enumerate(names)}
    assert order(chain(dict(reversed(needs.items())))) == tuple(names)
    needs["s0"] = ["s2999"]
    assert len(find_cycle(needs)) == 3001


def problems(**stages: dict[str, Any]) -> list[tuple[str, str]]:
    table = {"kind": "ingest", "source": "x.csv", "row": {"dim": "row"}}
    matrix = {"kind": "features", "input": "t", "known_at": "at", "target": "y", "steps": [{"keep": {"of": "x"}}]}
    model = {"kind": "train", "input": "m", "estimator": "sklearn.linear_model.Ridge"}
    workflow = {"version": 1, "name": "w", "store": "s", "stages": {"t": table, "m": matrix, "r": model, **stages}}
    return [tuple(problem) for problem in reference_problems(Workflow.model_validate(workflow))]


def test_sound_stages_have_no_problem() -> None:
    assert problems(p={"kind": "predict", "model": "r", "input": "t", "tables": {"t": "t"}}) == []


@pytest.mark.parametrize(
    ("stage", "path", "words"),
    [
        ({"kind": "predict", "model": "m", "input": "t"}, "stages.p.model", "'m' is of kind features"),
        ({"kind": "predict", "model": "rr", "input": "t"}, "stages.p.model", "there is no stage 'rr'"),
        (
            {"kind": "predict", "model": "r", "input": "m"},
            "stages.p.input",
            "stages that fit here (ingest, generate, map, rechunk, cube): t",
        ),
        ({"kind": "predict", "model": "r", "input": "t", "tables": {"x": "r"}}, "stages.p.tables.x", "of kind train"),
        (
            {"kind": "evaluate", "model": "r", "input": "t", "metrics": ["roc_auc"]},
            "stages.p.input",
            "(features, samples): m",
        ),
        (
            {"kind": "predict", "model": "r", "input": "t", "after": ["p"]},
            "stages.p.after[0]",
            "'p' is this stage itself",
        ),
        ({"kind": "train", "input": "m", "estimator": "a.B", "save_as": "r"}, "stages.p.save_as", "duplicate name"),
    ],
)
def test_a_reference_that_does_not_fit_is_named_with_what_fits(stage: dict[str, Any], path: str, words: str) -> None:
    found = problems(p=stage)
    assert [where for where, _ in found] == [path]
    assert words in found[0][1]


def test_learning_without_a_target_is_refused() -> None:
    bare = {"kind": "features", "input": "t", "known_at": "at", "steps": [{"keep": {"of": "x"}}]}
    found = problems(f=bare, q={"kind": "train", "input": "f", "estimator": "a.B"})
    assert found == [("stages.q.input", "train needs a target, and 'f' has none; add target: to that stage")]


def test_a_grid_of_ranges_is_refused() -> None:
    search = {
        "kind": "search", "input": "m", "estimator": "a.B", "scoring": "r2", "split": {"kfold": {"folds": 3}},
        "space": {"a": [1, 2], "b": {"uniform": [0, 1]}}, "sampler": {"grid": {}},
    }  # fmt: skip
    found = problems(q=search)
    assert [where for where, _ in found] == ["stages.q.space.b"]
    assert "a grid needs a list of values, not uniform" in found[0][1]
