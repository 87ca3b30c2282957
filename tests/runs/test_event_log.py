"""The log of a run: every event, in order, with its reason; a log that cannot be written stops nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from daskml_scale.cli import main
from daskml_scale.events import StagePlanned, UnitsCommitted, Warned
from daskml_scale.runs.event_log import EventLog, path_of, read
from daskml_scale.runs.state import home

WORKFLOW = """
version: 1
name: tiny
store: {folder}/store
cluster: none
stages:
  t: {{kind: ingest, source: {folder}/t.csv, row: {{dim: r, chunk: 2}}}}
  check: {{kind: validate, input: t, rules: [{{missing: {{of: b, at_most: 0, else: warn}}}}]}}
  picky: {{kind: map, function: 'event_log_functions:picky', over: {{range: 4}}}}
"""
FUNCTIONS = "def picky(x):\n    if x == {bad}:\n        raise KeyError(x)\n    return x\n"


@pytest.fixture
def workflow(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,\n5,6\n")
    (tmp_path / "event_log_functions.py").write_text(FUNCTIONS.format(bad=2))
    path = tmp_path / "tiny.yaml"
    path.write_text(WORKFLOW.format(folder=tmp_path))
    return path


def logs() -> list[Path]:
    return sorted(home().glob("runs/*/events.jsonl"), key=lambda path: path.stat().st_mtime_ns)


def test_a_run_leaves_its_events_with_their_reasons(workflow, tmp_path):
    assert main(["run", str(workflow), "--quiet"]) == 1
    (log,) = logs()
    assert path_of(home(), log.parent.name) == log
    found = [json.loads(line) for line in log.read_text().splitlines()]
    assert (found[0]["event"], found[-1]["event"]) == ("run_started", "run_finished")
    assert {event["run"] for event in found} == {log.parent.name}
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)
    planned = [event["reasons"] for event in found if event["event"] == "stage_planned" and event["stage"] == "picky"]
    assert planned == [{"new": 4}]
    failed = [event for event in found if event["event"] == "units_committed" and event["failed"]]
    assert [(event["stage"], event["reasons"]) for event in failed] == [("picky", {"KeyError": 1})]
    warned = next(event for event in found if event["event"] == "warned")
    assert "missing" in warned["message"]
    finished = next(event for event in found if event["event"] == "stage_finished" and event["stage"] == "picky")
    assert finished["state"] == "failed"
    assert "KeyError: 2" in finished["message"]
    assert (found[-1]["state"], found[-1]["exit_code"]) == ("failed", 1)
    # The next run says why each unit runs.
    (tmp_path / "event_log_functions.py").write_text(FUNCTIONS.format(bad=77))
    assert main(["run", str(workflow), "--quiet"]) == 0
    events = list(read(logs()[-1]))
    reasons = [event.reasons for event in events if isinstance(event, StagePlanned) and event.stage == "picky"]
    assert reasons[0] == {"code changed": 4}
    assert sum(event.units for event in events if isinstance(event, UnitsCommitted) and event.stage == "picky") == 5


def test_every_event_is_in_the_file_at_once_and_a_later_writer_appends(tmp_path):
    path = tmp_path / "a" / "events.jsonl"
    for number in range(2):
        with EventLog(path, note=pytest.fail) as log:
            log.sink(Warned(time=number, run="r", stage="s", message='a "quoted"\nline'))
            assert len(path.read_text().splitlines()) == number + 1
    assert [event.time for event in read(path)] == [0, 1]
    assert next(iter(read(path))).message == 'a "quoted"\nline'


def test_a_log_that_cannot_be_made_says_so_and_the_run_goes_on(tmp_path):
    (tmp_path / "file").write_text("")
    told = []
    with EventLog(tmp_path / "file" / "events.jsonl", note=told.append) as log:
        log.sink(Warned(time=0, stage="s", message="m"))
    assert len(told) == 1
    assert "events.jsonl cannot be written (" in told[0]
    assert "not logged from here on" in told[0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_ends_the_log_and_not_the_run():
    told = []
    with EventLog(Path("/dev/full"), note=told.append) as log:
        for _ in range(3):
            log.sink(Warned(time=0, stage="s", message="m"))
    assert told == [
        "/dev/full cannot be written (No space left on device); events of this run are not logged from here on"
    ]


def test_torn_and_unknown_lines_are_passed_over(tmp_path):
    path = tmp_path / "events.jsonl"
    good = json.dumps(Warned(time=1, stage="s", message="m").to_dict())
    path.write_text(f'{good}\n{{"event": "from_the_future", "time": 2}}\n[]\n{{"event": "warned"}}\n{good[:-9]}')
    assert [event.time for event in read(path)] == [1]
