"""What a run writes to standard error: without secrets, and as JSON where somebody asked for that."""

from __future__ import annotations

import json
import logging
import sys

import dask
import pytest

from daskml_scale import logs

SECRET = "s3://key:hunter2@host token=hunter2"


def record(**more: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "a.b", "levelname": "WARNING", "created": 0.25, "msg": "at %s", **more})
    made.args = (SECRET,)
    return made


def test_a_record_becomes_one_json_object_without_secrets() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        found = record(exc_info=sys.exc_info(), unit="rows/1", api_key="hunter2", odd={1, 2})
    text = logs.JsonLines(process="cpu-0").format(found)
    assert "hunter2" not in text
    assert "\n" not in text
    told = json.loads(text)
    assert (told["time"], told["level"], told["logger"]) == ("1970-01-01T00:00:00.250Z", "warning", "a.b")
    assert (told["process"], told["unit"], told["odd"]) == ("cpu-0", "rows/1", "{1, 2}")
    assert told["message"] == "at s3://key:***@host token=***"
    assert "ValueError: s3://key:***@host" in told["exception"]


def test_text_keeps_its_format_and_loses_its_secrets() -> None:
    text = logs.Redacted(logging.Formatter("%(name)s - %(message)s")).format(record())
    assert text == "a.b - at s3://key:***@host token=***"


def test_a_run_writes_json_lines_where_they_are_asked_for(command, folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.lastResort, "formatter", None)
    with dask.config.set({logs.SETTING: "json"}):
        code, out, err = command("run", "tiny.yaml")
    assert code == 0
    assert "Done in" in out, "the result is what it was"
    told = [json.loads(line) for line in err.splitlines()]
    assert {one["logger"] for one in told} == {"daskml_scale.run"}
    assert len({one["run"] for one in told}) == 1
    events = [one["event"] for one in told]
    assert (events[0], events[-1]) == ("run_started", "run_finished")
    assert [one["stage"] for one in told if one["event"] == "stage_finished"] == ["table", "check"]
    assert isinstance(logging.lastResort.formatter, logs.JsonLines)
