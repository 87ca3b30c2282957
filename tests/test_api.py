"""The public functions joined: runs with stores in memory, with a default client, and what they publish."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import daskml_scale as dms
from daskml_scale import api, events, steps
from daskml_scale.errors import PlanError, SpecError, UnitsFailedError, UsageError, ValidationFailedError
from daskml_scale.storage import stores

WORKFLOW = """
version: 1
name: tiny
store: {store}
cluster: none
stages:
  rows:
    kind: ingest
    source: {source}
    row: {{dim: row, chunk: 10, sort_by: [t]}}
    derive: {{late: x > 0.5}}
  check: {{kind: validate, input: rows, rules: [{{range: {{of: x, least: 0, most: {most}}}}}]}}
  features:
    kind: features
    input: rows
    after: [check]
    known_at: t
    target: late
    out: {{chunk: 10, shard: 20}}
    steps: [{{keep: {{of: [z]}}}}, {{date_parts: {{of: t, parts: [hour]}}}}]
  model: {{kind: train, input: features, estimator: sklearn.linear_model.LogisticRegression}}
  scores: {{kind: evaluate, model: model, input: features, metrics: [roc_auc, accuracy]}}
  predictions: {{kind: predict, model: model, input: rows, method: predict_proba}}
"""


@pytest.fixture
def workflow(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    lines = ["t,x,z"]
    for number in range(95):
        x = rng.random()
        lines.append(f"2024-01-{number % 28 + 1:02d}T{number % 24:02d}:00:00Z,{x:.4f},{x + rng.normal() / 10:.4f}")
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    path = tmp_path / "tiny.yaml"
    path.write_text(WORKFLOW.format(store=tmp_path / "store", source=tmp_path / "rows.csv", most=1))
    return path


def test_a_run_tells_what_it_did(workflow, tmp_path):
    seen: list[events.Event] = []
    summary = dms.run(workflow, sink=seen.append)
    assert [row.name for row in summary.stages] == ["rows", "check", "features", "model", "scores", "predictions"]
    assert summary.state == "succeeded"
    assert summary.rows_predicted == 95
    assert summary.metrics["roc_auc"] > 0.9
    assert json.loads((tmp_path / "store" / "summary.json").read_text())["metrics"] == summary.metrics
    assert "<table" in summary._repr_html_()
    assert isinstance(seen[0], events.RunStarted)
    assert isinstance(seen[-1], events.RunFinished)
    assert [event.stage for event in seen if isinstance(event, events.StageFinished)] == [
        r.name for r in summary.stages
    ]


def test_events_add_up_to_the_summary(workflow):
    """Planned, committed and reused units in the events are those of the table, in fresh and in repeated runs."""
    for _ in range(2):
        seen: list[events.Event] = []
        summary = dms.run(workflow, sink=seen.append)
        for row in summary.stages:
            mine = [event for event in seen if getattr(event, "stage", None) == row.name]
            committed = sum(event.units for event in mine if isinstance(event, events.UnitsCommitted))
            reused = sum(event.reused for event in mine if isinstance(event, events.StagePlanned))
            assert (committed, reused) == (row.units - row.reused, row.reused), row.name


def test_events_survive_json(workflow):
    seen: list[events.Event] = []
    dms.run(workflow, sink=seen.append)
    for event in seen:
        assert events.from_dict(json.loads(json.dumps(event.to_dict()))) == event
    assert events.from_dict({"event": "from_the_future"}) is None


def test_a_dry_run_writes_nothing_and_agrees_with_the_run(workflow, tmp_path):
    rows = dms.dry_run(workflow)
    assert not (tmp_path / "store").exists()
    summary = dms.run(workflow)
    planned = {row.name: row.units for row in rows}
    assert {row.name: row.units for row in summary.stages} == planned
    assert all(row.units == 0 and row.reused > 0 for row in dms.dry_run(workflow))


def test_a_changed_row_runs_its_dependants_and_says_why(workflow, tmp_path):
    dms.run(workflow)
    source = tmp_path / "rows.csv"
    lines = source.read_text().splitlines()
    lines[5] = lines[5].rsplit(",", 1)[0] + ",0.1234"  # z of one row
    source.write_text("\n".join(lines) + "\n")
    again = {row.name: row for row in dms.dry_run(workflow)}
    assert set(again["rows"].reasons) == {"input changed"}
    summary = {row.name: row for row in dms.run(workflow).stages}
    assert summary["check"].reused == 9  # of 10: the profile reads the column in its chunk
    assert 0 < summary["features"].reused < summary["features"].units
    assert summary["predictions"].reused < summary["predictions"].units


def test_stores_in_memory_work_without_a_cluster_and_are_refused_with_one(workflow):
    summary = dms.run(workflow, store="memory://api/run")
    assert dms.open_dataset("memory://api/run/predictions.zarr").sizes["row"] == 95
    again = dms.run(workflow, store="memory://api/run")
    assert [row.reused for row in again.stages] == [row.units for row in summary.stages]
    with pytest.raises(UsageError, match="lives in this process and workers cannot reach it"):
        dms.run(workflow, store="memory://api/run", cluster="local")


def test_the_default_client_is_used_and_shown_on_its_dashboard(workflow, client, tmp_path):
    text = workflow.read_text().replace("cluster: none", "cluster: local")
    workflow.write_text(text)
    before = set(client.scheduler_info()["workers"])
    dms.run(workflow)
    assert set(client.scheduler_info()["workers"]) == before
    with urllib.request.urlopen(client.dashboard_link.replace("/status", "/workflow.json"), timeout=10) as answer:
        shown = json.load(answer)
    (run,) = [run for run in shown["runs"] if run["workflow"] == "tiny"]
    assert {stage["name"]: stage["done"] for stage in run["stages"]}["predictions"] > 0
    assert {record.worker for record in ledger_of(tmp_path / "store", "features")} <= {"0", "1"}


def ledger_of(store: Path, stage: str) -> list:
    from daskml_scale.storage.ledger import Ledger

    return list(Ledger(str(store / f"{stage}.ledger")).records().values())


def test_a_broken_rule_stops_the_run_and_keeps_what_is_done(workflow, tmp_path):
    workflow.write_text(workflow.read_text().replace("most: 1", "most: 0.5"))
    with pytest.raises(ValidationFailedError, match=r"check: x: \d+ of 95 rows outside \[0.0, 0.5\]"):
        dms.run(workflow)
    assert not (tmp_path / "store" / "features.zarr").exists()
    workflow.write_text(workflow.read_text().replace("most: 0.5", "most: 1"))
    assert {row.name: row.reused for row in dms.run(workflow).stages}["rows"] == 11


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("sort_by: [t]", "sort_by: [time]", ("stages.rows.row.sort_by[0]", "unknown column 'time'", "t, x, z")),
        ("late: x > 0.5", "late: y > 0.5", ("stages.rows.derive.late", "unknown column 'y'")),
        ("rows.csv", "rovs.csv", ("stages.rows.source", "rovs.csv")),
        ("input: rows,", "input: row,", ("stages.check.input", "did you mean 'rows'?")),
        ("{range: {of: x,", "{range: {of: xx,", ("stages.check.rules[0].range.of", "unknown column 'xx'")),
        ("known_at: t", "known_at: tt", ("stages.features.known_at", "unknown column 'tt'; did you mean 't'?")),
        ("target: late", "target: lat", ("stages.features.target", "unknown column 'lat'; did you mean 'late'?")),
        ("keep: {of: [z]}", "keep: {of: [zz]}", ("stages.features.steps[0].keep.of", "unknown column 'zz'")),
        (
            "linear_model.LogisticRegression",
            "linear_model.LogistcRegression",
            ("stages.model.estimator", "did you mean"),
        ),
        ("store: /", "store: s4://", ("store", "scheme 's4' is not supported", "memory://")),
    ],
)
def test_mistakes_that_only_the_data_shows_are_placed_in_the_file(workflow, tmp_path, old, new, parts):
    text = workflow.read_text()
    assert old in text
    workflow.write_text(text.replace(old, new))
    line = next(number for number, content in enumerate(workflow.read_text().splitlines(), 1) if new in content)
    with pytest.raises(SpecError) as caught:
        api.check(workflow)
    for part in (f"tiny.yaml:{line}", *parts):
        assert part in str(caught.value)
    with pytest.raises(SpecError):
        dms.run(workflow)
    assert not (tmp_path / "store").exists()


def test_the_cluster_and_store_of_the_file_do_not_matter_when_others_are_asked_for(workflow, tmp_path):
    text = workflow.read_text().replace("cluster: none", "cluster: cern").replace("store: /", "store: s4://")
    workflow.write_text(text)
    assert dms.dry_run(workflow, store=tmp_path / "s", cluster="none")
    with pytest.raises(SpecError, match=r"tiny.yaml:4: store"):
        dms.dry_run(workflow, cluster="none")
    with pytest.raises(SpecError, match=r"tiny.yaml:5: cluster: unknown cluster 'cern'; known: "):
        dms.dry_run(workflow, store=tmp_path / "s")
    workflow.write_text(text.replace("cluster: cern", "cluster: ./no.yaml"))
    with pytest.raises(SpecError, match=r"tiny.yaml:5: cluster: './no.yaml': no such file"):
        api.check(workflow, store=tmp_path / "s")


def test_mistakes_that_only_the_kinds_of_columns_show_are_placed_in_the_file(workflow, tmp_path):
    """Planning finds them, before a unit of that stage runs."""
    workflow.write_text(workflow.read_text().replace("date_parts: {of: t,", "date_parts: {of: z,"))
    line = next(n for n, content in enumerate(workflow.read_text().splitlines(), 1) if "date_parts" in content)
    for call in (dms.dry_run, dms.run):
        with pytest.raises(SpecError) as caught:
            call(workflow)
        assert str(caught.value).startswith(f"{workflow}:{line}: stages.features.steps[1].date_parts.of: column 'z'")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("late: x > 0.5", "late: x > t", "stages.rows.derive.late: 'x > t' does not fit its columns {"),
        (
            "late: x > 0.5",
            "late: x > 'a'",
            "stages.rows.derive.late: \"x > 'a'\" does not fit its columns {'x': 'number'}",
        ),
        (
            "LogisticRegression}",
            "LogisticRegression, where: t > 3}",
            "stages.model.where: 't > 3' does not fit its columns",
        ),
    ],
)
def test_mistakes_that_only_the_values_show_are_placed_in_the_file_without_a_traceback(workflow, old, new, says):
    """A worker finds them: here the rows of a table, in a dry run those of its scan."""
    workflow.write_text(workflow.read_text().replace(old, new))
    line = next(n for n, content in enumerate(workflow.read_text().splitlines(), 1) if new in content)
    with pytest.raises(SpecError) as caught:
        dms.run(workflow)
    key, _, text = says.partition(": ")
    assert str(caught.value).startswith(f"{workflow}:{line}: {key}: ")
    assert text in str(caught.value)
    assert "Traceback" not in str(caught.value)
    if "derive" in says:
        with pytest.raises(SpecError) as dry:
            dms.dry_run(workflow)
        assert str(dry.value) == str(caught.value)


def test_what_a_worker_refuses_is_the_same_error_on_a_cluster(tmp_path, client):
    (tmp_path / "a.csv").write_text("key,x\n1,2\n2,a,b\n")
    with pytest.raises(PlanError, match=r"^a: .*a\.csv: row 2 has 3 values and the first line has 2") as caught:
        dms.ingest(tmp_path / "a.csv", tmp_path / "a.zarr", client=client)
    assert "Traceback" not in str(caught.value)


def test_the_fault_of_an_estimator_keeps_its_traceback(workflow, tmp_path):
    workflow.write_text(workflow.read_text().replace("late: x > 0.5", "late: x > 5"))  # one class only
    with pytest.raises(UnitsFailedError, match=r"(?s)^model: 1 of 1 units failed.*ValueError.*Traceback"):
        dms.run(workflow)


def test_remembered_ids_of_a_strange_shape_are_written_anew(workflow, tmp_path):
    dms.run(workflow)
    ids = tmp_path / "store" / "rows.ledger" / "ids.json"
    good = ids.read_text()
    for strange in ("[1, 2]", '{"a": 3}', '{"a": [1, "b", 3]}', "{", ""):
        ids.write_text(strange)
        assert dms.run(workflow).stages[0].reused == 11
        assert ids.read_text() == good


def test_a_workflow_made_in_python_is_checked_like_a_file(workflow, tmp_path):
    from daskml_scale.spec.load import load_workflow

    made = load_workflow(workflow)
    stages = {**made.stages, "check": made.stages["check"].model_copy(update={"input": "row"})}
    with pytest.raises(SpecError, match=r"^stages.check.input: there is no stage 'row'"):
        dms.run(made.model_copy(update={"stages": stages}))
    assert dms.run(made).state == "succeeded"


def test_an_edited_estimator_is_trained_again(workflow, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    module = tmp_path / "own_estimators.py"
    module.write_text("from sklearn.linear_model import LogisticRegression as Own\n")
    workflow.write_text(workflow.read_text().replace("sklearn.linear_model.LogisticRegression", "own_estimators.Own"))
    dms.run(workflow, cluster="none")
    assert {row.name: row.reused for row in dms.run(workflow, cluster="none").stages}["model"] == 1
    module.write_text(module.read_text() + "# edited\n")
    again = {row.name: row for row in dms.dry_run(workflow)}
    assert again["model"].reasons == {"code changed": 1}
    assert (again["features"].units, again["scores"].units) == (0, 1)


def test_appended_rows_that_look_like_padding_are_seen(workflow, tmp_path):
    """The padded end of the last chunk holds zeros: appended zeros must still count as new input."""
    workflow.write_text(workflow.read_text().replace("[{range: {of: x, least: 0, most: 1}}]", "[unique: [number]]"))
    (tmp_path / "rows.csv").write_text(
        "t,x,z,number\n" + "".join(f"2024-01-01T{i:02d}:00:00Z,.5,.5,{i + 1}\n" for i in range(15))
    )
    check = workflow.read_text().split("  features:")[0]
    workflow.write_text(check)
    dms.run(workflow)
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("2024-01-02T00:00:00Z,.5,.5,0\n2024-01-02T00:00:00Z,.5,.5,0\n")
    with pytest.raises(ValidationFailedError, match="2 of 17 rows are not unique"):
        dms.run(workflow)


def test_fewer_rows_leave_no_old_ones(workflow, tmp_path):
    source = tmp_path / "rows.csv"
    dms.run(workflow)
    source.write_text("\n".join(source.read_text().splitlines()[:61]) + "\n")
    summary = dms.run(workflow)
    assert summary.rows_predicted == 60
    for stage in ("rows", "features", "predictions"):
        assert dms.open_dataset(str(tmp_path / "store" / f"{stage}.zarr")).sizes["row"] == 60


def test_a_dry_run_after_a_change_plans_what_the_run_then_does(workflow):
    dms.run(workflow)
    workflow.write_text(workflow.read_text().replace("known_at: t\n", "known_at: t - hours(1)\n"))
    planned = {row.name: row.units for row in dms.dry_run(workflow)}
    done = {row.name: row.units - row.reused for row in dms.run(workflow).stages}
    assert planned == done


def test_a_dry_run_after_a_new_column_takes_no_old_table_for_the_new_one(workflow, tmp_path):
    """Of many sorted files the table's schema is known after some passes only: what follows is planned then."""
    (tmp_path / "more.csv").write_text((tmp_path / "rows.csv").read_text())
    workflow.write_text(workflow.read_text().replace(str(tmp_path / "rows.csv"), f"{tmp_path}/*.csv"))
    dms.run(workflow)
    text = workflow.read_text().replace("late: x > 0.5", "late: x > 0.5, early: x < 0.4")
    workflow.write_text(text.replace("target: late", "target: early"))
    planned = {row.name: row for row in dms.dry_run(workflow)}
    assert planned["rows"].units > 0
    assert [(row.units, row.note) for name, row in planned.items() if name in ("check", "features")] == [
        (0, "planned after rows"), (0, "planned after check, rows"),
    ]  # fmt: skip
    assert dms.run(workflow).state == "succeeded"


