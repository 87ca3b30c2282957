"""The trials of a running search as a table that follows it, in a terminal or a notebook, and on the page of a cluster.

The table is shown with ``verbose=1`` or more. It reads what the search tells it and decides nothing; drawn a few times
a second at most, however many trials end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from daskml_scale.html import table as html_table
from daskml_scale.stages.cell import Cell, Drawing

from .told import Told

ROWS = 10
"""Best trials shown."""
PER_SECOND = 4
COLUMNS = ("trial", "rung", "resource", "score", "parameters")


@dataclass
class Live:
    """What is shown of one search.

    Attributes
    ----------
    done, total : int
        Fits of this round; the total is 0 where nobody knows it.
    best : dict of trial to (rung, resource, score, parameters)
        The resource is 0 where nothing grows.
    draw : callable or None
        Shows what is there now.
    told : Told or None
        Is told the same, for the page.
    """

    name: str
    done: int = 0
    total: int = 0
    best: dict[int, tuple[int, int, float, str]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    draw: Callable[[], None] | None = None
    drawn: float = 0.0
    told: Told | None = None

    @property
    def followed(self) -> bool:
        """Whether anybody looks."""
        return self.draw is not None or self.told is not None

    def begin(self, done: int, total: int) -> None:
        """A round begins, of which so many fits were made before."""
        self.best.clear()  # each round counts its candidates from 0
        self.done, self.total = done, total
        if self.told is not None:
            self.told.planned(total - done, done)

    def fits(self, done: int, total: int) -> None:
        """So many fits of a round are done."""
        if self.told is not None:
            self.told.committed(done - self.done)
        self.done, self.total = done, total
        self._show()

    def rung(self, trial: int, rung: int, resource: int, score: float, params: Mapping[str, Any]) -> None:
        """A trial has the score of a rung."""
        if not self.followed:
            return
        self.trial(trial, score, params, rung, resource)
        if self.told is not None:
            self.told.committed(1)
        self.done += 1
        self._show()

    def trial(self, trial: int, score: float, params: Mapping[str, Any], rung: int = 0, resource: int = 0) -> None:
        """A trial has a score; shown with what is told next."""
        shown = ", ".join(f"{name}={_text(value)}" for name, value in params.items())
        if self.told is not None:
            self.told.score(trial, rung, score, shown)
        if self.draw is not None:
            self.best[trial] = rung, resource, score, shown

    @property
    def title(self) -> str:
        """What is done, in a line."""
        of = f" of {self.total:,}" if self.total else ""
        return f"{self.name}: {self.done:,}{of} done, {time.monotonic() - self.began:,.0f} s"

    def rows(self) -> list[tuple[str, ...]]:
        """Return the best trials as text, the furthest first."""
        return [
            (str(trial), str(rung) if resource else "", f"{resource:,}" if resource else "", f"{score:.5g}", params)
            for trial, (rung, resource, score, params) in self._ranked()[:ROWS]
        ]

    def table(self) -> Any:
        """Return what a terminal shows."""
        from rich.table import Table

        found = Table(title=self.title, title_justify="left")
        if self.best:
            for column in COLUMNS:
                found.add_column(column, justify="left" if column == "parameters" else "right")
        for row in self.rows():
            found.add_row(*row)
        return found

    def html(self) -> str:
        """Return what a notebook shows."""
        return html_table(list(COLUMNS) if self.best else [], self.rows(), title=self.title)

    def drawing(self) -> Drawing:
        """Return both that and the same as text."""
        rows = [COLUMNS, *self.rows()] if self.best else []
        return Drawing(self.html(), "\n".join([self.title, *("  ".join(row) for row in rows)]))

    def _ranked(self) -> list[tuple[int, tuple[int, int, float, str]]]:
        def place(entry: tuple[int, tuple[int, int, float, str]]) -> tuple[int, float]:
            rung, _, score, _ = entry[1]
            return -rung, math.inf if math.isnan(score) else -score

        return sorted(self.best.items(), key=place)

    def _show(self) -> None:
        now = time.monotonic()
        if self.draw is not None and now - self.drawn >= 1 / PER_SECOND:
            self.drawn = now
            self.draw()


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:30]


@contextmanager
def shown(name: str, wanted: bool) -> Iterator[Live]:
    """Follow a search while the block runs, when somebody wants that and can see it."""
    live = Live(name)
    if not wanted:
        yield live
        return
    from rich.console import Console

    console = Console()
    if console.is_jupyter:
        with _in_notebook(live):
            yield live
    elif console.is_terminal:
        with _on_terminal(live, console):
            yield live
    else:
        yield live


@contextmanager
def _on_terminal(live: Live, console: Any) -> Iterator[None]:
    from rich.live import Live as Screen

    with Screen(live.table(), console=console, auto_refresh=False) as screen:
        live.draw = lambda: screen.update(live.table(), refresh=True)
        try:
            yield
        finally:
            live.draw()


@contextmanager
def _in_notebook(live: Live) -> Iterator[None]:
    cell = Cell(widgets=False)  # a table, whose last state is what one wants to keep
    live.draw = lambda: cell.show(live.drawing())
    live.draw()
    try:
        yield
    finally:
        live.draw()
