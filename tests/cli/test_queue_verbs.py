"""Submitted runs that wait their turn, that are the same run, and that are set, labelled and waited for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daskml_scale.runs.records import Registry

from .conftest import PROGRAM, ended
from .test_control import NEVER, began, endless
from .test_submit import submitted, wait

__all__ = ["endless"]


def record(run: str):
    return Registry().get(run, now=time.time())


def test_a_second_run_of_a_store_waits_its_turn_and_comes_when_the_first_is_dead(command, endless, status):
    first = submitted(command)
    began(endless)
    second = submitted(command, "--label", "try=2")
    deadline = time.monotonic() + 60
    while not record(second).pid:  # its process waits
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert record(second).state == "queued"
    assert "waits for its turn" in Path(record(second).log).read_text() or record(second).state == "queued"
    os.kill(record(first).pid, signal.SIGKILL)
    ended(record(first).pid)
    assert wait(status, second, ("running",))["labels"] == {"try": "2"}
    assert record(first).state == "lost"
    assert command("cancel", second)[0] == 0


def test_a_waiting_run_is_cancelled_and_its_process_ends(command, endless):
    first = submitted(command)
    began(endless)
    second = submitted(command)
    deadline = time.monotonic() + 60
    while not (pid := record(second).pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert command("cancel", second)[0] == 0
    assert command("wait", second)[0] == 6
    ended(pid)
    assert record(first).state == "running"
    assert command("cancel", first)[0] == 0


def test_a_waiting_run_does_what_was_submitted_whatever_becomes_of_its_file(command, endless):
    (endless / "other.yaml").write_text(NEVER.replace("1000", "2").replace("name: tiny", "name: other"))
    first = submitted(command)
    began(endless)
    code, out, err = command("submit", "other.yaml")
    assert code == 0, err
    (endless / "other.yaml").write_text("version: 1\n")
    assert command("cancel", first)[0] == 0
    assert command("wait", out.strip())[0] == 0
    assert [stage.rows for stage in record(out.strip()).stages] == [2]


def test_the_same_key_is_the_same_run_and_another_workflow_under_it_is_refused(command, folder):
    first = submitted(command, "--key", "daily 1")
    assert submitted(command, "--key", "daily 1") == first
    assert command("wait", first)[0] == 0
    code, out, _ = command("submit", "tiny.yaml", "--key", "daily 1", "--wait", "--json")
    assert (code, json.loads(out)["id"], json.loads(out)["state"]) == (0, first, "succeeded")
    code, _, err = command("submit", "tiny.yaml", "--key", "daily 1", "--store", "runs/other")
    assert code == 3
    assert f"key 'daily 1' belongs to run {first}" in err
    assert [run.id for run in Registry().list(now=time.time())] == [first]


def test_submit_waits_and_exits_as_the_run_did(command, folder):
    code, out, err = command("submit", "tiny.yaml", "--wait")
    assert (code, out.count("\n")) == (0, 1)
    assert "is succeeded" in err
    text = Path("tiny.yaml").read_text().replace("{unique: [key]}", "{range: {of: x, most: 3}}")
    Path("tiny.yaml").write_text(text)
    code, out, err = command("submit", "tiny.yaml", "--follow")
    assert (code, out.count("\n")) == (1, 1)
    assert "check: started" in err


def test_settings_change_the_workflow_and_resume_keeps_them(command):
    assert command("run", "tiny.yaml", "--set", "stages.table.row.chunk=30", "-q")[0] == 0
    first = Registry().get(now=time.time())
    assert [stage.units for stage in first.stages] == [3, 3]
    code, out, _ = command("resume", first.id, "--json")
    assert (code, [row["units"] for row in json.loads(out)["stages"]]) == (0, [3, 3])
    assert Registry().get(now=time.time()).command[-2:] == ("--set", "stages.table.row.chunk=30")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("stages.table.row.chunk=no", "--set stages.table.row.chunk=no: no: YAML 1.1"),
        ("stages.table.row.chunk='30'", "expected a whole number"),
        ("stages.table.row.chunks=30", "did you mean 'chunk'"),
        ("stages.tabel.input=x", "the kind is missing"),
        ("stages.check.input=tabel", "there is no stage 'tabel'"),
        ("stages.check.rules[3].unique=[key]", "there is no item 3 in a list of 1"),
        ("chunk", "write KEY=VALUE"),
        ("stages.check.rules=[", "not closed"),
    ],
)
def test_a_wrong_setting_is_named(command, setting, said):
    code, out, err = command("submit", "tiny.yaml", "--set", setting)
    assert (code, out) == (2, "")
    assert f"error: --set {setting}" in err
    assert said in err
    assert not Registry().path.exists()


@pytest.mark.parametrize(
    "words",
    [["--label", "x"], ["--label", "1=2"], ["--label", "a=1", "--label", "a=2"], ["--label", "a="], ["--key", ""]],
)
def test_a_wrong_label_or_key_is_refused(command, words):
    code, out, err = command("submit", "tiny.yaml", *words)
    assert (code, out) == (2, "")
    assert words[0].strip("-") in err
    assert not Registry().path.exists()


def test_list_shows_the_runs_of_a_label(command):
    for team in ("a", "b"):
        assert command("run", "tiny.yaml", "-q", "--label", f"team={team}")[0] == 0
    found = json.loads(command("list", "--label", "team=b", "--json")[1])
    assert [run["labels"] for run in found] == [{"team": "b"}]
    assert json.loads(command("list", "--owner", "nobody-here", "--json")[1]) == []


def test_status_and_submit_import_neither_dask_nor_scikit_learn(folder, command):
    run = submitted(command)
    assert command("wait", run)[0] == 0
    code = (
        "import sys; from daskml_scale.cli import main\n"
        "for words in (['status'], ['list'], ['cost'], ['submit', 'tiny.yaml', '--wait']): main(words)\n"
        "print([name for name in ('dask', 'distributed', 'xarray', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_runs_submitted_at_once_all_end_and_none_twice(command, folder):
    words = [*PROGRAM, "submit", "tiny.yaml", "--store"]
    at_once = [subprocess.Popen([*words, f"runs/{n}"], stdout=-1, stderr=-1, text=True) for n in range(4)]
    ids = [process.communicate(timeout=120)[0].strip() for process in at_once]
    assert len(set(ids)) == 4
    for run in ids:
        assert command("wait", run)[0] == 0
        assert [event["state"] for event in Registry().events(run)] == ["queued", "running", "succeeded"]


def test_the_example_for_cron_starts_once_a_day(folder):
    docs = (Path(__file__).parents[2] / "docs" / "how-to" / "nightly.md").read_text()
    line = next(line for line in docs.splitlines() if line.startswith("15 3 * * *"))
    command = line.removeprefix("15 3 * * *").strip().replace("\\%", "%")
    command = command.replace("/srv/trips", str(folder)).replace("trips.yaml", "tiny.yaml")
    command = command.replace("daskml-scale", f"'{sys.executable}' -m daskml_scale")
    for _ in range(2):
        assert subprocess.run(["/bin/sh", "-c", command], timeout=200, check=False).returncode == 0
    (run,) = Registry().list(now=time.time())
    assert run.state == "succeeded"
    assert "tiny" in (folder / "cron.log").read_text()