def test_a_dry_run_tells_no_change_of_code_where_the_estimator_is_not_known_yet(workflow):
    text = workflow.read_text().replace("out: {chunk", "fit_where: t < time('2024-01-05')\n    out: {chunk")
    model = "model: {kind: train, input: features, estimator: sklearn.linear_model.LogisticRegression}"
    search = (
        "search: {kind: search, input: features, estimator: {sklearn.linear_model.LogisticRegression: {C: 1.0}}, "
        "space: {tol: [0.001]}, sampler: {grid: {}}, scoring: roc_auc, split: {kfold: {folds: 2}}}\n  "
    )
    workflow.write_text(text.replace(model, search + "model: {kind: train, input: features, params_from: search}"))
    dms.run(workflow)
    workflow.write_text(workflow.read_text().replace("C: 1.0", "C: 0.5"))
    planned = {row.name: row for row in dms.dry_run(workflow)}
    assert planned["search"].reasons == {"parameters changed": 2}
    assert (planned["model"].reasons, planned["model"].note) == (
        {"input changed": 1}, "its input is written by search",
    )  # fmt: skip
    assert planned["predictions"].reasons == {"input changed": 10}


def test_a_first_dry_run_counts_every_pass_and_says_what_it_waits_for(workflow, tmp_path):
    """Prediction reads windows and joined tables too: their passes count, though no model exists yet."""
    text = workflow.read_text().replace("known_at: t", "known_at: t\n    tables: {same: rows}")
    steps = "[{trailing: {of: x, at: t, windows: [3h], stat: sum}}, {lookup: {table: same, key: number, take: [z]}}, "
    workflow.write_text(text.replace("steps: [", f"steps: {steps}"))
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    (tmp_path / "rows.csv").write_text(
        "\n".join([lines[0] + ",number", *(f"{x},{n}" for n, x in enumerate(lines[1:]))])
    )
    planned = {row.name: row for row in dms.dry_run(workflow)}
    done = {row.name: row.units for row in dms.run(workflow).stages}
    assert {name: row.units for name, row in planned.items()} == done
    assert done["predictions"] > 10 + 1  # its rows, the scan of the windows, the keys of the table
    assert planned["predictions"].note == "its input is written by model, rows"
    assert "10 chunks to scan, then 10 shards" in planned["predictions"].grid
    (tmp_path / "store" / "predictions.ledger").rename(tmp_path / "away")
    after = {row.name: row for row in dms.dry_run(workflow)}["predictions"]
    assert (after.units, after.grid) == (planned["predictions"].units, planned["predictions"].grid)
    assert 0.5 < planned["predictions"].memory / after.memory < 2


