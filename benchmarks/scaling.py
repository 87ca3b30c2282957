"""Our scaling policy beside Dask's, on simulated clusters: ``python -m benchmarks.scaling [--seeds 3] [--json FILE]``.

Deterministic: the same seeds give the same numbers on any machine; only the two durations of the decision itself are
measured. Baselines: ``Adaptive`` with its defaults, a grid of retuned ones, and the controller of dask-kubernetes
(`adaptive_replica`, held against the real scheduler by a test). Every row of ``docs/explanation/scaling.md`` comes
from here.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.engine.backlog import NAME, BacklogPlugin
from daskml_scale.scaling.demand import read
from daskml_scale.scaling.fleet import run_fleet
from daskml_scale.scaling.policy import Limits
from daskml_scale.scaling.scalers import BacklogScaler
from daskml_scale.scaling.usage import Scaler, Usage
from daskml_scale.scaling.workload import Batch

from .adaptive_replica import AdaptiveScaler, OperatorScaler
from .machine import machine
from .scaling_work import BOTH, CPU, FLAT, GPU, WORKLOADS, Workload

STARTUP = 90.0
"""What a definition's author would write for starts of 60 to 120 s."""
DURATIONS = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0)
WAITS = (3, 10, 30, 60)
DEFAULTS = "Adaptive"
OURS, NO_HINTS, OPERATOR = "ours", "ours, nothing remembered", "operator-like"
System = Callable[[Workload], Scaler]


@dataclass(frozen=True)
class Cell:
    """One system on one workload: means over the seeds."""

    makespan: float
    worker_seconds: float
    unused: float
    reversals: float
    reruns: float

    @classmethod
    def of(cls, found: Sequence[Usage]) -> Cell:
        return cls(*(float(np.mean([getattr(one, name) for one in found])) for name in cls.__dataclass_fields__))


def ours(workload: Workload) -> Scaler:
    bounds = {shape.name: Limits(maximum=workload.maximum) for shape in workload.shapes}
    return BacklogScaler(workload.shapes, bounds, dict.fromkeys(bounds, STARTUP))


def adaptive(**options: Any) -> System:
    def make(workload: Workload) -> Scaler:
        shape = workload.shapes[0] if len(workload.shapes) == 1 else BOTH
        return AdaptiveScaler(shape.name, shape.threads, workload.maximum, **options)

    return make


def operator(workload: Workload) -> Scaler:
    shape = workload.shapes[0] if len(workload.shapes) == 1 else BOTH
    return OperatorScaler(shape.name, shape.threads, workload.maximum)


def systems() -> dict[str, System]:
    """Return every system by name."""
    found: dict[str, System] = {OURS: ours, NO_HINTS: ours, DEFAULTS: adaptive(), OPERATOR: operator}
    for duration in DURATIONS:
        for wait in WAITS:
            if (duration, wait) != (5.0, 3):
                found[f"Adaptive {duration:g} s / {wait}"] = adaptive(target_duration=duration, wait_count=wait)
    return found


def simulate(workload: Workload, name: str, system: System, seeds: Iterable[int]) -> Cell:
    """Run one system on one workload."""
    found = []
    for seed in seeds:
        batches: Sequence[Batch] = workload.draw(np.random.default_rng([seed, 7]))
        if name == NO_HINTS:
            batches = [replace(batch, hint=None) for batch in batches]
        scaler = system(workload)
        shapes = workload.shapes if isinstance(scaler, BacklogScaler) or len(workload.shapes) == 1 else (BOTH,)
        found.append(run_fleet(batches, shapes, scaler, workload.supply, seed=seed))
    return Cell.of(found)


def geometric(values: Iterable[float]) -> float:
    """Return the geometric mean."""
    return math.exp(float(np.mean([math.log(value) for value in values])))


Cells = Mapping[str, Mapping[str, Cell]]
"""System -> workload -> cell."""


def ratios(cells: Cells, name: str, works: Sequence[str]) -> tuple[float, float]:
    """Return the geometric means of makespan and worker-seconds against Adaptive's defaults."""
    mine, theirs = cells[name], cells[DEFAULTS]
    return (
        geometric(mine[work].makespan / theirs[work].makespan for work in works),
        geometric(mine[work].worker_seconds / theirs[work].worker_seconds for work in works),
    )


