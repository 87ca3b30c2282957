"""Progress in a notebook, for work that takes longer than a second and that nobody else watches.

Events are folded into lines; a thread of its own draws them a few times a second at most, and first after a second of
work, whether or not an event comes. So neither the work nor an event loop draws, and work that says nothing for long is
shown too. `cell` is where it is drawn. Elsewhere than in a kernel nothing is shown.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sized
from typing import Any, Protocol, TypeVar

from daskml_scale import events
from daskml_scale.html import escape

from .cell import Cell, Drawing

logger = logging.getLogger("daskml_scale.stages")

AFTER = 1.0
"""Seconds before anything is shown."""
EVERY = 0.5
"""Seconds between two drawings."""
MOST_ROWS = 40

G = TypeVar("G", bound=Sized)


class Output(Protocol):
    """Where drawings go, such as `cell.Cell`."""

    def show(self, drawing: Drawing) -> None: ...

    def end(self, drawing: Drawing) -> None: ...


class Lines:
    """What is shown: a line for each stage, folded from events."""

    def __init__(self) -> None:
        self.title, self.of_run = "", False
        self.rows: dict[str, dict[str, Any]] = {}

    def take(self, event: events.Event) -> bool:
        """Take an event; return whether the work is over with it."""
        if isinstance(event, events.RunStarted):
            self.title, self.of_run = event.workflow, True
            self.rows = {name: _row("waiting") for name, _ in event.stages}
        elif isinstance(event, events.StageStarted):
            self.rows[event.stage] = _row("running")
        elif isinstance(event, (events.StagePlanned, events.UnitsCommitted, events.StageFinished)):
            self._count(self.rows.setdefault(event.stage, _row("running")), event)
        return isinstance(event, events.RunFinished if self.of_run else events.StageFinished)

    def _count(
        self, row: dict[str, Any], event: events.StagePlanned | events.UnitsCommitted | events.StageFinished
    ) -> None:
        if isinstance(event, events.StagePlanned):
            row["total"] += event.units + event.reused
            row["done"] += event.reused
            row["later"] = event.later
        elif isinstance(event, events.UnitsCommitted):
            row["done"] += event.units
            row["failed"] += event.failed
        else:
            row.update(state=event.state, seconds=event.seconds, later=0)
            if event.state == "ok":
                row.update(total=event.units, done=max(0, event.units - row["failed"]))

    def _told(self) -> list[tuple[str, str, float, str]]:
        found = []
        for name, row in list(self.rows.items())[-MOST_ROWS:]:
            total = row["total"] + row["later"]
            counts = f"{row['done']:,} / {total:,}" if total else f"{row['done']:,}" if row["done"] else ""
            failed = f", {row['failed']:,} failed" if row["failed"] else ""
            took = f", {row['seconds']:.1f} s" if row["seconds"] else ""
            found.append((name, row["state"], _share(row), counts + failed + took))
        return found

    def drawing(self, seconds: float) -> Drawing:
        """Return the stages as a table with bars, and as text, so long after the beginning."""
        ended = sum(row["state"] not in ("waiting", "running") for row in self.rows.values())
        stages = f"{ended} of {len(self.rows)} stages, " if len(self.rows) > 1 else ""
        title = f"{self.title}: {stages}{seconds:,.0f} s" if self.title else f"{stages}{seconds:,.0f} s"
        told = self._told()
        lines = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(state)}</td><td style='min-width:12em'>"
            f"<progress max='1' value='{share:.4f}' aria-label='{escape(name)}: {share:.0%}'></progress></td>"
            f"<td style='text-align:right'>{escape(counts)}</td></tr>"
            for name, state, share, counts in told
        )
        head = "<thead><tr><th>stage</th><th>state</th><th></th><th>units</th></tr></thead>"
        rows = [f"{name:20} {state:11} {'#' * round(20 * share):20} {counts}" for name, state, share, counts in told]
        return Drawing(
            html=f"<div>{escape(title)}</div><table>{head}{lines}</table>",
            text="\n".join([title, *rows]),
            share=sum(map(_share, self.rows.values())) / max(1, len(self.rows)),
            failed=any(row["failed"] or row["state"] == "failed" for row in self.rows.values()),
        )


def _row(state: str) -> dict[str, Any]:
    return {"state": state, "total": 0, "done": 0, "failed": 0, "later": 0, "seconds": 0.0}


def _share(row: dict[str, Any]) -> float:
    total = row["total"] + row["later"]
    return min(1.0, row["done"] / total) if total else float(row["state"] in ("ok", "skipped"))


class Shown:
    """A sink that shows stages as they go on.

    Parameters
    ----------
    output : Output
    after : float
        Seconds of work before anything is shown.
    every : float
        Seconds between two drawings.
    """

    def __init__(self, output: Output, after: float = AFTER, every: float = EVERY) -> None:
        self.output, self.after, self.every = output, after, every
        self.lines, self.lock = Lines(), threading.Lock()
        self.began, self.drawn = 0.0, Drawing("", "")
        self.thread: threading.Thread | None = None
        self.stop = threading.Event()

    def __call__(self, event: events.Event) -> None:
        """Take an event; what cannot be shown is no failure of the work."""
        with self.lock:
            over = self.lines.take(event)
        if over:
            self._end()
        elif self.thread is None and isinstance(event, (events.RunStarted, events.StageStarted)):
            self._begin()

    def _begin(self) -> None:
        self.began, self.stop = time.monotonic(), threading.Event()
        here = contextvars.copy_context()  # a kernel knows by it to which cell an output belongs
        self.thread = threading.Thread(target=here.run, args=(self._paint,), name="daskml-progress", daemon=True)
        self.thread.start()

    def _paint(self) -> None:
        wait = self.after
        while not self.stop.wait(wait):
            self._draw(self.output.show)
            wait = self.every

    def _end(self) -> None:
        thread, self.thread = self.thread, None
        if thread is None:
            return
        self.stop.set()
        thread.join()
        if self.drawn.html or time.monotonic() - self.began >= self.after:
            self._draw(self.output.end, last=True)

    def _draw(self, show: Callable[[Drawing], None], last: bool = False) -> None:
        with self.lock:
            drawing = self.lines.drawing(time.monotonic() - self.began)
        if drawing == self.drawn and not last:
            return
        self.drawn = drawing
        try:
            show(drawing)
        except Exception as error:
            logger.info("Progress is not shown: %s: %s", type(error).__name__, error)


def sink(given: events.Sink) -> events.Sink:
    """Return the sink to use: the one given, or, where nobody listens and a notebook does, one that shows progress."""
    shell = sys.modules.get("IPython")
    if given is not events.ignore or shell is None or not hasattr(shell.get_ipython(), "kernel"):
        return given
    return Shown(Cell())


def follow(name: str, kind: str, total: int | None, groups: Iterator[G]) -> Iterator[G]:
    """Return the groups of outcomes of a call that tells no events; a notebook is shown how many there were."""
    told = sink(events.ignore)
    return groups if told is events.ignore else _followed(told, name, kind, total, groups)


def _followed(told: events.Sink, name: str, kind: str, total: int | None, groups: Iterator[G]) -> Iterator[G]:
    began, done, state = time.time(), 0, "interrupted"
    told(events.StageStarted(time=began, stage=name, stage_kind=kind))
    told(events.StagePlanned(time=began, stage=name, units=total or 0, reused=0))
    try:
        for group in groups:
            done += len(group)
            told(events.UnitsCommitted(time=time.time(), stage=name, units=len(group)))
            yield group
        state = "ok"
    except Exception:
        state = "failed"
        raise
    finally:
        groups.close()  # type: ignore[attr-defined]
        took = time.time() - began
        told(events.StageFinished(time=time.time(), stage=name, state=state, seconds=took, units=done, reused=0))
