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

from daskml_scale.dashboard import looks, private
from daskml_scale.dashboard.alerts import alerts
from daskml_scale.dashboard.board import Runs, fold_runs
from daskml_scale.dashboard.detail import Detail
from daskml_scale.dashboard.progress import Progress
from daskml_scale.dashboard.state import NAME, backlog, in_flight, prices
from daskml_scale.events import TOPIC, from_dict

logger = logging.getLogger("daskml_scale.dashboard")

_MAX_MESSAGE = 2000
"""Events taken from one message."""
LOOK_SECONDS = 2.0
"""Between two looks at the workers."""
SHARED_SECONDS = 0.9
MAX_SHARED = 16


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
        self.detail = Detail()
        self._workers: tuple[float, dict[str, Any]] = (0.0, {})
        self._encoded: dict[tuple[str, ...], tuple[float, str]] = {}
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
        elif "detail" in item:
            self.detail.adopt(item["detail"])
        elif "of" in item:
            self.detail.take(from_dict(item["of"]))
        else:
            event = from_dict(item)
            self.ignored += event is None
            self.runs = fold_runs(self.runs, event)
            self.detail.take(event)

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

    def page(self, run: str, stage: str) -> dict[str, Any]:
        """Return what the page shows of one run: the newest when ``run`` is empty, or is not here.

        Beyond `snapshot`: ``run``, ``others``, ``fleet``, ``cost``, ``alerts``, ``trials`` and the ``map`` of a stage
        (the one asked for, else the one heard of last).
        """
        now = time.time()
        asked = self.runs.get(run) if run else None
        progress = asked or self.runs.newest or Progress()
        fleet = self._fleet(now)
        busy = {} if progress.finished else in_flight(self.scheduler)
        shown = progress.to_dict(now)
        for row in shown["stages"]:
            row["running"] = min(busy.get(row["name"], 0), max(0, row["units"] - row["done"] - row["failed"]))
        mapped = [name for of, name in self.detail.maps if of == progress.run]
        chosen = stage if stage in mapped else mapped[-1] if mapped else ""
        found = self.detail.maps.get((progress.run, chosen))
        left = backlog(self.scheduler)
        return {
            "time": now,
            "known": asked is not None or not run,
            "run": shown,
            "others": [
                {"run": item.run, "workflow": item.workflow, "state": item.state, "started": item.started}
                for item in reversed(self.runs.runs)
            ],
            "scaling": [event.to_dict() for event in self.runs.scaled],
            "backlog": left,
            "fleet": fleet,
            "cost": looks.cost(progress, fleet["classes"], prices(self.scheduler), now),
            "alerts": [one.to_dict() for one in alerts(progress, self.runs.scaled, now, fleet["count"], left)],
            "map": None if found is None else {"stage": chosen, "stages": mapped, **found.shown()},
            "trials": [
                {"stage": name, **one.shown()} for (of, name), one in self.detail.trials.items() if of == progress.run
            ],
        }

    def cell(self, run: str, stage: str, at: int) -> dict[str, Any]:
        """Return everything about a cell of a map; empty for one that is not here."""
        found = self.detail.maps.get((run, stage))
        return {} if found is None else found.cell(at)

    def _fleet(self, now: float) -> dict[str, Any]:
        if now - self._workers[0] > LOOK_SECONDS:
            self._workers = now, looks.fleet(private.fleet(self.scheduler))
        return self._workers[1]

    def encoded(self, *asked: str) -> str:
        """Return the JSON of a request; browsers that ask for the same within a second share it.

        Parameters
        ----------
        *asked : str
            ``page``, ``run``, ``map`` and ``cell`` of the request.
        """
        now = time.time()
        then, text = self._encoded.get(asked, (0.0, ""))
        if asked[0] and not asked[3] and now - then < SHARED_SECONDS:
            return text
        page, run, stage, cell = asked
        if cell:
            data = self.cell(run, stage, int(cell) if cell.isdecimal() else -1)
        else:
            data = self.page(run, stage) if page else self.snapshot(run)
        # A browser that guesses the type finds no markup: names are users' text.
        text = json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        if page and not cell:
            self._encoded = {key: held for key, held in self._encoded.items() if now - held[0] < SHARED_SECONDS}
            if len(self._encoded) < MAX_SHARED:
                self._encoded[asked] = now, text
        return text


class WorkflowJSON(RequestHandler):  # type: ignore[misc]
    """``/workflow.json``, read-only; ``?run=ID`` for one run."""

    def initialize(self, dask_server: Any = None) -> None:
        self.server = dask_server

    def get(self) -> None:
        """Answer with the snapshot; ``?page=1`` with what the page shows, ``&cell=N`` with a cell of its map."""
        plugin = private.plugin(self.server, NAME)
        asked = [self.get_query_argument(name, "") for name in ("page", "run", "map", "cell")]
        text = plugin.encoded(*asked) if isinstance(plugin, WorkflowPlugin) else "{}"
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