def goals(cells: Cells, works: Sequence[str]) -> list[tuple[str, str, str, bool]]:
    """Return (what, measured, goal, whether it holds)."""
    mine, theirs = cells[OURS], cells[DEFAULTS]
    makespan, cost = ratios(cells, OURS, works)
    grid = {name: ratios(cells, name, works) for name in cells if name.startswith(DEFAULTS)}
    beaten = [name for name, (m, c) in grid.items() if m <= makespan and c <= cost]
    cheapest = min(grid, key=lambda name: grid[name][1])
    faster, dearer = makespan / grid[cheapest][0], cost / grid[cheapest][1]
    unused = sum(mine[work].unused for work in works) / max(1.0, sum(theirs[work].unused for work in works))
    turns = sum(mine[work].reversals for work in works) / max(1.0, sum(theirs[work].reversals for work in works))
    slow = max(works, key=lambda work: mine[work].makespan / theirs[work].makespan)
    dear = max(works, key=lambda work: mine[work].worker_seconds / theirs[work].worker_seconds)
    slowest = mine[slow].makespan / theirs[slow].makespan
    dearest = mine[dear].worker_seconds / theirs[dear].worker_seconds
    return [
        ("makespan against the defaults", f"{makespan:.2f}x", "<= 1.0x", makespan <= 1.0),
        ("worker-seconds against the defaults", f"{cost:.2f}x", "<= 0.6x", cost <= 0.6),
        ("settings of the grid that beat ours on both", ", ".join(beaten) or "none", "none", not beaten),
        (f"makespan against the cheapest ({cheapest})", f"{faster:.2f}x", "<= 0.9x", faster <= 0.9),
        ("worker-seconds against the cheapest", f"{dearer:.2f}x", "<= 1.05x", dearer <= 1.05),
        ("workers started and never used", f"{unused:.1%} of the defaults'", "<= 10 %", unused <= 0.1),
        ("direction reversals", f"{turns:.2f}x", "<= 0.5x", turns <= 0.5),
        (f"slowest single workload ({slow})", f"{slowest:.2f}x", "<= 1.2x", slowest <= 1.2),
        (f"dearest single workload ({dear})", f"{dearest:.2f}x", "<= 1.0x", dearest <= 1.0),
    ]


def gpu_only(seeds: Iterable[int]) -> tuple[float, float]:
    """Return the makespans of GPU work on a cluster of CPU workers that may have GPU ones: ours, Adaptive's."""
    work = Workload(
        "GPU",
        "",
        lambda random: [Batch("infer", [15.0] * 100, needs=(("GPU", 1.0),), hint=15.0)],
        100,
        shapes=(CPU, GPU),
    )
    found: dict[str, list[float]] = {OURS: [], DEFAULTS: []}
    for seed in seeds:
        batches = work.draw(None)
        scalers = {OURS: ours(work), DEFAULTS: AdaptiveScaler(CPU.name, CPU.threads, work.maximum)}
        for name, scaler in scalers.items():
            found[name].append(run_fleet(batches, work.shapes, scaler, work.supply, seed=seed, most=7200.0).makespan)
    return float(np.mean(found[OURS])), float(np.mean(found[DEFAULTS]))


