"""``top``: one run as it goes on, on a terminal, from its registry and its log alone. Nothing is asked of the cluster.

The same numbers as on the page ``/workflow``. Where there is no terminal, a line is written whenever something changed.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import IO

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from daskml_scale.events import ClusterStarted, Event, Scaled, StageStarted, UnitsCommitted, Warned, from_dict

from .event_log import path_of
from .live import window
from .records import Registry
from .show import console, cost, state_text
from .stage_lines import StageLines
from .state import RunRecord
from .words import clock, plural

LOOK_SECONDS = 1.0
MOST_NOTES = 6
"""Last scaling decisions and warnings shown."""


class Tail:
    """What a log has said since it was looked at last.

    Attributes
    ----------
    notes : deque of str
        The last scaling decisions and warnings.
    seconds : float
        Kernel seconds of the units of this look and earlier ones.
    dashboard : str
    quarantined : dict of stage to units with rows that have no result
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.quarantined: dict[str, int] = {}
        self.notes: deque[str] = deque(maxlen=MOST_NOTES)
        self.seconds, self.dashboard = 0.0, ""
        self._at = 0

    def read(self) -> None:
        """Take the lines that were added; a line that is being written waits for the next look."""
        try:
            with self.path.open("rb") as log:
                log.seek(self._at)
                text = log.read()
        except OSError:
            return
        whole, newline, _ = text.rpartition(b"\n")
        self._at += len(whole) + len(newline)
        for line in whole.splitlines():
            try:
                event = from_dict(json.loads(line))
            except (ValueError, TypeError, AttributeError):
                continue
            self._take(event)

    def _take(self, event: Event | None) -> None:
        if isinstance(event, UnitsCommitted):
            self.seconds += event.seconds
            self.quarantined[event.stage] = self.quarantined.get(event.stage, 0) + event.quarantined
        elif isinstance(event, StageStarted):
            self.quarantined.pop(event.stage, None)
        elif isinstance(event, ClusterStarted):
            self.dashboard = event.dashboard
        elif isinstance(event, Scaled):
            starting = f" ({event.starting:,} starting)" if event.starting else ""
            change = f"{event.worker_class} {event.have:,} -> {event.need:,}{starting}"
            self.notes.append(f"{_moment(event.time)} {change}: {event.reason}")
        elif isinstance(event, Warned):
            self.notes.append(f"{_moment(event.time)} {event.stage}: {event.message}")


def frame(run: RunRecord, tail: Tail, now: float, height: int) -> RenderableType:
    """Return what a terminal of ``height`` lines shows of a run at ``now`` (seconds since the epoch)."""
    end = run.finished if run.finished is not None else now
    spent = clock(max(0.0, end - (run.started or run.created)))
    done, units = sum(stage.done for stage in run.stages), sum(stage.units for stage in run.stages)
    facts = [f"{done:,} of {plural(units, 'unit')}", f"{tail.seconds:,.0f} s of work"]
    known = [stage.eta for stage in run.stages if stage.state == "running" and stage.eta is not None]
    facts += [f"{clock(max(known))} left"] if known and run.live else []
    facts += [cost(run.summary["cost"])] if run.summary.get("cost") else []
    parts: list[RenderableType] = [
        Text.assemble((run.id, "bold"), "  ", state_text(run.state), f"  {spent}"),
        Text(", ".join(facts), "dim"),
    ]
    parts += [Text(tail.dashboard, "dim", no_wrap=True)] if tail.dashboard and run.live else []
    parts += [Text(run.message)] if run.message and not run.live else []
    room = max(3, height - len(parts) - len(tail.notes) - 4)
    shown = window([stage.state for stage in run.stages], room)
    if shown.before:
        parts.append(Text(f"  {plural(shown.before, 'stage')} above", "dim"))
    parts.append(StageLines(run.stages[shown.before : shown.before + shown.shown], tail.quarantined))
    if shown.after:
        parts.append(Text(f"  {plural(shown.after, 'stage')} below", "dim"))
    if tail.notes:
        parts += [Text(), *(Text(note, no_wrap=True, overflow="ellipsis") for note in tail.notes)]
    return Group(*parts)


def follow(registry: Registry, run: str, stream: IO[str], *, sleep: Callable[[float], None] = time.sleep) -> RunRecord:
    """Show a run until it has ended, and return it."""
    tail = Tail(path_of(registry.path.parent, run))
    target = console(stream)
    if not target.is_terminal:
        return _lines(registry, run, tail, stream, sleep)
    with Live(console=target, auto_refresh=False, screen=True) as screen:
        while True:
            now = time.time()
            found = registry.get(run, now=now)
            tail.read()
            screen.update(frame(found, tail, now, target.height), refresh=True)
            if not found.live:
                break
            sleep(LOOK_SECONDS)
    target.print(frame(found, tail, time.time(), 40))
    return found


def _lines(registry: Registry, run: str, tail: Tail, stream: IO[str], sleep: Callable[[float], None]) -> RunRecord:
    last = ""
    while True:
        found = registry.get(run, now=time.time())
        tail.read()
        stages = ", ".join(f"{one.name} {one.state} {one.done:,}/{one.units:,}" for one in found.stages)
        line = f"{found.id} {found.state}: {stages}"
        if line != last:
            stream.write(line + "\n")
            stream.flush()
            last = line
        if not found.live:
            return found
        sleep(LOOK_SECONDS)


def _moment(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when))