def test_submitting_from_python_gives_the_run_to_watch(workflow):
    record = dms.submit(workflow)
    assert record.state == "queued"
    assert record.id.startswith("tiny-")


def test_tables_are_recognised_across_calls(workflow, tmp_path):
    dms.run(workflow)
    url = str(tmp_path / "store" / "rows.zarr")
    assert stores.source_of(dms.open_dataset(url)) == url


def test_a_cluster_object_or_a_client_may_say_where_to_work(workflow, client, tmp_path):
    workflow.write_text(workflow.read_text().replace("cluster: none", "cluster: not-here"))
    for place in ({"cluster": client.cluster}, {"client": client.cluster}, {"cluster": client}, {"client": client}):
        name = f"{next(iter(place))}-{type(next(iter(place.values()))).__name__}"
        assert dms.run(workflow, store=tmp_path / name, **place).state == "succeeded"
        (record,) = ledger_of(tmp_path / name, "model")
        assert record.worker in {"0", "1"}
    assert client.status == "running"


def test_a_definition_may_be_given_as_a_mapping(workflow, tmp_path):
    spec = {"version": 1, "name": "own", "backend": "local", "classes": {"cpu": {"workers": {"max": 1}}},
            "dashboard": {"listen": "127.0.0.1:0"}}  # fmt: skip
    seen: list[events.Event] = []
    dms.run(workflow, cluster=spec, sink=seen.append)
    assert [event.cluster for event in seen if isinstance(event, events.ClusterStarted)] == ["own"]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ({"cluster": 3}, "cluster is a int; give a distributed Client, a cluster object, or for cluster= the name"),
        ({"client": "local"}, "client is a str; give a distributed Client"),
        ({"client": "local", "cluster": "none"}, "client= and cluster= both say where to work"),
    ],
)
def test_anything_else_is_refused_before_work_begins(workflow, tmp_path, place, says):
    with pytest.raises(UsageError, match=says):
        dms.run(workflow, **place)
    assert not (tmp_path / "store").exists()


