"""What the page shows, as text."""

from __future__ import annotations

import pytest

from daskml_scale import events
from daskml_scale.dashboard import view
from daskml_scale.dashboard.board import Runs
from daskml_scale.dashboard.progress import Progress, StageProgress

HOSTILE = "<script>alert(1)</script>&'\""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert view.duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(0, ""), (1234.5, "1,234/s"), (3.25, "3.25/s"), (0.5, "30/min"), (0.001, "3.6/h"), (1e-9, "")]
)
def test_rates_read_well(rate: float, text: str) -> None:
    assert view.pace(rate) == text


def test_every_bar_is_whole_and_has_its_label() -> None:
    stages = (
        StageProgress("a", state="ok", units=2, done=2, reused=2, wall=3.0),
        StageProgress("b", state="running", units=6, done=2, failed=1, reused=2, later=2),
        StageProgress("c"),
        StageProgress("d", state="ok", reused=4),
    )
    data = view.bars(Progress(stages=stages), now=10.0)
    for i in range(len(stages)):
        assert sum(data[share][i] for share in view.SHARES) == pytest.approx(1.0)
    assert [data[share][1] for share in view.SHARES] == [0.2, 0.2, 0.1, 0.3, 0.2]
    assert data["label"] == [
        "4 / 4  ·  ok  ·  3.0 s",
        "4 / 10  ·  1 failed  ·  running",
        "waiting",
        "4 / 4  ·  ok  ·  all reused",
    ]
    assert data["y"] == [0, -1, -2, -3]


def test_what_users_name_is_escaped_in_all_html() -> None:
    progress = Progress(
        run=HOSTILE, workflow=HOSTILE, state=HOSTILE, message=HOSTILE, stages=(StageProgress(HOSTILE, HOSTILE),)
    )
    other = Progress(run=HOSTILE + "2", workflow=HOSTILE)
    warned = events.Warned(time=1.0, stage=HOSTILE, message=HOSTILE)
    scaled = events.Scaled(time=1.0, worker_class=HOSTILE, have=1, need=2, backlog_seconds=1.0, reason=HOSTILE)
    html = (
        view.header(progress, Runs((progress, other)), 5.0, 1, {"units": 3, "seconds": 4.0})
        + view.warnings([warned])
        + view.decisions([scaled])
        + view.unknown(HOSTILE)
    )
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#x27;&quot;") == 11
    assert "href='?run=%3Cscript%3E" in html
    assert "3 units in the backlog (4.0 s of work)" in html


def test_the_canvas_sees_no_tex() -> None:
    assert view.plain(r"a $$\alpha$$ \(b\) \[c\]").count("\u200b") == 4
    assert view.plain("features") == "features"


def test_a_silent_run_says_so() -> None:
    progress = Progress(run="r", state="running", started=100.0, updated=160.0)
    assert "no event for" not in view.header(progress, Runs((progress,)), 200.0, 1, None)
    assert "no event for 2 min 00 s" in view.header(progress, Runs((progress,)), 300.0, 1, None)


def test_without_a_run_the_page_says_how_to_start_one() -> None:
    assert "daskml-scale run" in view.header(None, Runs(), 1.0, 4, None)
