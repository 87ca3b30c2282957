"""The log of a run: ``runs/<id>/events.jsonl`` beside the registry, one event a line, each with its reason.

For people and for later reports; nothing is resumed from it. A run that is resumed appends. A log that
cannot be written any more never stops the work: it says so once and ends.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from daskml_scale import redact
from daskml_scale.events import Event, from_dict

NAME = "events.jsonl"


def path_of(home: Path, run: str) -> Path:
    """Return where the log of a run lies.

    Parameters
    ----------
    home : Path
        Folder of the registry.
    run : str
        Run id.
    """
    return home / "runs" / run / NAME


class EventLog:
    """Writes events as they happen; a context manager with a ``sink``.

    Parameters
    ----------
    path : Path
    note : callable
        Told once when the log cannot be written.
    """

    def __init__(self, path: Path, note: Callable[[str], None]) -> None:
        self.path, self.note = path, note
        self._file: IO[str] | None = None

    def __enter__(self) -> EventLog:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            self._give_up(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def sink(self, event: Event) -> None:
        """Write an event; it is in the file when this returns."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(kept(event), default=str) + "\n")
            self._file.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # what a full disk left in the buffer
                file.close()

    def _give_up(self, error: Exception) -> None:
        self._close()
        why = getattr(error, "strerror", None) or str(error)
        self.note(f"{self.path} cannot be written ({why}); events of this run are not logged from here on")


def kept(event: Event) -> Any:
    """Return what is logged of an event: no secrets, and not what only the page shows (the ledger has it)."""
    data = event.to_dict()
    for name in ("cells", "todo", "scores"):
        data.pop(name, None)
    return redact.value(data)


def read(path: Path) -> Iterator[Event]:
    """Yield the events of a log; a torn last line and events of a newer version are passed over."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                data = json.loads(line)
                event = from_dict(data) if isinstance(data, dict) else None
            except (ValueError, TypeError):
                continue
            if event is not None:
                yield event
