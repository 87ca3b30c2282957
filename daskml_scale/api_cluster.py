"""Clusters as the public functions start them: with the dashboard's page, published to, and only when a unit must run.

Only ``api`` uses what is here, and it is a part of it: nothing below may look for a cluster.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

from daskml_scale import events
from daskml_scale.dashboard import PRELOAD
from daskml_scale.errors import SpecError, UsageError

if TYPE_CHECKING:
    from daskml_scale.runs.where import Definition

PRELOADS = (PRELOAD,)
"""Scheduler modules of the clusters that we start; the backlog plugin is always there."""
RESTARTED = 30.0
"""Seconds for which a cluster that was started anew is taken for well."""


def cluster(spec: Any = "local", **options: Any) -> Any:
    """Start a cluster from a definition: a name, a path, a mapping or a ``ClusterSpec``.

    A name for which ``daskml-scale clusters up`` started a cluster means that one: it is joined, and not closed.

    Returns a ``distributed`` cluster: ``get_client()``, ``scale``, ``adapt``, ``dashboard_link``,
    ``close``; also a context manager. It follows the backlog between its limits by itself.

    Raises
    ------
    SpecError
        When the definition is wrong.
    ClusterError
        When it does not start; nothing is left behind.
    """
    from daskml_scale.deploy import cluster as start
    from daskml_scale.runs.named import find

    if isinstance(spec, str) and (found := find(spec)) is not None:
        from daskml_scale.runs.named_use import NamedCluster

        return NamedCluster(found)
    return start(spec, preload=PRELOADS, **options)


class Publishing:
    """A sink that also publishes to the cluster's dashboard, once there is one; earlier events follow then.

    Scaling decisions come from the cluster's thread: a lock keeps events whole and in one order.
    """

    def __init__(self, sink: events.Sink, stack: ExitStack) -> None:
        self.sink, self.stack = sink, stack
        self.kept: list[events.Event] = []
        self.publisher: Any | None = None
        self.before: Any | None = None
        self.lock = threading.RLock()

    def __call__(self, event: events.Event) -> None:
        with self.lock:
            self.sink(event)
            (self.kept.append if self.publisher is None else self.publisher)(event)

    def to(self, client: Any | None) -> None:
        """Publish through a client from now on; with ``None`` events are kept for the next one."""
        from daskml_scale.dashboard.publish import publisher

        with self.lock:
            if self.publisher is not None:
                self.publisher.close()
                self.before = self.publisher
            self.publisher = None if client is None else publisher(client)
            if self.publisher is None:
                return
            if self.before is not None:
                self.publisher.take_over(self.before)
            self.stack.callback(self.publisher.close)
            for event in self.kept:
                self.publisher(event)
            self.kept.clear()


def _page(link: str, run: str) -> str:
    """Return the link to the page of a run from that to the dashboard; a token in it stays."""
    if not link:
        return ""
    parts = urlsplit(link)
    query = "&".join(filter(None, (f"run={quote(run)}" if run else "", parts.query)))
    return urlunsplit(parts._replace(path=parts.path.removesuffix("status") + "workflow", query=query))


def _performance(client: Any, run: str, cluster: str) -> AbstractContextManager[Any]:
    """Return what keeps Dask's performance report of a run where the report of the run finds it."""
    from daskml_scale.dashboard import performance
    from daskml_scale.runs.event_log import path_of
    from daskml_scale.storage.home import home

    return performance.Kept(client, path_of(home(), run).with_name(performance.NAME), f"{run} on {cluster}")


class LazyClient:
    """Gives the client of a cluster that starts on the first call: a run that reuses everything starts none."""

    def __init__(self, definition: Definition, stack: ExitStack, publish: Publishing, run_id: str) -> None:
        self.definition, self.publish, self.run_id = definition, publish, run_id
        self.client: Any | None = None
        self.started = stack.enter_context(ExitStack())
        self.by, self.since = 0, 0.0
        """The thread that started it anew, and when."""
        self.lock = threading.RLock()
        """Stages at work beside each other want one cluster."""

    def __call__(self) -> Any:
        with self.lock:
            return self._client()

    def _client(self) -> Any:
        if self.client is None:
            from daskml_scale.dashboard.plugin import install

            asked = time.monotonic()
            given = self.definition
            name = given if isinstance(given, str) else given["name"] if isinstance(given, Mapping) else given.name
            try:
                started = self.started.enter_context(cluster(given, sink=self.publish))
            except SpecError as error:  # of the cluster's file, not of the stage that asked first
                raise UsageError(f"cluster {name}: {error}") from None
            self.client = self.started.enter_context(started.get_client())
            install(self.client)  # a named or a foreign cluster may not have the page
            link = _page(started.dashboard_link or "", self.run_id)
            waited = time.monotonic() - asked
            if self.run_id:
                self.started.enter_context(_performance(self.client, self.run_id, name))
            self.publish(
                events.ClusterStarted(
                    time=time.time(), run=self.run_id, cluster=name, dashboard=link, seconds=waited,
                    logs=str(getattr(started, "logs", None) or ""),  # not every backend keeps them apart
                )
            )  # fmt: skip
            self.publish.to(self.client)
        return self.client

    def restart(self) -> Any:
        """Close what is left of the cluster, whose scheduler is gone, and start it anew."""
        with self.lock:
            if (
                self.client is not None
                and time.monotonic() - self.since < RESTARTED
                and self.client.status == "running"
            ):
                return self.client  # another stage has just done it
            self.client = None
            self.publish.to(None)
            self.started.close()
            return self()


def client_source(
    client: Any | None, wanted: Definition, url: str, run: str, stack: ExitStack, publish: Publishing
) -> Callable[[], Any] | None:
    """Return what gives the client of a run when its first unit must run; ``None`` when this process does the work.

    Parameters
    ----------
    client : distributed.Client or None
        One that is there already: it is used in place of the cluster.
    wanted : Definition
        Of the cluster to start otherwise.
    url : str
        URL of the store.

    Raises
    ------
    UsageError
        When workers cannot reach the store.
    """
    from daskml_scale.runs.check import NO_CLUSTER
    from daskml_scale.runs.where import check_reach

    if client is not None:
        from daskml_scale.dashboard.plugin import install

        check_reach([url], client, "cluster='none'")
        install(client)
        publish.to(client)
        return lambda: client
    if wanted == NO_CLUSTER:
        return None
    check_reach([url], None, "--cluster none")
    return LazyClient(wanted, stack, publish, run)
