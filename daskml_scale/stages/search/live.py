"""The trials of a running search as a table that follows it, in a terminal or a notebook; nothing anywhere else.

Shown with ``verbose=1`` or more. It reads what the search tells it and decides nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

ROWS = 10
"""Best trials shown."""
PER_SECOND = 4


@dataclass
class Live:
    """What is shown of one search.

    Attributes
    ----------
    done, total : int
        Fits of this round; the total is 0 where nobody knows it.
    best : dict of trial to (rung, resource, score, parameters)
    """

    name: str
    done: int = 0
    total: int = 0
    best: dict[int, tuple[int, int, float, str]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    screen: Any = None

    def fits(self, done: int, total: int) -> None:
        """So many fits of a round are done."""
        self.done, self.total = done, total
        self._show()

    def rung(self, trial: int, rung: int, resource: int, score: float, params: Mapping[str, Any]) -> None:
        """A trial has the score of a rung."""
        shown = ", ".join(f"{name}={_text(value)}" for name, value in params.items())
        self.best[trial] = rung, resource, score, shown
        self.done += 1
        self._show()

    def table(self) -> Any:
        """Return what is shown now."""
        from rich.table import Table

        of = f" of {self.total:,}" if self.total else ""
        title = f"{self.name}: {self.done:,}{of} done, {time.monotonic() - self.began:,.0f} s"
        found = Table(title=title, title_justify="left")
        if self.best:
            for column in ("trial", "rung", "resource", "score", "parameters"):
                found.add_column(column, justify="left" if column == "parameters" else "right")
            for trial, (rung, resource, score, params) in self._ranked()[:ROWS]:
                found.add_row(str(trial), str(rung), f"{resource:,}", f"{score:.5g}", params)
        return found

    def _ranked(self) -> list[tuple[int, tuple[int, int, float, str]]]:
        def place(entry: tuple[int, tuple[int, int, float, str]]) -> tuple[int, float]:
            rung, _, score, _ = entry[1]
            return -rung, math.inf if math.isnan(score) else -score

        return sorted(self.best.items(), key=place)

    def _show(self) -> None:
        if self.screen is not None:
            self.screen.update(self.table())


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
    from rich.live import Live as Screen

    console = Console()
    if not (console.is_terminal or console.is_jupyter):
        yield live
        return
    with Screen(live.table(), console=console, refresh_per_second=PER_SECOND) as screen:
        live.screen = screen
        yield live
        live.screen = None
