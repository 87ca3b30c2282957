"""Every call into parts of distributed, Tornado and Bokeh that their documentation does not promise.

Each call is marked: [S] importable, undocumented, stable for years; [X] private. A release may take
any of them away, so each step of ``install`` may fail alone: what is left keeps working, the rest is
named in one warning. ``/workflow.json`` is added first, because it needs the least.

No other module of the package may touch these parts, and nothing here knows about runs or stages.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

logger = logging.getLogger("daskml_scale.dashboard")

Page: TypeAlias = Callable[[Any, Mapping[str, Any], Any], None]
"""(scheduler, template variables, Bokeh document) -> None, as in ``distributed.dashboard.scheduler`` [S]."""

NAV = "workflow"
JUPYTER = "individual-workflow"
PARTS = ("stages", "chunks", "trials", "scaling", "cost", "workers", "alerts")
"""Parts of the page that JupyterLab shows alone, as ``individual-workflow-PART``."""
JSON = "workflow.json"


def install(scheduler: Any, pages: Callable[[], Mapping[str, Page]], handler: type[Any]) -> tuple[str, ...]:
    """Add the JSON route, the pages and their links to a live scheduler.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    pages : callable
        Returns path -> page; called late, because it imports Bokeh.
    handler : tornado.web.RequestHandler subclass
        Is initialized with ``dask_server``.

    Returns
    -------
    missing : tuple of str
        What this version of distributed does not let us add, with the reasons; also logged once.
    """
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        (f"/{JSON}", lambda: _add_route(scheduler, handler)),
        (f"the page /{NAV}", lambda: _add_pages(scheduler, pages())),
        ("its link in the navigation", lambda: _add_links(scheduler)),
    )
    missing = []
    for what, step in steps:
        try:
            step()
        except Exception as error:
            missing.append(f"{what} ({type(error).__name__}: {error})")
    if missing:
        logger.warning(
            "This scheduler (distributed %s) does not show %s; runs are not affected.", _version(), ", ".join(missing)
        )
    return tuple(missing)


def announce(pages: Callable[[], Mapping[str, Page]]) -> None:
    """Let schedulers that this process makes from now on serve ``pages`` from their own Bokeh application."""
    try:
        import distributed.dashboard.scheduler as dashboard  # [S] a preload may extend `applications` (#2790)

        dashboard.applications.update(pages())
    except Exception as error:  # no Bokeh, or another distributed: `install` says what is missing
        logger.debug("The dashboard's applications cannot be extended: %s", error)


def template(body: str, *, navigation: bool) -> Any:
    """Return the Jinja template of a page: ours, within Dask's with its navigation where that can be had."""
    from jinja2 import Template

    if navigation:
        try:
            from distributed.dashboard.components.scheduler import env  # [X]

            return env.from_string(f'{{% extends "base.html" %}}{{% block content %}}{body}{{% endblock %}}')
        except Exception as error:
            logger.warning("The workflow page is shown without Dask's look: %s: %s", type(error).__name__, error)
    head = "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
    return Template(
        f"<!doctype html><html lang='en'><head>{head}<title>Workflow</title></head><body>{body}</body></html>"
    )


def plugin(scheduler: Any, name: str) -> Any | None:
    """Return the scheduler plugin registered as ``name``, or ``None``."""
    plugins: Mapping[str, Any] = getattr(scheduler, "plugins", {})  # [S]
    return plugins.get(name)


def workers(scheduler: Any) -> int:
    """Return the number of workers that are connected."""
    return len(getattr(scheduler, "workers", ()))  # [S]


def scheduler_id(client: Any) -> str:
    """Return what tells the scheduler of a client from the one before it; nothing is asked of it."""
    found = getattr(client, "_scheduler_identity", None) or {}  # [X] a client reads it whenever it connects
    return str(found.get("id", ""))


