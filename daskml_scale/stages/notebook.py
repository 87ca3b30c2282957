"""Progress in a notebook, for work that takes longer than a second and that nobody else watches.

An output that is updated in place, as HTML and as text: no widget, no script, so that it shows in Jupyter, in VS Code,
in a notebook that nobody trusts, and in what nbconvert makes of it. Elsewhere than in a kernel nothing is shown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sized
from typing import Any, TypeVar

from daskml_scale import events
from daskml_scale.html import escape

AFTER = 1.0
"""Seconds before anything is shown."""
EVERY = 0.5
"""Seconds between two drawings."""
MOST_ROWS = 40

G = TypeVar("G", bound=Sized)


class Shown:
    """A sink that shows stages as they go on.

    Parameters
    ----------
    display : callable (html, text) -> None
        Shows the first, and every later drawing in its place.
    clock : callable
        Seconds.
    """

    def __init__(self, display: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.display, self.clock = display, clock
        self.began, self.drawn = clock(), 0.0
        self.rows: dict[str, dict[str, Any]] = {}

    def __call__(self, event: events.Event) -> None:
        """Take an event; what cannot be shown is no failure of the work."""
        if isinstance(event, events.RunStarted):
            self.rows = {name: _row(kind, "waiting") for name, kind in event.stages}
        elif isinstance(event, events.StageStarted):
            self.rows[event.stage] = _row(event.stage_kind, "running")
        elif isinstance(event, (events.StagePlanned, events.UnitsCommitted, events.StageFinished)):
            self._count(self.rows.setdefault(event.stage, _row("", "running")), event)
        last = isinstance(event, (events.StageFinished, events.RunFinished))
        now = self.clock()
        if now - self.began >= AFTER and (last or now - self.drawn >= EVERY):
            self.drawn = now
            self.display(self.html(), self.text())

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

    def _lines(self) -> list[tuple[str, str, float, str]]:
        found = []
        for name, row in list(self.rows.items())[-MOST_ROWS:]:
            total = row["total"] + row["later"]
            share = row["done"] / total if total else float(row["state"] == "ok")
            counts = f"{row['done']:,} / {total:,}" if total else f"{row['done']:,}" if row["done"] else ""
            failed = f", {row['failed']:,} failed" if row["failed"] else ""
            took = f", {row['seconds']:.1f} s" if row["seconds"] else ""
            found.append((name, row["state"], min(1.0, share), counts + failed + took))
        return found

    def html(self) -> str:
        """Return the stages as a table with bars, all text escaped."""
        lines = "".join(
            f"<tr><td>{escape(name)}</td><td>{escape(state)}</td><td style='min-width:12em'>"
            f"<progress max='1' value='{share:.4f}' aria-label='{escape(name)}: {share:.0%}'></progress></td>"
            f"<td style='text-align:right'>{escape(counts)}</td></tr>"
            for name, state, share, counts in self._lines()
        )
        return f"<table><thead><tr><th>stage</th><th>state</th><th></th><th>units</th></tr></thead>{lines}</table>"

    def text(self) -> str:
        """Return the same as text."""
        return "\n".join(
            f"{name:20} {state:8} {'#' * round(20 * share):20} {counts}" for name, state, share, counts in self._lines()
        )


def _row(kind: str, state: str) -> dict[str, Any]:
    return {"kind": kind, "state": state, "total": 0, "done": 0, "failed": 0, "later": 0, "seconds": 0.0}


def sink(given: events.Sink) -> events.Sink:
    """Return the sink to use: the one given, or, where nobody listens and a notebook does, one that shows progress."""
    shell = sys.modules.get("IPython")
    if given is not events.ignore or shell is None or not hasattr(shell.get_ipython(), "kernel"):
        return given
    return Shown(_Output())


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


class _Output:
    """An output of a notebook's cell that is drawn anew in its place."""

    def __init__(self) -> None:
        self.handle: Any = None

    def __call__(self, html: str, text: str) -> None:
        from IPython.display import display

        bundle = {"text/html": html, "text/plain": text}
        if self.handle is None:
            self.handle = display(bundle, raw=True, display_id=True)
        else:
            self.handle.update(bundle, raw=True)