def test_predicting_through_a_cluster_object_says_what_to_give(workflow, client, tmp_path):
    dms.run(workflow)
    store = tmp_path / "store"
    given = (str(store / "models/model"), dms.open_dataset(str(store / "rows.zarr")), str(tmp_path / "p.zarr"))
    with pytest.raises(UsageError, match=r"client is a LocalCluster; give a distributed Client \(cluster.get_client"):
        dms.predict(*given, client=client.cluster)
    assert dms.predict(*given, client=client).sizes["row"] == 95


def test_a_closed_client_is_refused(workflow, client, tmp_path):
    from distributed import Client

    closed = Client(client.scheduler.address, set_as_default=False)
    closed.close()
    with pytest.raises(UsageError, match="client is a Client that is closed"):
        dms.run(workflow, client=closed)


def test_memory_of_this_process_is_out_of_reach_of_a_client(workflow, client, tmp_path):
    for call in (
        lambda: dms.run(workflow, store="memory://far/run"),
        lambda: dms.run(workflow, store="memory://far/run", client=client),
        lambda: dms.ingest(tmp_path / "rows.csv", "memory://far/rows.zarr", client=client),
    ):
        with pytest.raises(UsageError, match=r"memory://far.* lives in this process and workers cannot reach it"):
            call()
    assert dms.ingest(tmp_path / "rows.csv", "memory://far/rows.zarr").sizes["row"] == 95  # here


