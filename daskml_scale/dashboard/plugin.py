"""The scheduler plugin that folds published events into runs, and what serves them as JSON.

Everything is event-driven and bounded (:mod:`.bounds`); the scheduler's tasks are never looked at,
because dashboards that scan them have starved schedulers. The state dies with the scheduler: the run
registry is the truth, and a publisher that comes back sends its whole progress again.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from tornado.web import RequestHandler

from daskml_scale.dashboard import private
from daskml_scale.dashboard.board import Runs, fold_runs
from daskml_scale.dashboard.progress import Progress
from daskml_scale.dashboard.state import NAME, backlog
from daskml_scale.events import TOPIC, from_dict

logger = logging.getLogger("daskml_scale.dashboard")

_MAX_MESSAGE = 2000
"""Events taken from one message."""


class WorkflowPlugin(SchedulerPlugin):  # type: ignore[misc]
    """Runs as this scheduler has seen them.

    A message on ``events.TOPIC`` is one item or a list of items; an item is an event's dict, or
    ``{"progress": {...}}``, which replaces a run.

    Attributes
    ----------
    runs : Runs
    version : int
        Grows with every message.
    ignored : int
        Items that were no event of ours.
    """

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self.scheduler: Any = None
        self.runs = Runs()
        self.version = 0
        self.ignored = 0

    async def start(self, scheduler: Any) -> None:
        """Add the route, the pages and the metrics to ``scheduler``."""
        from daskml_scale.dashboard import metrics

        self.scheduler = scheduler
        private.install(scheduler, _pages, WorkflowJSON)
        metrics.register(self)

    async def close(self) -> None:
        """Take the metrics away again."""
        from daskml_scale.dashboard import metrics

        metrics.unregister(self)

    def log_event(self, topic: str, msg: Any) -> None:
        """Fold a message; called by the scheduler for every topic."""
        if topic != TOPIC:
            return
        for item in (msg if isinstance(msg, (list, tuple)) else [msg])[:_MAX_MESSAGE]:
            try:
                self._take(item)
            except (TypeError, ValueError, AttributeError, KeyError):
                self.ignored += 1
        self.version += 1

    def _take(self, item: dict[str, Any]) -> None:
        if "progress" in item:
            self.runs = self.runs.adopt(Progress.from_dict(item["progress"]))
            return
        event = from_dict(item)
        self.ignored += event is None
        self.runs = fold_runs(self.runs, event)

    def snapshot(self, run: str = "") -> dict[str, Any]:
        """Return everything as JSON-able data; with ``run`` only that run.

        Keys: ``time``, ``newest`` (a run id or null), ``runs`` (oldest first), ``workers``, ``scaling``,
        ``backlog`` (units and seconds left, or null).
        """
        now = time.time()
        newest = self.runs.newest
        shown = [item for item in self.runs.runs if not run or item.run == run]
        return {
            "time": now,
            "newest": None if newest is None else newest.run,
            "runs": [item.to_dict(now) for item in shown],
            "workers": private.workers(self.scheduler),
            "scaling": [event.to_dict() for event in self.runs.scaled],
            "backlog": backlog(self.scheduler),
        }


class WorkflowJSON(RequestHandler):  # type: ignore[misc]
    """``/workflow.json``, read-only; ``?run=ID`` for one run."""

    def initialize(self, dask_server: Any = None) -> None:
        self.server = dask_server

    def get(self) -> None:
        """Answer with the snapshot."""
        plugin = private.plugin(self.server, NAME)
        data = plugin.snapshot(self.get_query_argument("run", "")) if isinstance(plugin, WorkflowPlugin) else {}
        # A browser that guesses the type finds no markup: names are users' text.
        text = json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        self.set_header("Content-Type", "application/json")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")
        self.write(text)


def install(client: Any) -> bool:
    """Add the page to a live cluster through one of its clients.

    Parameters
    ----------
    client : distributed.Client
        Synchronous.

    Returns
    -------
    bool
        Whether the plugin is there. A scheduler that cannot have it (it does not have this package, it
        refuses plugins) is not an error: the run goes on without the page, with a warning.
    """
    try:
        client.register_plugin(WorkflowPlugin(), name=NAME)
    except Exception as error:
        logger.warning(
            "No /workflow page on this scheduler: %s: %s. Install daskml-scale where the scheduler runs, "
            "or start it with the preload daskml_scale.dashboard.preload.",
            type(error).__name__,
            error,
        )
        return False
    return True


def _pages() -> dict[str, private.Page]:
    from daskml_scale.dashboard.pages import PAGES  # Bokeh, on schedulers only

    return dict(PAGES)
