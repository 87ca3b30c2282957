"""The Bokeh documents ``/workflow`` and ``/individual-workflow``: one stacked bar per stage, and details.

Runs on the scheduler, once per browser session. It draws the columns that :mod:`.view` computes and
sends them only when they changed. It decides nothing and reads only the workflow plugin's state.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from daskml_scale.dashboard import private, state, view
from daskml_scale.dashboard.board import Runs
from daskml_scale.dashboard.progress import Progress

if TYPE_CHECKING:
    from bokeh.document import Document

PERIOD_MS = 500
_REFRESH = 2.0
"""Seconds after which rates and times are shown anew when no event came."""
_ROW = 25
_FONT = {"font-family": "Helvetica, Arial, sans-serif", "font-size": "13px"}
_WIDTHS = {"stage": 140, "kind": 90, "state": 80, "rows": 100, "wall": 90, "kernel": 90, "why": 260}
_TITLES = {"wall": "time", "kernel": "kernel time", "why": "why, or message"}


class WorkflowView:
    """The models of one browser session.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    run : str
        The run to show; empty follows the newest.
    """

    def __init__(self, scheduler: Any, run: str = "") -> None:
        from bokeh.layouts import column, row
        from bokeh.models import ColumnDataSource, Div

        self.scheduler, self.run = scheduler, run
        self.version, self.shown = -1, 0.0

        def div(name: str) -> Any:
            return Div(text="", name=name, sizing_mode="stretch_width", styles=_FONT, disable_math=True)

        self.bars = ColumnDataSource(view.bars(Progress(), 0), name="stages")
        self.rows = ColumnDataSource(view.table(Progress(), 0), name="table")
        self.header, self.legend = div("header"), div("legend")
        self.scaling, self.warnings = div("scaling"), div("warnings")
        self.legend.text = view.legend()
        self.figure = self._figure()
        self.table = self._table()
        self.details = column(
            self.legend,
            self.figure,
            self.table,
            row(self.scaling, self.warnings, sizing_mode="stretch_width", spacing=30),
            sizing_mode="stretch_width",
            spacing=8,
        )
        self.root = column(self.header, self.details, sizing_mode="stretch_width", spacing=10, margin=(6, 14, 10, 14))

    def _figure(self) -> Any:
        from bokeh.models import FixedTicker, LinearAxis, Range1d
        from bokeh.plotting import figure

        plot = figure(
            height=_ROW,
            sizing_mode="stretch_width",
            x_range=Range1d(0, 1),
            y_range=Range1d(-0.5, 0.5),
            tools="",
            toolbar_location=None,
            outline_line_color=None,
            min_border_top=0,
            min_border_bottom=0,
            min_border_right=220,  # labels change, bars should not move
        )
        plot.hbar_stack(
            list(view.SHARES), y="y", height=0.68, color=list(view.COLORS), line_color=None, source=self.bars
        )
        plot.add_layout(LinearAxis(), "right")
        plot.grid.visible = plot.xaxis.visible = False
        for axis, size in ((plot.yaxis[0], "13px"), (plot.yaxis[1], "12px")):
            axis.ticker = FixedTicker(ticks=[])
            axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = None
            axis.major_label_text_font, axis.major_label_text_font_size = "Helvetica, Arial, sans-serif", size
            axis.major_label_text_color = "#6b7076"
        return plot

    def _table(self) -> Any:
        from bokeh.models import DataTable, NumberFormatter, StringFormatter, TableColumn

        numbers = ("units", "reused", "committed", "failed", "rows")
        columns = [
            TableColumn(
                field=name,
                title=_TITLES.get(name, name),
                width=_WIDTHS.get(name, 70),
                formatter=NumberFormatter(format="0,0", text_align="right", null_format="")
                if name in numbers
                else StringFormatter(),
            )
            for name in view.TABLE
        ]
        return DataTable(
            source=self.rows,
            columns=columns,
            index_position=None,
            selectable=False,
            reorderable=False,  # would need jquery-ui
            sizing_mode="stretch_width",
            stylesheets=[".bk-data-table { z-index: 0; }"],  # the navigation's menu stays above
        )

    def update(self) -> None:
        """Show the plugin's state; sends nothing when nothing changed."""
        version, runs = state.runs(self.scheduler)
        now = time.time()
        if version == self.version and now - self.shown < _REFRESH:
            return
        self.version, self.shown = version, now
        progress = (runs.get(self.run) if self.run else None) or runs.newest
        head = view.header(progress, runs, now, private.workers(self.scheduler), state.backlog(self.scheduler))
        if self.run and progress is not None and progress.run != self.run:
            head += f"<div style='margin-top:5px'>{view.unknown(self.run)}</div>"
        _assign(self.header, text=head)
        self._show(progress or Progress(), runs, now)

    def _show(self, progress: Progress, runs: Runs, now: float) -> None:
        bars, rows = view.bars(progress, now), view.table(progress, now)
        count = len(bars["y"])
        _assign(self.details, visible=count > 0)
        if bars != self.bars.data:
            self.bars.data = bars
        for axis, key in ((self.figure.yaxis[0], "name"), (self.figure.yaxis[1], "label")):
            texts = dict(zip(bars["y"], map(view.plain, bars[key]), strict=True))
            _assign(axis, major_label_overrides=texts)
            _assign(axis.ticker, ticks=bars["y"])
        if count:
            _assign(self.figure.y_range, start=-count + 0.5, end=0.5)
            _assign(self.figure, height=_ROW * count)
            _assign(self.table, height=min(12, count + 1) * 25 + 6)
        if rows != self.rows.data:
            self.rows.data = rows
        _assign(self.scaling, text=view.decisions(runs.scaled))
        _assign(self.warnings, text=view.warnings(progress.warnings))


def _assign(model: Any, **values: Any) -> None:
    """Set only what differs: Bokeh sends every assignment."""
    for name, value in values.items():
        if getattr(model, name) != value:
            setattr(model, name, value)


def _document(scheduler: Any, doc: Document) -> None:
    context = doc.session_context
    asked = context.request.arguments.get("run", [b""])[0] if context is not None and context.request else b""
    shown = WorkflowView(scheduler, asked.decode("utf-8", "replace"))
    shown.update()
    doc.add_root(shown.root)
    doc.add_periodic_callback(shown.update, PERIOD_MS)
    doc.title = "Dask: Workflow"


def workflow_doc(scheduler: Any, variables: Mapping[str, Any], doc: Document) -> None:
    """Fill ``/workflow``: the page with Dask's navigation; ``?run=ID`` picks a run."""
    _document(scheduler, doc)
    private.look(doc, variables, navigation=True)


def individual_workflow_doc(scheduler: Any, variables: Mapping[str, Any], doc: Document) -> None:
    """Fill ``/individual-workflow``: the same without navigation, for a pane of JupyterLab."""
    _document(scheduler, doc)
    private.look(doc, variables, navigation=False)


PAGES = {"/workflow": workflow_doc, "/individual-workflow": individual_workflow_doc}