def follow_tasks(dask_scheduler: Any, most: int) -> int:
    """Have a scheduler remember its last tasks for a performance report; return where its system monitor stands."""
    from distributed.diagnostics.task_stream import TaskStreamPlugin  # [S]

    if TaskStreamPlugin.name not in dask_scheduler.plugins:  # [S] a browser on /status has brought it
        dask_scheduler.add_plugin(TaskStreamPlugin(dask_scheduler, maxlen=most))
    return int(dask_scheduler.monitor.count)  # [S]


def performance_report(client: Any, start: float, count: int, title: str, timeout: float) -> str:
    """Return Dask's performance report as HTML with its scripts inside.

    Parameters
    ----------
    start : float
        Seconds since the epoch.
    count : int
        Of `follow_tasks`.
    """
    # [X] what distributed.performance_report calls, which can neither be told a client nor a time to wait
    report = client.scheduler.performance_report
    text = client.sync(report, start=start, last_count=count, code=title, mode="inline", callback_timeout=timeout)
    return str(text)


def fleet(scheduler: Any) -> list[dict[str, Any]]:
    """Return the workers: name, threads, tasks that run, bytes of memory used and allowed, GPU share or ``None``."""
    rows = []
    for worker in getattr(scheduler, "workers", {}).values():  # [S] WorkerState
        metrics = worker.metrics
        gpu = metrics.get("gpu_utilization")  # percent; Dask reads it where it finds NVML
        rows.append(
            {
                "name": str(worker.name),
                "threads": int(worker.nthreads),
                "busy": min(len(worker.processing), int(worker.nthreads)),
                "memory": int(metrics.get("memory", 0)),
                "limit": int(worker.memory_limit or 0),
                "gpu": None if gpu is None else float(gpu) / 100,
                "status": worker.status.name,
            }
        )
    return rows


def _bokeh(scheduler: Any) -> Any | None:
    """Return the scheduler's first Bokeh application; it is the one that lists plots for JupyterLab."""
    applications = scheduler.http_application.applications  # [X]
    return next((app for app in applications if hasattr(app, "app_paths")), None)


def _prefix(scheduler: Any) -> str:
    bokeh = _bokeh(scheduler)
    # The scheduler forgets its HTTP prefix; Bokeh's application knows it.
    return str(bokeh.prefix).rstrip("/") if bokeh is not None else ""


def _add_route(scheduler: Any, handler: type[Any]) -> None:
    route = (f"{_prefix(scheduler)}/{JSON}", handler, {"dask_server": scheduler})
    scheduler.http_application.add_handlers(r".*", [route])  # [X] the attribute; the method is public


def _add_pages(scheduler: Any, pages: Mapping[str, Page]) -> None:
    bokeh = _bokeh(scheduler)
    if bokeh is None:
        raise LookupError("the scheduler has no dashboard")
    prefix = _prefix(scheduler)
    have = {str(path).removeprefix(prefix) for path in bokeh.app_paths}
    if have.issuperset(pages):
        return  # announced by a preload before the application was built
    from distributed.dashboard.core import BokehApplication  # [S]
    from distributed.dashboard.scheduler import template_variables  # [X]
    from tornado.ioloop import IOLoop

    added = BokehApplication(pages, scheduler, prefix=prefix, template_variables=template_variables(scheduler))
    scheduler.http_application.add_application(added)  # [X]
    added.initialize(IOLoop.current())
    added.start()  # the scheduler stops all its applications when it closes
    for path, context in added.applications.items():
        bokeh._applications.setdefault(path, context)  # [X] individual-plots.json reads the first application only


def _add_links(scheduler: Any) -> None:
    from distributed.dashboard.scheduler import template_variables  # [X] memoized: every page holds these lists

    variables = template_variables(scheduler)
    if NAV not in variables["pages"]:
        variables["pages"].insert(1, NAV)
    have = {plot["url"] for plot in variables["plots"]}
    for url, name in ((JUPYTER, "Workflow"), *((f"{JUPYTER}-{part}", f"Workflow {part.title()}") for part in PARTS)):
        if url not in have:
            variables["plots"].append({"url": url, "name": name})


def _version() -> str:
    import distributed

    return str(distributed.__version__)