def test_memory_of_this_process_is_in_reach_of_a_client_in_it(workflow):
    from distributed import Client

    with Client(processes=False, n_workers=1, dashboard_address=None, set_as_default=False) as inside:
        assert dms.run(workflow, store="memory://near/run", client=inside).rows_predicted == 95


def test_what_another_process_cannot_read_is_not_submitted(workflow, client):
    from daskml_scale.spec.load import load_workflow

    with pytest.raises(UsageError, match="workflow is a Workflow; another process reads it: give a name"):
        dms.submit(load_workflow(workflow))
    with pytest.raises(UsageError, match="cluster is a Client; another process"):
        dms.submit(workflow, cluster=client)
    with pytest.raises(UsageError, match="a workflow is a name, a path or a Workflow, not a dict"):
        dms.run({"version": 1})


def test_the_last_run_is_the_last_work_whatever_it_was(workflow, tmp_path):
    dms.ingest(tmp_path / "rows.csv", tmp_path / "rows.zarr", chunk=10)
    assert dms.last_run().name == "rows"
    assert dms.map(abs, range(7), client=None) == list(range(7))
    row = dms.last_run()
    assert (row.name, row.kind, row.units, row.reused, row.rows) == ("abs", "map", 7, 0, 7)
    here = dms.open_dataset(str(tmp_path / "rows.zarr")).load().copy()
    here.encoding.clear()
    recipe = dms.Recipe([{"ordinal": {"of": ["kind"]}}], known_at="t").fit(here.assign(kind=("row", ["a"] * 95)))
    row = dms.last_run()
    assert (row.name, row.kind, row.reused, row.rows) == ("fit", "features", 0, 95)
    recipe.transform(here.assign(kind=("row", ["a"] * 95)), out=tmp_path / "m.zarr")
    assert (dms.last_run().name, dms.last_run().rows) == ("m", 95)


