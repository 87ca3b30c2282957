"""Every verb: what it prints where, and its exit code."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .conftest import PROGRAM, write_workflow

VERBS = [
    "run", "submit", "resume", "rerun", "status", "top", "list", "wait", "logs", "cancel", "report", "cost",
    "provenance", "gc", "validate", "workflows", "clusters", "schema", "version",
]  # fmt: skip


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def registry(home: str | None = None) -> Path:
    return Path(home or os.environ["DASKML_SCALE_HOME"]) / "registry.db"


def test_help_lists_the_verbs_and_examples_and_not_the_runner(command):
    code, out, err = command("--help")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.split("Commands:\n")[1].splitlines()[: len(VERBS)]] == VERBS
    assert "daskml-scale run flights" in out
    assert "_runner" not in out
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json_where_it_prints_data(command, verb):
    code, out, _ = command(verb, "--help")
    assert code == 0
    assert ("--json" in out) is (verb not in ("logs", "provenance", "schema"))  # lines, and always JSON
    assert "Example" in out or verb == "clusters"  # whose verbs have them


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run"], "Missing argument 'WORKFLOW'"),
        (["run", "tiny.yaml", "--nope"], "No such option"),
        (["fly"], "No such command 'fly'"),
        (["list", "--limit", "0"], "0 is not in the range"),
        (["run", "a", "b"], "unexpected extra argument"),
    ],
)
def test_wrong_arguments_are_one_line_with_a_pointer_and_exit_2(command, words, says):
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert re.match(r"error: .*\nSee: daskml-scale.* --help\n$", err)
    assert says in err


def test_without_a_verb_help_is_shown_and_the_code_is_2(process):
    done = process()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: daskml-scale")


def test_an_unknown_workflow_is_refused_with_the_nearest_and_nothing_is_written(command, folder):
    before = files(folder)
    for verb in ("run", "submit", "validate"):
        code, out, err = command(verb, "flihgts")
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert "flights" in err
        assert err.count("\n") == 1
    assert files(folder) == before
    assert not registry().exists()


def test_an_unknown_cluster_is_refused_with_the_nearest_and_nothing_is_written(command, folder):
    before = files(folder)
    for verb in ("run", "submit"):
        code, _, err = command(verb, "tiny.yaml", "--cluster", "locol")
        assert code == 2
        assert "local" in err
    assert files(folder) == before
    assert not registry().exists()


def test_a_bad_workflow_is_refused_with_its_line_and_nothing_is_written(command, folder):
    bad = folder / "bad.yaml"
    bad.write_text((folder / "tiny.yaml").read_text().replace("input: table", "input: tabel"))
    before = files(folder)
    for words in (["run"], ["run", "--dry-run"], ["submit"], ["validate"]):
        code, out, err = command(*words, "bad.yaml")
        assert (code, out) == (2, "")
        assert err.startswith("error: bad.yaml:7: stages.check.input: ")
        assert "table" in err
    assert files(folder) == before
    assert not registry().exists()


def test_every_error_is_a_document_on_stdout_with_json(command, folder):
    bad = folder / "bad.yaml"
    bad.write_text((folder / "tiny.yaml").read_text().replace("input: table", "input: tabel"))
    for words in (["run"], ["run", "--dry-run"], ["submit"], ["validate"]):
        code, out, err = command(*words, "bad.yaml", "--json")
        found = json.loads(out)
        assert out.count("\n") == 1
        assert err == f"error: {found['error']}\n"
        assert (code, found["exit_code"], found["type"]) == (2, 2, "SpecError")
        assert (found["file"], found["line"], found["key"]) == ("bad.yaml", 7, "stages.check.input")
        assert found["error"] == f"bad.yaml:7: stages.check.input: {found['message']}"
    for words, kind in ((["status", "nope"], "UsageError"), (["list", "--limit", "0"], "UsageError")):
        code, out, err = command(*words, "--json")
        assert (code, json.loads(out)["type"], json.loads(out)["line"]) == (2, kind, None)
        assert json.loads(out)["message"] in err


@pytest.mark.parametrize(
    "words", [["run", "tiny.yaml"], ["list"], ["version", "--json"], ["validate", "tiny.yaml"], ["--help"]]
)
def test_a_full_stdout_is_one_message(folder, words, command):
    if words[0] == "ledger":
        assert command("run", "tiny.yaml")[0] == 0
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, *words], stdout=full, stderr=-1, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: stdout cannot be written: No space left on device"
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("words", [["run", "tiny.yaml", "--quiet"], ["list"], ["workflows", "--json"], ["--help"]])
def test_a_reader_that_leaves_is_no_error(folder, words):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*PROGRAM, *words], stdout=write, stderr=-1, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_closed_streams_are_no_error(folder, status):
    done = subprocess.run(f"{shlex.join([*PROGRAM, 'run', 'tiny.yaml'])} >&- 2>&-", shell=True, check=False)
    assert done.returncode == 0
    assert status("tiny")["state"] == "succeeded"


def test_a_run_prints_a_table_and_where_the_results_are(command, folder):
    code, out, err = command("run", "tiny.yaml")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["stage", "units", "reused", "seconds", "rows/s"]
    assert [line.split()[:3] for line in lines[1:3]] == [["table", "4", "0"], ["check", "4", "0"]]
    assert "Results: runs/tiny" in out
    assert all(line == line.rstrip() for line in lines)
    assert re.search(r"^\d\d:\d\d:\d\d table: started \(ingest\)$", err, re.M)
    assert re.search(r"^\d\d:\d\d:\d\d check: done in .*, 4 units \(0 reused\), 60 rows$", err, re.M)


def test_a_second_run_says_that_everything_was_up_to_date(command):
    command("run", "tiny.yaml")
    code, out, _ = command("run", "tiny.yaml")
    assert code == 0
    assert "Everything was up to date: all 8 units were reused" in out


def test_quiet_is_silent_on_stderr_and_still_prints_the_result(command):
    code, out, err = command("run", "tiny.yaml", "--quiet")
    assert (code, err) == (0, "")
    assert out.startswith("stage")


def test_json_is_the_only_thing_on_stdout(process, folder):
    done = process("run", "tiny.yaml", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert [(row["name"], row["units"], row["reused"]) for row in found["stages"]] == [("table", 4, 0), ("check", 4, 0)]
    assert {"metrics", "rows_predicted", "versions", "store", "seconds", "state"} <= set(found)
    assert found == json.loads((folder / "runs/tiny/summary.json").read_text())
    assert "table: done" in done.stderr


def test_a_failure_with_json_is_one_document_too(process, folder):
    text = (folder / "tiny.yaml").read_text().replace("{unique: [key]}", "{range: {of: x, most: 3}}")
    (folder / "tiny.yaml").write_text(text)
    done = process("run", "tiny.yaml", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == found["exit_code"] == 1
    assert found["state"] == "failed"
    assert f"error: {found['error']}\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(process("status", found["run"], "--json").stdout)["message"] == found["error"]


def test_what_only_the_run_finds_names_the_file_as_it_was_given(command, folder):
    text = (folder / "tiny.yaml").read_text().replace("sort_by: [key]}", "sort_by: [key]}, derive: {low: x < 'a'}")
    (folder / "tiny.yaml").write_text(text)
    code, out, err = command("run", "tiny.yaml", "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith("error: tiny.yaml:6: stages.table.derive.low: ")
    assert err.count("\n") == 1


def test_a_failed_run_is_one_message_and_status_says_how_to_go_on(command, folder):
    text = (folder / "tiny.yaml").read_text().replace("{unique: [key]}", "{range: {of: x, most: 3}}")
    (folder / "tiny.yaml").write_text(text)
    code, out, err = command("run", "tiny.yaml", "--quiet", "--store", "runs/with space")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    code, out, _ = command("status")
    assert code == 0
    assert "failed" in out.splitlines()[0]
    assert "Go on with: daskml-scale run tiny.yaml --store 'runs/with space'" in out


def test_dry_run_prints_the_plan_and_writes_nothing(command, folder):
    before = files(folder)
    code, out, err = command("run", "tiny.yaml", "--dry-run")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].split()[:5] == ["stage", "kind", "units", "reused", "memory"]
    assert [line.split()[:4] for line in lines[1:3]] == [["table", "ingest", "4", "0"], ["check", "validate", "4", "0"]]
    assert "8 units to run, 0 reused. Nothing was written." in out
    assert files(folder) == before
    assert not registry().exists()


def test_dry_run_after_a_run_says_that_nothing_is_to_do(command):
    command("run", "tiny.yaml")
    code, out, _ = command("run", "tiny.yaml", "--dry-run")
    assert code == 0
    assert "Everything is up to date: all 8 units would be reused." in out
    found = json.loads(command("run", "tiny.yaml", "--dry-run", "--json")[1])
    assert [(row["name"], row["units"], row["reused"]) for row in found] == [("table", 0, 4), ("check", 0, 4)]
    assert {"kind", "grid", "memory", "reasons", "note", "later"} <= set(found[0])


def test_status_and_list_show_runs_newest_first(command):
    command("run", "tiny.yaml")
    command("run", "tiny.yaml", "--store", "runs/other")
    runs = json.loads(command("list", "--json")[1])
    assert [Path(run["store"]).name for run in runs] == ["other", "tiny"]
    assert [run["state"] for run in runs] == ["succeeded"] * 2
    assert [(stage["name"], stage["done"], stage["units"]) for stage in runs[0]["stages"]] == [
        ("table", 4, 4),
        ("check", 4, 4),
    ]
    assert json.loads(command("list", "--json", "--limit", "1")[1]) == runs[:1]
    newest, oldest = runs
    assert json.loads(command("status", "--json")[1])["id"] == newest["id"]
    code, out, _ = command("status", oldest["id"])
    assert code == 0
    assert out.startswith(f"{oldest['id']}  succeeded")
    assert oldest["summary"]["rows_predicted"] == 0
    table = command("list")[1].splitlines()
    assert table[0].split() == ["run", "state", "started", "stages", "time", "store"]
    assert [line.split()[0] for line in table[1:]] == [newest["id"], oldest["id"]]
    assert table[1].endswith("runs/other")


def test_status_explains_a_wrong_or_ambiguous_id(command):
    assert command("status")[0] == 2
    command("run", "tiny.yaml")
    command("run", "tiny.yaml")
    code, out, err = command("status", "tiny")
    assert (code, out) == (2, "")
    assert "more than one run" in err
    code, _, err = command("status", "nope")
    assert code == 2
    assert "no run 'nope'" in err


def test_without_runs_list_is_empty_and_says_so(command):
    assert command("list") == (0, "No runs yet.\n", "")
    assert command("list", "--json") == (0, "[]\n", "")
    assert not registry().exists()


def test_validate_says_ok_with_the_number_of_stages(command):
    assert command("validate", "tiny.yaml") == (0, "ok: tiny.yaml: workflow tiny, 2 stages\n", "")
    found = json.loads(command("validate", "tiny.yaml", "--json")[1])
    assert found == {"file": "tiny.yaml", "workflow": "tiny", "stages": ["table", "check"]}


def test_what_is_wrong_in_a_clusters_file_is_not_told_of_the_workflow(command, folder, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (folder / "fast.yaml").write_text("version: 1\nname: fast\nbackend: local\nclasses: {gpu: {resources: {GPU: 1}}}\n")
    code, out, err = command("run", "tiny.yaml", "--cluster", "fast.yaml", "--quiet")
    assert (code, out) == (2, "")
    assert (
        "error: cluster fast.yaml: classes.gpu.resources.GPU: each worker wants 1 and this machine shows no GPU" in err
    )


def test_a_workflow_is_shown_as_it_stands_and_its_python_named(command, folder):
    (folder / "workflows").mkdir()
    text = "version: 1\nname: mine  # to copy\nstages: {one: {kind: map, function: 'mine_work:f', over: {range: 2}}}\n"
    (folder / "workflows" / "mine.yaml").write_text(text)
    (folder / "workflows" / "mine_work.py").write_text("f = abs\n")
    code, out, err = command("workflows", "show", "mine")
    assert (code, out) == (0, text)
    assert "it names functions of workflows/mine_work.py; put a copy beside yours" in err
    code, out, err = command("workflows", "show", "mien")
    assert (code, out) == (2, "")
    assert "did you mean 'mine'" in err


def test_workflows_and_clusters_are_listed_with_file_and_description(command, folder):
    (folder / "workflows").mkdir()
    write_workflow(folder, name="workflows/mine.yaml")
    found = {entry["name"]: entry for entry in json.loads(command("workflows", "--json")[1])}
    assert found["mine"] == {"name": "mine", "file": "workflows/mine.yaml", "description": "60 rows, checked"}
    assert found["flights"]["description"]
    assert "mine" in command("workflows")[1]
    clusters = {entry["name"]: entry for entry in json.loads(command("clusters", "--json")[1])}
    assert clusters["local"]["description"]
    assert Path(clusters["local"]["file"]).is_file()


def test_version_names_the_packages_that_do_the_work(command):
    found = json.loads(command("version", "--json")[1])
    assert set(found) == {"daskml-scale", "dask", "distributed", "zarr", "xarray", "scikit-learn", "python"}
    assert found["python"] == sys.version.split()[0]
    lines = command("version")[1].splitlines()
    assert dict(line.split() for line in lines) == found


HEAVY = """
import sys
from daskml_scale.cli import main
main({words!r})
heavy = ("dask", "distributed", "zarr", "xarray", "sklearn", "pandas", "bokeh")
print("heavy:", [name for name in heavy if name in sys.modules])
"""


@pytest.mark.parametrize("words", [["--help"], ["version"], ["list"], ["clusters"]])
def test_verbs_that_do_no_work_import_nothing_heavy(folder, words):
    code = HEAVY.format(words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "heavy: []", done.stderr


def test_a_closed_pipe_is_quiet(folder):
    line = f"{' '.join(PROGRAM)} clusters --json | head -c 0; {' '.join(PROGRAM)} version | head -c 1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""


def test_a_run_goes_on_when_its_progress_is_piped_into_something_that_ends(folder):
    line = f"{' '.join(PROGRAM)} run tiny.yaml --json 2>&1 >out.json | head -c 1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert json.loads((folder / "out.json").read_text())["state"] == "succeeded"


def test_text_that_a_stream_cannot_show_does_not_break_a_verb(command, process):
    command("run", "tiny.yaml")
    done = process("status", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^\+  table ", done.stdout, re.M)


def test_a_damaged_registry_is_one_message(command):
    registry().parent.mkdir(parents=True, exist_ok=True)
    registry().write_bytes(b"not a database at all " * 99)
    for words in (["list"], ["status"], ["run", "tiny.yaml"], ["submit", "tiny.yaml"]):
        code, out, err = command(*words)
        assert (code, out) == (1, "")
        assert err.startswith(f"error: {registry()}: ")
        assert "mv " in err
        assert err.count("\n") == 1


def test_a_registry_of_a_newer_version_is_one_message(command):
    command("run", "tiny.yaml")
    with sqlite3.connect(registry()) as connection:
        connection.execute("pragma user_version = 99")
    code, out, err = command("list")
    assert (code, out) == (1, "")
    assert "version 99" in err
    assert "upgrade daskml-scale" in err


UNPRIVILEGED = """
import os, sys
sys.path[:0] = {paths!r}
from daskml_scale.cli import main
os.environ["DASKML_SCALE_HOME"] = sys.argv[1] + "/warm"
main(["list"]), main(["run", "tiny.yaml", "--quiet", "--store", "memory://warm"])  # import all while it may be read
os.environ["DASKML_SCALE_HOME"] = sys.argv[1] + "/home"
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("words", [["run", "tiny.yaml"], ["submit", "tiny.yaml"]])
def test_a_home_without_permission_is_one_message(words, unmeasured):
    place = Path(tempfile.mkdtemp(prefix="daskml-scale-"))
    try:
        place.chmod(0o777)
        (place / "home").mkdir(mode=0o555)
        write_workflow(place)
        code = UNPRIVILEGED.format(paths=[entry for entry in sys.path if entry])
        done = subprocess.run(
            [sys.executable, "-c", code, str(place), *words],
            capture_output=True, text=True, cwd=place, env=unmeasured, check=False,
        )  # fmt: skip
        last = done.stderr.splitlines()[-1]
        assert done.returncode == 1, done.stderr
        assert last.startswith(f"error: {place}/home/registry.db: ")
        assert last.endswith("set DASKML_SCALE_HOME to a directory that you may write")
        assert not (place / "runs").exists()
    finally:
        shutil.rmtree(place)


def test_a_defect_is_a_traceback_and_exit_1(folder):
    code = "import sys; from daskml_scale import cli; cli.verbs.command('b')(lambda: 1 / 0); sys.exit(cli.main(['b']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-2] == "error: ZeroDivisionError: division by zero"
    assert done.stderr.splitlines()[-1] == "This is a defect in daskml-scale; please report it."
