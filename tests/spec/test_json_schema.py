"""The JSON Schema takes what the models take, refuses what has another shape, and explains every key."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from daskml_scale import cli
from daskml_scale.spec.key_words import WORDS
from daskml_scale.spec.schema import cluster_schema, told, workflow_schema
from daskml_scale.spec.steps_history import Rolling
from daskml_scale.spec.workflow import KINDS, SearchSpec

ROOT = Path(__file__).parents[2]
WORKFLOW = jsonschema.Draft202012Validator(workflow_schema())
CLUSTER = jsonschema.Draft202012Validator(cluster_schema())


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.yaml")), ids=lambda path: path.name)
def test_every_workflow_of_the_package_fits(path):
    assert list(WORKFLOW.iter_errors(yaml.safe_load(path.read_text()))) == []


@pytest.mark.parametrize("path", sorted((ROOT / "clusters").glob("*.yaml")), ids=lambda path: path.name)
def test_every_cluster_of_the_package_fits(path):
    assert list(CLUSTER.iter_errors(yaml.safe_load(path.read_text()))) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "features", "input": "a", "known_at": "t", "steps": [{"keep": {"of": "x", "off": 1}}]},
        {"kind": "features", "input": "a", "known_at": "t", "steps": [{"of": "x"}]},
        {"kind": "ingest", "source": "x.csv", "row": {"dim": 3}},
        {"input": "a", "known_at": "t", "steps": [{"keep": {"of": "x"}}]},
        {"kind": "nothing"},
    ],
)
def test_what_has_another_shape_does_not_fit(wrong):
    good = {"kind": "ingest", "source": "x.csv", "row": {"dim": "row"}}
    workflow = {"version": 1, "name": "w", "store": "s", "stages": {"a": good}}
    assert WORKFLOW.is_valid(workflow)
    broken = copy.deepcopy(workflow)
    broken["stages"]["b"] = wrong
    assert not WORKFLOW.is_valid(broken)


def test_short_forms_fit():
    short = {
        "kind": "search", "input": "a", "estimator": "sklearn.linear_model.Ridge", "space": {"alpha": [0.1, 1.0]},
        "sampler": {"grid": {}}, "scoring": "r2", "split": {"kfold": {"folds": 3}},
    }  # fmt: skip
    SearchSpec.model_validate(short)
    assert WORKFLOW.is_valid({"version": 1, "name": "w", "store": "s", "stages": {"b": short}})


def test_every_kind_is_explained_and_so_are_the_keys_that_a_docstring_names():
    definitions = workflow_schema()["$defs"]
    for cls in KINDS.values():
        assert definitions[cls.__name__]["description"], cls
        assert "kind" in definitions[cls.__name__]["required"]
        assert definitions[cls.__name__]["properties"]["retries"]["description"].startswith("How often the stage")
    assert "----" not in json.dumps(definitions)
    summary, fields = told(Rolling)
    assert summary.startswith("Statistics of the newest")
    assert isinstance(fields, dict)
    scaling = cluster_schema()["$defs"]["Scaling"]["properties"]
    assert scaling["horizon"]["description"] == "Aim to finish the backlog within this time."


def test_every_key_of_every_file_is_explained():
    for schema in (workflow_schema(), cluster_schema()):
        for name, model in [("the file", schema), *schema["$defs"].items()]:
            silent = [key for key, found in model.get("properties", {}).items() if not found.get("description")]
            assert not silent, f"{name}: {silent}; say it in a docstring, or in spec/key_words.py"


def test_no_word_is_left_over():
    known = {
        f"{name}.{key}"
        for schema in (workflow_schema(), cluster_schema())
        for name, model in [("Workflow", schema), *schema["$defs"].items()]
        for key in model.get("properties", {})
    }
    keys = {one.partition(".")[2] for one in known}
    assert [word for word in WORDS if word not in (known if "." in word else keys)] == []


@pytest.mark.parametrize(("words", "has"), [(["schema"], "stages"), (["schema", "cluster"], "anyOf")])
def test_the_verb_prints_a_schema(words, has, capsys):
    assert cli.main(words) == 0
    printed = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(printed)
    assert has in {**printed, **printed.get("properties", {})}