def test_runs_in_threads_do_not_mix_their_accounts(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    def run(number: int) -> list[tuple[str, int]]:
        (tmp_path / f"{number}.csv").write_text("key\n" + "\n".join(map(str, range(10 * number))) + "\n")
        (tmp_path / f"{number}.yaml").write_text(
            f"version: 1\nname: w{number}\nstore: {tmp_path}/store{number}\ncluster: none\nstages:\n"
            f"  t{number}: {{kind: ingest, source: {tmp_path}/{number}.csv, row: {{dim: row, chunk: 10}}}}\n"
            f"  c{number}: {{kind: validate, input: t{number}, rules: [{{unique: [key]}}]}}\n"
        )
        return [(row.name, row.rows) for row in dms.run(tmp_path / f"{number}.yaml", cluster="none").stages]

    with ThreadPoolExecutor(4) as pool:
        for number, rows in zip(range(1, 9), pool.map(run, range(1, 9)), strict=True):
            assert rows == [(f"t{number}", 10 * number), (f"c{number}", 10 * number)]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda frame, model: dms.predict(model, frame), "data is a DataFrame; predict reads an xarray Dataset"),
        (lambda frame, model: dms.predict(model, frame.values), "data is a ndarray; predict reads an xarray Dataset"),
        (lambda frame, model: dms.cluster(4), "4 is no cluster; give a name such as 'local'"),
        (lambda frame, model: dms.cluster("tcp://127.0.0.1:1"), "give client=distributed.Client('tcp://127.0.0.1:1')"),
        (lambda frame, model: dms.Recipe([{"keep": {"of": "a"}}], known_at="t").fit(frame, where="(a > 1) & (a < 3)"),
         "write and, or, not instead of &, |, ~"),
        (lambda frame, model: dms.Recipe([model], known_at="t"), "'sklearn.linear_model.LinearRegression'"),
        (lambda frame, model: steps.SklearnStep(of="a", transformer=model), "{'sklearn.linear_model.LinearRegression'"),
    ],
)  # fmt: skip
def test_what_users_of_other_libraries_try_first_is_answered(call, says):
    import pandas as pd
    from sklearn.linear_model import LinearRegression

    frame = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "t": pd.date_range("2024", periods=4)})
    with pytest.raises((SpecError, UsageError)) as raised:
        call(frame, LinearRegression().fit(frame[["a"]], frame["a"]))
    assert says in str(raised.value)
