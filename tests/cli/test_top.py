"""``top``: a run as it goes on, from its registry and log; and what notebooks show."""

from __future__ import annotations

import io
import time

from rich.console import Console

from daskml_scale import events, redact
from daskml_scale.runs.event_log import EventLog, path_of, read
from daskml_scale.runs.records import Registry
from daskml_scale.runs.top import Tail, follow, frame


def test_top_shows_a_finished_run_and_exits_as_it_did(command, folder):
    assert command("run", "tiny.yaml")[0] == 0
    code, out, _ = command("top")
    assert code == 0
    assert "table ok 4/4, check ok 4/4" in out.splitlines()[-1].replace("  ", " ")
    assert '"state": "succeeded"' in command("top", "--json")[1]


def test_top_fits_a_small_terminal_and_names_scaling_and_warnings(command, folder):
    command("run", "tiny.yaml")
    registry = Registry()
    run = registry.get(None, now=time.time())
    log = path_of(registry.path.parent, run.id)
    with EventLog(log, print) as more:
        for number in range(9):
            more.sink(events.Warned(time=1.0, run=run.id, stage="table", message=f"warning {number}"))
        more.sink(
            events.Scaled(time=2.0, worker_class="cpu", have=1, need=4, backlog_seconds=9.0, reason="busy", starting=3)
        )
        more.sink(events.UnitsCommitted(time=2.0, run=run.id, stage="check", units=2, quarantined=2))
    tail = Tail(log)
    tail.read()
    tail.read()
    console = Console(file=io.StringIO(), width=80, height=14, force_terminal=True, color_system=None)
    console.print(frame(run, tail, time.time(), 14))
    said = console.file.getvalue()
    assert "cpu 1 -> 4 (3 starting): busy" in said
    assert "warning 8" in said
    assert "2 quarantined" in said
    assert "warning 2" not in said, "the last notes only"
    assert len(said.splitlines()) <= 14
    assert follow(registry, run.id, io.StringIO()).id == run.id


def test_the_log_holds_no_secrets_and_not_what_only_the_page_shows(tmp_path):
    cell = events.Cell(0, 1, 0, 0, 1.0, "u", "w", "new")
    link = "http://h:8787/workflow?run=r&token=abcDEF123"
    with EventLog(tmp_path / "log", print) as log:
        log.sink(events.ClusterStarted(time=1.0, run="r", cluster="c", dashboard=link))
        log.sink(events.UnitsCommitted(time=1.0, run="r", stage="s", units=1, cells=(cell,)))
        log.sink(events.Warned(time=1.0, stage="s", message="s3://key:hunter2@host password=hunter2 Bearer hunter2"))
    text = (tmp_path / "log").read_text()
    assert "abcDEF123" not in text
    assert "hunter2" not in text
    first, second, _ = read(tmp_path / "log")
    assert first.dashboard.endswith("?run=r&token=***")
    assert second.units == 1
    assert "cells" not in text
    assert redact.value({"api_key": "x", "tokens": 5, "key": "y"}) == {"api_key": "***", "tokens": 5, "key": "y"}
    assert redact.text("rows/00000003 took 3 s; monkey=4") == "rows/00000003 took 3 s; monkey=4"