def decision_share(tasks: int = 25_000, workers: int = 200, interval: float = 0.5) -> float:
    """Return the share of a core that deciding takes with this many tasks on a real scheduler, snapshot included."""
    from distributed import Client, LocalCluster

    controller = BacklogScaler((CPU,), {CPU.name: Limits(maximum=workers)}, {CPU.name: STARTUP}).controller
    planned = {f"cpu-{n}": CPU.name for n in range(workers)}
    rows = [
        {"name": name, "status": "running", "idle_since": None, "unique_bytes": 0, "bytes": 0, "memory_limit": 2**30}
        for name in planned
    ]
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.register_plugin(BacklogPlugin(), name=NAME)
        futures = [
            future for n in range(50) for future in client.map(abs, range(tasks // 50), pure=False, key=f"kind{n}")
        ]
        while len(cluster.scheduler.tasks) < len(futures):
            time.sleep(0.05)
        rounds = 40
        began = time.perf_counter()
        for step in range(rounds):
            raw = cluster.scheduler.plugins[NAME].snapshot()
            demands, views = read({**raw, "workers": rows}, planned)
            controller.step(demands, views, float(step))
        seconds = (time.perf_counter() - began) / rounds
    return seconds / interval


def large_seconds() -> tuple[float, Usage]:
    """Return the wall seconds of simulating 60,000 tasks on up to 4,000 workers, and what came out."""
    work = Workload("large", "", lambda random: [Batch("map", [60.0] * 60_000, hint=60.0)], 4000)
    began = time.perf_counter()
    used = run_fleet(work.draw(None), work.shapes, ours(work), work.supply)
    return time.perf_counter() - began, used


def measure(seeds: Sequence[int], works: Sequence[Workload] = (*WORKLOADS, FLAT)) -> dict[str, dict[str, Cell]]:
    """Return every cell."""
    return {
        name: {work.name: simulate(work, name, system, seeds) for work in works} for name, system in systems().items()
    }


def tables(cells: Cells) -> str:
    """Return the tables of the page."""
    works = [work.name for work in WORKLOADS]
    lines = ["| goal | measured | wanted | |", "|---|---|---|---|"]
    lines += [
        f"| {what} | {got} | {goal} | {'yes' if held else '**no**'} |" for what, got, goal, held in goals(cells, works)
    ]
    lines += ["", "| workload | " + " | ".join((DEFAULTS, OURS, NO_HINTS, OPERATOR)) + " | ours: time, cost |"]
    lines += ["|---|" + "---|" * 5]
    for work in [*works, FLAT.name]:
        shown = [_cell(cells[name][work]) for name in (DEFAULTS, OURS, NO_HINTS, OPERATOR)]
        mine, theirs = cells[OURS][work], cells[DEFAULTS][work]
        time_ratio, cost = mine.makespan / theirs.makespan, mine.worker_seconds / theirs.worker_seconds
        lines.append(f"| {work} | {' | '.join(shown)} | {time_ratio:.2f}, {cost:.2f} |")
    lines += ["", "| system | makespan | worker-seconds | unused | reversals |", "|---|---|---|---|---|"]
    for name in sorted(cells, key=lambda name: ratios(cells, name, works)[1]):
        makespan, cost = ratios(cells, name, works)
        unused, turns = (sum(getattr(cells[name][w], key) for w in works) for key in ("unused", "reversals"))
        lines.append(f"| {name} | {makespan:.2f} | {cost:.2f} | {unused:,.0f} | {turns:,.0f} |")
    return "\n".join(lines)


def _cell(cell: Cell) -> str:
    return f"{cell.makespan:,.0f} s, {cell.worker_seconds / 3600:,.1f} h, {cell.unused:,.0f}/{cell.reversals:,.0f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0, help="0 to 2 were looked at while the policy was made")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    options = parser.parse_args(arguments)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    began = time.perf_counter()
    cells = measure(seeds)
    print(
        f"Seeds {seeds.start} to {seeds.stop - 1}; simulated in {time.perf_counter() - began:.0f} s.\n\n{tables(cells)}"
    )
    served, never = gpu_only(seeds)
    share, (seconds, used) = decision_share(), large_seconds()
    print(f"\nGPU work, no GPU worker: ours {served:.0f} s, Adaptive's {never:.0f} s.")
    print(f"Deciding at 25,000 tasks: {share:.2%} of a core.")
    print(f"60,000 tasks on {used.started:,} workers: simulated in {seconds:.1f} s ({used.makespan:.0f} s of theirs).")
    if options.json:
        found = {
            "GPU work, no GPU worker: seconds": (served, 600.0),
            "deciding at 25,000 tasks, % of a core": (100 * share, 1.0),
            "60,000 tasks on 4,000 workers, seconds to simulate": (seconds, 5.0),
        }
        data = {name: {work: asdict(cell) for work, cell in row.items()} for name, row in cells.items()}
        told = [list(each) for each in goals(cells, [work.name for work in WORKLOADS])]
        about = {"size": "simulated", "repeat": len(seeds), **machine(), "area": "scaling, simulated"}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps({**about, "seeds": list(seeds), "goals": told, "found": found, "cells": data}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
