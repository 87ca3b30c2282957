"""What the page's document and the report of a large run cost, without a cluster and without a browser."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from daskml_scale import events
from daskml_scale.dashboard.plugin import SHARED_SECONDS, WorkflowPlugin


def large_run(units: int) -> list[events.Event]:
    """Return the events of a run of so many units, in which every tenth cell is done."""
    cells = events.CellGrid("rows", (units,), (max(1, units // 10_000),))
    told: list[events.Event] = [
        events.RunStarted(time=time.time(), run="large", workflow="large", store="s", stages=(("predict", "predict"),)),
        events.StageStarted(time=time.time(), run="large", stage="predict", stage_kind="predict"),
        events.StagePlanned(time=time.time(), run="large", stage="predict", units=units, reused=0, cells=cells),
    ]
    done = tuple(
        events.Cell(at, cells.step[0], 0, 0, 0.1, f"rows/{at * cells.step[0]:08d}", "cpu-0", "new")
        for at in range(0, cells.counts[0], 10)
    )
    many = len(done) * cells.step[0]
    told.append(events.UnitsCommitted(time=time.time(), run="large", stage="predict", units=many, cells=done))
    return told


def fold_cost(units: int, workers: int) -> dict[str, Any]:
    """Return what the JSON document of a large run costs a scheduler of many workers, in CPU seconds.

    It is made at most once in `SHARED_SECONDS`, however many browsers ask.
    """
    plugin = WorkflowPlugin()
    plugin.scheduler = SimpleNamespace(workers={n: _worker(n) for n in range(workers)}, plugins={})
    for event in large_run(units):
        plugin.log_event(events.TOPIC, event.to_dict())
    took = []
    for _ in range(20):
        plugin._encoded.clear()
        plugin._workers = (0.0, {})  # looked at each time, not only every other second
        began = time.process_time()
        text = plugin.encoded("1", "", "", "")
        took.append(time.process_time() - began)
    each = statistics.median(took)
    return {
        "units": units, "workers": workers, "ms of CPU a document": round(1000 * each, 2), "bytes": len(text),
        "share of a core at most": round(each / SHARED_SECONDS, 4),
    }  # fmt: skip


def _worker(number: int) -> Any:
    metrics = {"memory": 2**28 + number}
    status = SimpleNamespace(name="running")
    return SimpleNamespace(
        name=f"cpu-{number}", nthreads=8, processing=range(9), memory_limit=2**30, status=status, metrics=metrics
    )


def report_cost(units: int, trials: int) -> dict[str, Any]:
    """Return how long the report of a large run takes, and how large it is."""
    from daskml_scale.runs import report, report_log
    from daskml_scale.runs.event_log import EventLog, path_of

    with tempfile.TemporaryDirectory() as folder:
        home, began = Path(folder), 1e9
        with EventLog(path_of(home, "large"), print) as log:
            log.sink(events.StageStarted(time=began, run="large", stage="predict", stage_kind="predict"))
            log.sink(events.StagePlanned(time=began, run="large", stage="predict", units=units, reused=0))
            for at in range(units):  # the worst case: each unit was committed alone
                log.sink(events.UnitsCommitted(time=began + at, run="large", stage="predict", units=1, rows=9))
            found = [{"trial": n, "score": n / trials, "params": {"a": n, "b": "x" * 20}} for n in range(trials)]
            log.sink(
                events.StageFinished(
                    time=began + units, run="large", stage="search", state="ok", seconds=1.0, units=1, reused=0,
                    result={"trials": found},
                )
            )  # fmt: skip
        start = time.perf_counter()
        read = report_log.logged(home, "large")
        whole = report.page(_document(read))
        return {"units": units, "trials": trials, "seconds": round(time.perf_counter() - start, 2),
                "MB": round(len(whole) / 1e6, 3)}  # fmt: skip


def _document(read: Any) -> dict[str, Any]:
    zeros = dict.fromkeys(("worker_seconds", "idle_seconds", "saved_seconds", "startup_seconds", "money"), 0.0)
    run = {
        "id": "large", "state": "succeeded", "started": 1e9, "finished": 1e9 + 9, "source": "w", "store": "s",
        "cluster": "c", "owner": "", "labels": {}, "message": "", "summary": {}, "stages": [],
    }  # fmt: skip
    return {
        "run": run, "history": [], "cost": {"whole": zeros, "stages": []}, "why": {}, "warnings": read.warnings,
        "scaling": read.scaling, "timeline": read.timeline, "throughput": read.throughput(), "results": read.results,
        "quarantine": [], "provenance": {},
    }  # fmt: skip
