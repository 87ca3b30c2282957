"""The runner of a submitted run that is a Job: its run, from what travelled with it, and what it tells outside.

It works as every run does, with a registry in the scratch folder of its Pod. What that registry hears, and the events,
go to standard output as lines of JSON between those for people: the log is all that is left of a Pod, and whoever
submitted the run copies it (`mirror`).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from daskml_scale.events import Event

from . import provenance
from .costs import Cost
from .event_log import kept
from .live import Silent
from .mirror import MARK
from .records import Registry
from .state import RunRecord, StageRecord

EVERY = 5.0
"""Seconds between two states in the log, which Kubernetes keeps only the newest 10 MiB of."""


class Teller:
    """Writes lines for programs, whole ones from every thread."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._lock = stream, threading.Lock()

    def __call__(self, kind: str, **values: Any) -> None:
        text = json.dumps({"daskml": kind, **values}, default=str)
        assert text.startswith(MARK)
        with self._lock:
            self._stream.write(f"{text}\n")
            self._stream.flush()


class ToldRegistry(Registry):
    """A registry that tells what it hears of the run at work."""

    def __init__(self, tell: Teller, path: Path | None = None) -> None:
        super().__init__(path)
        self._tell, self._last = tell, 0.0
        self._untold: dict[str, Any] | None = None

    def beat(
        self, run: str, epoch: int, *, now: float, stages: Sequence[StageRecord] | None = None, message: str = "",
        costs: Sequence[Cost] = (),
    ) -> bool:  # fmt: skip
        """Extend the lease, and tell how far the run is, now and then."""
        self._untold = _listed(stages, costs) if stages is not None else self._untold
        if self._untold is not None and time.monotonic() - self._last > EVERY:
            self._tell("state", **self._untold)
            self._last, self._untold = time.monotonic(), None
        return super().beat(run, epoch, now=now, stages=stages, message=message, costs=costs)

    def finish(
        self, run: str, epoch: int, *, now: float, state: str, exit_code: int, message: str = "",
        summary: dict[str, Any] | None = None, stages: Sequence[StageRecord] | None = None, costs: Sequence[Cost] = (),
    ) -> bool:  # fmt: skip
        """Write the end of the run, and tell it."""
        told = {"state": state, "exit_code": int(exit_code), "message": message, "finished": now}
        self._tell("end", **told, summary=summary or {}, **_listed(stages or (), costs))
        return super().finish(
            run, epoch, now=now, state=state, exit_code=exit_code, message=message, summary=summary, stages=stages,
            costs=costs,
        )  # fmt: skip


def _listed(stages: Sequence[StageRecord], costs: Sequence[Cost]) -> dict[str, Any]:
    return {"stages": [asdict(one) for one in stages], "costs": [asdict(one) for one in costs]}


class Told(Silent):
    """A view that also tells the events."""

    def __init__(self, shown: Silent, tell: Teller) -> None:
        self._shown, self._tell = shown, tell

    def __enter__(self) -> Told:
        self._shown.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.__exit__(kind, error, trace)

    def sink(self, event: Event) -> None:
        self._tell("event", event=kept(event))
        self._shown.sink(event)

    def note(self, text: str) -> None:
        self._shown.note(text)

    def stopping(self) -> None:
        self._shown.stopping()


def entered(environ: Mapping[str, str], tell: Teller) -> tuple[Registry, RunRecord]:
    """Enter the run that travelled to this Pod into its registry.

    Parameters
    ----------
    environ : mapping
        With ``DASKML_RUN``, the file about the run; what else travelled lies beside it.
    """
    told = Path(environ["DASKML_RUN"])
    folder, found = told.parent, json.loads(told.read_text())
    registry = ToldRegistry(tell)
    run = registry.create(
        given=found["id"], workflow=found["workflow"], source=str(folder / "code" / found["source"]),
        store=found["store"], cluster=str(folder / "cluster.yaml"), command=found["command"],
        cwd=environ["DASKML_DIRECTORY"], now=time.time(), owner=found["owner"], labels=found["labels"],
        options={key: value for key, value in found["options"].items() if key in ("settings", "sample", "again")},
    )  # fmt: skip
    provenance.write(registry.path.parent, run.id, json.loads((folder / "provenance.json").read_text()))
    return registry, run


def teller() -> Teller:
    """Return what writes to the log of this Pod."""
    return Teller(sys.stdout)
