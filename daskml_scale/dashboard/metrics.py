"""Prometheus gauges of the newest run and of the backlog, in the scheduler's ``/metrics``.

Labels are bounded: stage names of one run and worker classes, at most ``MAX_LABELS``; never run ids or unit keys.
``daskml_backlog_seconds`` is what people scale by who do it with an HPA or KEDA.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from daskml_scale.dashboard.alerts import alerts
from daskml_scale.dashboard.progress import Progress
from daskml_scale.dashboard.state import backlog_by_class

MAX_LABELS = 50

_COLLECTORS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


class Collector:
    """Reads a workflow plugin when ``/metrics`` is asked for."""

    def __init__(self, plugin: Any) -> None:
        self.plugin = weakref.ref(plugin)

    def collect(self) -> Iterator[Any]:
        """Yield the gauges."""
        from prometheus_client.core import GaugeMetricFamily

        ratio = GaugeMetricFamily("daskml_stage_progress_ratio", "Share of a stage that is over", labels=["stage"])
        units = GaugeMetricFamily("daskml_stage_units", "Units of a stage", labels=["stage", "state"])
        plugin = self.plugin()
        newest = None if plugin is None else plugin.runs.newest
        for stage in newest.stages[-MAX_LABELS:] if newest is not None else ():
            ratio.add_metric([stage.name], stage.fraction)
            counts = {
                "reused": stage.reused,
                "committed": stage.done,
                "quarantined": stage.quarantined,
                "failed": stage.failed,
                "todo": stage.units - stage.done - stage.failed,
            }
            for state, count in counts.items():
                units.add_metric([stage.name, state], count)
        yield ratio
        yield units
        yield from _of_run(newest)
        seconds = GaugeMetricFamily(
            "daskml_backlog_seconds", "Work left for a class of workers, in seconds of one slot", labels=["class"]
        )
        found = {} if plugin is None else backlog_by_class(plugin.scheduler)
        for name, value in sorted(found.items())[:MAX_LABELS]:
            seconds.add_metric([name], value)
        yield seconds


def _of_run(newest: Progress | None) -> Iterator[Any]:
    """Yield what the newest run has cost, and how many alerts of each kind it has."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    progress = newest or Progress()
    yield CounterMetricFamily(
        "daskml_cost_spent", "Price of the workers of the newest run", sum(stage.cost for stage in progress.stages)
    )
    told = GaugeMetricFamily("daskml_alerts", "What needs a look in the newest run", labels=["kind"])
    found = [one.kind for one in alerts(progress, (), progress.updated, 1, None)]
    for kind in sorted(set(found)):
        told.add_metric([kind], found.count(kind))
    yield told


def register(plugin: Any) -> None:
    """Show the plugin's newest run; the first scheduler of a process wins, as names must be unique."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return
    collector = Collector(plugin)
    try:
        REGISTRY.register(collector)
    except ValueError:
        return
    _COLLECTORS[plugin] = collector


def unregister(plugin: Any) -> None:
    """Stop showing the plugin."""
    collector = _COLLECTORS.pop(plugin, None)
    if collector is not None:
        from prometheus_client import REGISTRY

        REGISTRY.unregister(collector)
