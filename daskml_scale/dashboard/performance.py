"""Dask's own performance report of a run, kept beside the run's log for the report of the run.

Task stream, profiles, bandwidths and the scheduler's system monitor, as Dask draws them. Drawing costs the scheduler a
second or two at the end, so it is done where the cluster worked long enough for that to be less than one percent, or as
Dask's configuration ``daskml-scale.performance-report`` (``DASK_DASKML_SCALE__PERFORMANCE_REPORT``) says: true, false.
What is kept loads nothing from anywhere. Whatever goes wrong here is logged once and no matter of the run.
"""

from __future__ import annotations

import json
import logging
import re
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from daskml_scale import redact
from daskml_scale.dashboard import private
from daskml_scale.html import escape

logger = logging.getLogger("daskml_scale.dashboard")

SETTING = "daskml-scale.performance-report"
NAME = "performance.html"
LONG = 300.0
"""Seconds of work from which on a report is kept where nobody said anything."""
MOST_TASKS = 5000
"""The last ones, which are in the stream: it stays below 3 MB."""
PATIENCE = 60.0
"""Seconds that a scheduler has for drawing."""
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)
_ICON = re.compile(r"<link rel=\"shortcut icon\"[^>]*>")
_DATA = re.compile(r"(<script type=\"application/json\"[^>]*>)(.*?)(</script>)", re.DOTALL)


def wanted() -> bool | None:
    """Return what was asked for; ``None`` when nothing was."""
    import dask.config

    found = dask.config.get(SETTING, default=None)
    return found if isinstance(found, bool) or found is None else str(found).lower() in ("1", "true", "yes", "on")


class Kept:
    """A context manager that keeps the report of the work of a cluster, unless that is interrupted.

    Parameters
    ----------
    client : distributed.Client
    path : Path
        File to write.
    title : str
        What the work is, told as its calling code.
    """

    def __init__(self, client: Any, path: Path, title: str) -> None:
        self.client, self.path, self.title = client, path, title
        self.began, self.count = time.time(), -1

    def __enter__(self) -> Kept:
        if wanted() is not False:
            try:
                self.count = self.client.run_on_scheduler(partial(private.follow_tasks, most=MOST_TASKS))
            except Exception as error:  # a scheduler without this package
                self._complain(error)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopped = kind is not None and not issubclass(kind, Exception)
        asked = wanted()
        due = time.time() - self.began >= LONG if asked is None else asked
        if self.count < 0 or stopped or not due or self.client.status != "running":
            return
        try:
            text = private.performance_report(self.client, self.began, self.count, escape(self.title), PATIENCE)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(closed(text), encoding="utf-8")
        except Exception as problem:
            self._complain(problem)

    def _complain(self, error: Exception) -> None:
        logger.warning("Dask's performance report of this run is not kept: %s: %s", type(error).__name__, error)


def closed(text: str) -> str:
    """Return a report that can load nothing, secrets in its data replaced."""
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    text = _ICON.sub("", text).replace("<head>", f"<head>{policy}", 1)
    return _DATA.sub(_redacted, text)


def _redacted(found: re.Match[str]) -> str:
    data = json.dumps(redact.value(json.loads(found[2]))).replace("<", "\\u003c")
    return f"{found[1]}{data}{found[3]}"
