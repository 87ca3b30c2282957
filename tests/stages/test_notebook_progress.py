"""Progress in a notebook: what is drawn, when, from which thread, and that no failure of drawing is one of the work."""

from __future__ import annotations

import threading

import pytest

from daskml_scale import events
from daskml_scale.stages import cell
from daskml_scale.stages.cell import Drawing
from daskml_scale.stages.notebook import Lines, Shown

NAME = "<b>x</b>"
LONG = 3600.0


class Kept:
    """An output that keeps what it was given, and by whom."""

    def __init__(self) -> None:
        self.drawn: list[Drawing] = []
        self.ended: list[Drawing] = []
        self.threads: set[threading.Thread] = set()
        self.first = threading.Event()

    def show(self, drawing: Drawing) -> None:
        self.drawn.append(drawing)
        self.threads.add(threading.current_thread())
        self.first.set()

    def end(self, drawing: Drawing) -> None:
        self.ended.append(drawing)


def started(*, units: int = 8) -> list[events.Event]:
    return [
        events.StageStarted(time=1.0, stage=NAME, stage_kind="map"),
        events.StagePlanned(time=1.0, stage=NAME, units=units, reused=2),
    ]


def committed(units: int, failed: int = 0) -> events.Event:
    return events.UnitsCommitted(time=1.0, stage=NAME, units=units, failed=failed)


def finished(state: str = "ok", units: int = 10) -> events.Event:
    return events.StageFinished(time=1.0, stage=NAME, state=state, seconds=2.0, units=units, reused=2)


def test_a_line_counts_a_stage_and_is_escaped() -> None:
    lines = Lines()
    assert not any(lines.take(event) for event in [*started(), committed(3, failed=1)])
    drawing = lines.drawing(61.4)
    assert "<b>" not in drawing.html
    assert "&lt;b&gt;x" in drawing.html
    assert "5 / 10, 1 failed" in drawing.html
    assert "5 / 10" in drawing.text
    assert drawing.text.startswith("61 s\n")
    assert (drawing.share, drawing.failed) == (0.5, True)
    assert lines.take(finished()), "a stage of no run is all of the work"
    assert "9 / 10, 1 failed, 2.0 s" in lines.drawing(62.0).text


def test_a_run_counts_its_stages_and_is_over_with_the_run() -> None:
    lines = Lines()
    stages = ((NAME, "map"), ("other", "map"))
    lines.take(events.RunStarted(time=1.0, run="r", workflow="<i>w</i>", store="s", stages=stages))
    assert not any(lines.take(event) for event in [*started(), committed(8), finished()])
    drawing = lines.drawing(5.0)
    assert drawing.text.startswith("<i>w</i>: 1 of 2 stages, 5 s\n")
    assert "<i>" not in drawing.html
    assert drawing.share == 0.5
    assert lines.take(events.RunFinished(time=1.0, run="r", state="succeeded", seconds=5.0, exit_code=0))


def test_work_that_is_soon_over_shows_nothing() -> None:
    output = Kept()
    shown = Shown(output, after=LONG)
    for event in [*started(), committed(8), finished()]:
        shown(event)
    assert output.drawn == output.ended == []
    assert shown.thread is None


def test_work_that_says_nothing_for_long_is_shown_from_another_thread() -> None:
    output = Kept()
    shown = Shown(output, after=0.0, every=0.01)
    shown(started()[0])
    assert output.first.wait(60)
    assert threading.current_thread() not in output.threads
    shown(finished("interrupted"))
    (last,) = output.ended
    assert "interrupted" in last.text
    assert not any(thread.is_alive() for thread in output.threads)


def test_many_events_are_few_drawings() -> None:
    output = Kept()
    shown = Shown(output, after=0.0, every=LONG)
    for event in started(units=5000):
        shown(event)
    assert output.first.wait(60)
    for _ in range(5000):
        shown(committed(1))
    shown(finished(units=5002))
    assert len(output.drawn) == 1
    assert "5,002 / 5,002" in output.ended[0].text


def test_what_cannot_be_drawn_is_no_failure_of_the_work() -> None:
    class Broken(Kept):
        def show(self, drawing: Drawing) -> None:
            super().show(drawing)
            raise RuntimeError("no front end")

        def end(self, drawing: Drawing) -> None:
            raise RuntimeError("no front end")

    output = Broken()
    shown = Shown(output, after=0.0, every=0.01)
    shown(started()[0])
    assert output.first.wait(60)
    shown(finished())
    assert shown.thread is None


def test_a_widget_holds_escaped_text_and_leaves_no_model_behind() -> None:
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")
    lines = Lines()
    for event in started():
        lines.take(event)
    made = cell._Widget(lines.drawing(1.0))
    lines.take(committed(3, failed=1))
    made.set(lines.drawing(2.0))
    parts = [made.box, made.bar, made.html]
    parts += [one.layout for one in parts] + [made.bar.style, made.html.style]
    texts = [str(value) for one in parts for value in one.get_state().values()]
    assert any("&lt;b&gt;x" in text for text in texts)
    assert not any("<b>" in text for text in texts)
    assert (made.bar.value, made.bar.bar_style) == (0.5, "danger")
    made.close()
    assert [one.comm for one in parts] == [None] * len(parts)
