"""Pictures: widths, words, literal text, and what a status or a summary says."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from daskml_scale.runs import show
from daskml_scale.runs.planning import StagePlanRow
from daskml_scale.runs.stage_lines import StageLines
from daskml_scale.runs.state import RunRecord, StageRecord
from daskml_scale.runs.words import clock, command, first_comment, near, plural, size, speed, took

RUN = RunRecord(
    id="flights-20261122-7f3a", workflow="flights", source="/data/flights.yaml", store="/data/runs/flights",
    cluster="local", command=("run", "flights"), cwd="/data", state="running", epoch=1, lease_until=1015.0, host="box",
    pid=7, created=999.0, started=1000.0, finished=None, exit_code=None, message="", log="", summary={},
    stages=(
        StageRecord("table", "ingest", "ok", units=17, done=17, reused=17, seconds=0.2),
        StageRecord("features", "features", "running", units=34, done=11, seconds=5.0, rate=2.2, eta=10.0),
        StageRecord("predict", "predict"),
    ),
)  # fmt: skip


def drawn(picture: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, markup=False)
    with console.capture() as captured:
        console.print(picture)
    return captured.get()


def written(picture: RenderableType) -> str:
    stream = io.StringIO()
    show.write(picture, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "watch", "words"),
    [
        (0, "0:00", "0.0 s"),
        (7.6, "0:07", "7.6 s"),
        (9.96, "0:09", "10 s"),
        (59.4, "0:59", "59 s"),
        (200, "3:20", "3:20 min"),
        (3723, "1:02:03", "1:02:03 h"),
        (3 * 86400 + 4 * 3600 + 300, "3d 04:05", "3d 04:05"),
    ],
)
def test_durations_are_read_at_a_glance(seconds, watch, words):
    assert clock(seconds) == watch
    assert took(seconds) == words


@settings(deadline=None)
@given(st.floats(0, 1e8))
def test_durations_and_rates_are_short(value):
    assert len(clock(value)) <= 12
    assert len(took(value)) <= 12
    assert len(speed(value)) <= 13


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0, ""), (0.01, "0.6/min"), (0.2, "0.2/s"), (4.13, "4.1/s"), (12.34, "12.3/s"), (12345.6, "12,346/s")],
)
def test_rates_have_two_or_three_digits(rate, text):
    assert speed(rate) == text


def test_counts_and_sizes_are_words():
    assert [plural(n, "unit") for n in (0, 1, 2000)] == ["0 units", "1 unit", "2,000 units"]
    assert [size(n) for n in (0, 500, 2048, 108 * 2**20, 5 * 2**40)] == ["-", "500 B", "2.0 KiB", "108 MiB", "5.0 TiB"]


def test_a_command_can_be_copied_from_anywhere():
    assert command(["run", "a b.yaml"]) == "daskml-scale run 'a b.yaml'"
    assert command(["run", "x"], "/my data", "/else") == "cd '/my data' && daskml-scale run x"
    assert command(["run", "x"], "/here", "/here") == "daskml-scale run x"


def test_paths_below_the_working_directory_are_short():
    assert near("/data/runs/x", "/data") == "runs/x"
    assert near("/database/x", "/data") == "/database/x"
    assert near("memory://x", "/data") == "memory://x"


@pytest.mark.parametrize(
    ("text", "comment"),
    [
        ("a: 1\nb: 2  # what it is\n# later", "what it is"),
        ("# top\na: 1", "top"),
        ("a: x#y", ""),
        ("#\n# second", "second"),
        ("", ""),
    ],
)
def test_the_first_comment_describes_a_file(text, comment):
    assert first_comment(text) == comment


stages = st.builds(
    StageRecord,
    name=st.text("abcdefgh_-", min_size=1, max_size=63),
    state=st.sampled_from(["waiting", "running", "ok", "failed", "interrupted"]),
    units=st.integers(0, 10**7),
    done=st.integers(0, 10**7),
    reused=st.integers(0, 10**7),
    failed=st.integers(0, 10**5),
    seconds=st.floats(0, 1e6),
    rate=st.floats(0, 1e5),
    eta=st.none() | st.floats(0, 1e8),
)


@settings(deadline=None)
@given(st.lists(stages, max_size=6), st.integers(60, 200))
def test_every_stage_is_one_line_within_the_terminal(listed, width):
    lines = drawn(StageLines(listed), width).splitlines()
    assert len([line for line in lines if line.strip()]) == len(listed)
    assert all(cell_len(line) <= width for line in lines)


def test_stage_lines_are_aligned_and_say_what_is_done():
    lines = [line.rstrip() for line in drawn(StageLines(RUN.stages)).splitlines()]
    assert lines[0].startswith("✓  table     ━━━━")
    assert lines[0].endswith("17/17  reused      0.2 s")
    assert lines[1].endswith("11/34   2.2/s  0:10 left")
    assert lines[2].split() == ["·", "predict"]
    assert lines[0].count("━") == 24
    assert lines[1].count("━") == 7


def test_failed_and_quarantined_units_have_different_colours():
    stages = [StageRecord("a", "predict", "running", 9, 5, failed=2), StageRecord("b", "predict", "ok", 9, 9)]
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard", markup=False)
    console.print(StageLines(stages, {"a": 3, "b": 4}))
    first, second = console.file.getvalue().splitlines()
    red, yellow = "\x1b[31m", "\x1b[33m"
    assert f"{red}2 failed" in first
    assert f"{yellow}3 bad" in first
    assert f"{yellow}4 quarantined" in second
    assert "quarantined" in drawn(StageLines(stages[1:], {"b": 4}), 60)


def test_a_stream_of_ascii_gets_ascii():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    show.write(show.status(RUN, 1005.0), stream)
    assert b"\n+  table" in stream.buffer.getvalue()  # type: ignore[attr-defined]


def test_status_of_a_running_run_tells_time_and_place():
    lines = written(show.status(RUN, 1042.0, "/data")).splitlines()
    assert lines[0] == "flights-20261122-7f3a  running  for 0:42"
    assert [line.split() for line in lines[1:5]] == [
        ["workflow", "flights.yaml"], ["store", "runs/flights"], ["cluster", "local"], ["process", "7", "on", "box"],
    ]  # fmt: skip
    assert not any("Go on with" in line for line in lines)


def test_status_of_a_lost_run_says_how_to_go_on_and_that_nothing_runs():
    text = written(show.status(replace(RUN, state="lost", log="/h/log.txt"), 1300.0, "/else"))
    assert text.startswith("flights-20261122-7f3a  lost  no sign of life for 4:45\n")
    assert "Its process is gone; committed work stays." in text
    assert "Go on with: cd /data && daskml-scale run flights\n" in text
    assert "/h/log.txt" in text
    assert " left" not in text


@pytest.mark.parametrize(
    ("state", "again"), [("failed", True), ("interrupted", True), ("succeeded", False), ("partial", False)]
)
def test_a_command_to_go_on_is_offered_where_there_is_something_left(state, again):
    text = written(show.status(replace(RUN, state=state, finished=1060.0, message="m"), 2000.0))
    assert ("Go on with" in text) is again
    assert "after 1:00 min" in text


def test_names_and_messages_are_taken_literally():
    text = written(show.status(replace(RUN, message="[red]x[/red] :smile: \\[", store="s3://a/[b]"), 1001.0))
    assert "[red]x[/red] :smile: \\[" in text
    assert "s3://a/[b]" in text
    assert "[red]" in written(show.columns(("a",), [("[red]",)]))


def test_long_text_is_not_cut_without_a_terminal():
    assert f"{'x' * 500}/end" in written(show.runs([replace(RUN, store="x" * 500 + "/end")], 1001.0))


def row(name: str, units: int, reused: int, rows: int = 1000, **more: object) -> dict[str, object]:
    return {"name": name, "kind": "k", "units": units, "reused": reused, "seconds": 2.0, "rows": rows, **more}


def summary(rows: list[dict[str, object]], **more: object) -> str:
    run = {"stages": rows, "metrics": {}, "rows_predicted": 0, "store": "/data/s", "seconds": 4.0, **more}
    return written(show.summary(run, "/data"))


def test_a_summary_counts_only_new_rows_for_speed():
    lines = summary([row("a", 10, 0), row("b", 10, 5), row("c", 10, 10), row("d", 1, 0, rows=0)]).splitlines()
    assert [line.split()[-1] for line in lines[1:5]] == ["500", "250", "-", "-"]
    assert "Done in 4.0 s, 15 of 31 units reused." in lines
    assert lines[-1] == "Results: s (these numbers: summary.json there)"


def test_a_summary_says_when_all_was_reused():
    assert "Everything was up to date: all 11 units were reused (4.0 s)." in summary([row("a", 10, 10), row("b", 1, 1)])
    assert "Everything" not in summary([row("a", 10, 9)])
    assert "Everything" not in summary([row("a", 0, 0)])


def test_a_summary_shows_scalar_metrics_predictions_bad_rows_and_warnings():
    metrics = {"roc_auc": 0.71234, "calibration": [1, 2], "of": {"x": 1}}
    text = summary(
        [row("p", 2, 0, bad_rows=3, warnings=("p: late",))], metrics=metrics, rows_predicted=336776
    )  # fmt: skip
    assert "roc_auc  0.7123\n" in text
    assert "calibration" not in text
    assert "Predictions for 336,776 rows. 3 rows could not be predicted and are marked as missing." in text
    assert "warning: p: late\n" in text


def test_a_plan_shows_units_memory_and_why():
    rows = [
        StagePlanRow("a", "ingest", 3, 1, 0, "4 chunks", 2048, {"new": 3}),
        StagePlanRow(
            "b", "predict", 3, 0, 0, "3 shards", 0, {"new": 1, "input changed": 2}, "its input is written by a"
        ),
        StagePlanRow("c", "predict", 0, 0, 1, "", 0, {}, "planned after b"),
    ]
    lines = written(show.plan(rows)).splitlines()
    assert lines[1].split(maxsplit=4)[:4] == ["a", "ingest", "3", "1"]
    assert lines[1].endswith("2.0 KiB  4 chunks; 3 of 4 units: new")
    assert lines[2].endswith("-  3 shards; 1 of 3 units: new, 2 of 3 units: input changed; its input is written by a")
    assert lines[3].endswith("-  planned after b")
    assert lines[-1] == "6 units to run, 1 reused. Nothing was written. Memory is per task."


def test_a_plan_in_80_columns_wraps_only_the_last_one():
    rows = [StagePlanRow("a" * 12, "features", 35, 0, 0, "17 chunks to scan, " * 4, 2**20, {"new": 35})]
    lines = [line.rstrip() for line in drawn(show.plan(rows)).splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("a" * 12)
    assert lines[2].startswith(" " * 30)


def test_the_list_of_runs_has_one_line_each():
    text = written(show.runs([RUN, replace(RUN, id="x", state="lost", started=None)], 1012.0, "/data"))
    first, second = text.splitlines()[1:]
    assert first.split()[:2] == ["flights-20261122-7f3a", "running"]
    assert first.split()[-3:] == ["1/3", "0:12", "runs/flights"]
    assert second.split()[-2:] == ["-", "runs/flights"]


@pytest.mark.parametrize("width", [40, 48, 60, 80])
def test_numbers_of_a_summary_are_never_broken(width):
    stages = [
        {"name": name, "units": 104, "reused": 35, "seconds": 97.1, "rows": 336_776 * 40}
        for name in ("check", "predictions")
    ]
    run = {"stages": stages, "metrics": {}, "rows_predicted": 0, "store": "s", "seconds": 3.0}
    lines = drawn(show.summary(run), width).splitlines()
    table = lines[: next(n for n, line in enumerate(lines) if not line.strip())]
    assert table[0].split()[-4:] == ["units", "reused", "seconds", "rows/s"]
    assert [line.split()[-4:] for line in table[1:] if len(line.split()) > 1] == [["104", "35", "97.1", "92,044"]] * 2
    assert "".join(line.split()[0] for line in table[1:]) == "checkpredictions"
    assert all(cell_len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_status_keeps_names_counts_and_times(width):
    stages = [StageRecord("predictions", state="running", units=12_000, done=9_999, rate=12.5, eta=75.0)]
    (line,) = drawn(StageLines(stages), width).splitlines()
    assert line.split()[1] == "predictions"
    assert "9,999/12,000" in line
    assert "1:15 left" in line
