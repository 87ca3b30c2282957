"""What processes of ours log on standard error: without secrets, and as one JSON object a line where that is asked for.

``DASK_DASKML_SCALE__LOG=json`` (Dask configuration ``daskml-scale.log``) is for who collects the output of containers.
It holds for the process of a run and, because Dask's configuration travels, for schedulers and workers of our clusters.
Only our own processes are set up, never a program that imports this package; no logger gets a level or a handler here.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from daskml_scale import redact

SETTING = "daskml-scale.log"
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Redacted(logging.Formatter):
    """Another formatter's lines without secrets."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self.inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return redact.text(self.inner.format(record))


class JsonLines(logging.Formatter):
    """One JSON object a record: ``time`` (UTC), ``level``, ``logger``, ``message``, and what came with it.

    Parameters
    ----------
    **fields
        Said in every line, such as the name of the worker.
    """

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self.fields = fields

    def format(self, record: logging.LogRecord) -> str:
        more = {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            more["exception"] = self.formatException(record.exc_info)
        return line(record.created, record.levelname, record.name, record.getMessage(), {**self.fields, **more})


def line(time: float, level: str, logger: str, message: str, more: Mapping[str, Any]) -> str:
    """Return a line of a log as JSON, secrets replaced.

    Parameters
    ----------
    time : float
        Seconds since the epoch.
    more : mapping
        Further fields; what is no JSON is told as text.
    """
    stamp = datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    told = {"time": stamp, "level": level.lower(), "logger": logger, "message": message, **more}
    return json.dumps(redact.value(told), default=lambda value: redact.text(str(value)))


def as_json() -> bool:
    """Whether JSON was asked for."""
    import dask.config

    return str(dask.config.get(SETTING, default="") or "").lower() == "json"


def set_up(**fields: Any) -> None:
    """Have this process log without secrets; call it once its loggers have their handlers.

    Parameters
    ----------
    **fields
        Said in every line of JSON.
    """
    wanted = as_json()
    logging.captureWarnings(wanted)
    for handler in _handlers():
        if isinstance(handler.formatter, Redacted):
            continue
        text = handler.formatter or logging.Formatter()
        handler.setFormatter(JsonLines(**fields) if wanted else Redacted(text))


def _handlers() -> Iterator[logging.Handler]:
    """Yield what writes to standard output or error, for any logger."""
    if logging.lastResort is not None:
        yield logging.lastResort
    known = logging.root.manager.loggerDict.values()
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    for logger in (logging.root, *(one for one in known if isinstance(one, logging.Logger))):
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in streams:
                yield handler
