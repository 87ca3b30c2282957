"""The workloads of `benchmarks.scaling`: what people run, each drawn anew for every seed.

``hint`` is what an earlier run remembered: the true mean, off by a lognormal error of 20 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from daskml_scale.scaling.demand import Shape
from daskml_scale.scaling.usage import Supply
from daskml_scale.scaling.workload import Batch

CPU = Shape("cpu", threads=4, price=0.2)
GPU = Shape("gpu", threads=4, resources={"GPU": 1.0}, price=2.0)
BOTH = replace(GPU, name="both")
"""What Dask's Adaptive needs for mixed work, as it knows one kind of workers: all of them have a GPU."""
ERROR = 0.2


@dataclass(frozen=True)
class Workload:
    """Work, and the cluster that it may use.

    Attributes
    ----------
    draw : callable (random generator) -> batches
    maximum : int
        Workers of each class.
    """

    name: str
    what: str
    draw: Callable[[Any], Sequence[Batch]]
    maximum: int = 4000
    supply: Supply = Supply((60.0, 120.0))  # noqa: RUF009
    shapes: tuple[Shape, ...] = (CPU,)


def spread(random: Any, count: int, mean: float, sigma: float) -> list[float]:
    """Return lognormal seconds with this mean."""
    return [float(value) for value in random.lognormal(math.log(mean) - sigma**2 / 2, sigma, count)]


def batch(random: Any, prefix: str, count: int, mean: float, sigma: float = 0.5, **more: Any) -> Batch:
    """Return tasks with a hint."""
    return Batch(prefix, spread(random, count, mean, sigma), hint=mean * math.exp(random.normal(0.0, ERROR)), **more)


def burst(random: Any) -> list[Batch]:
    return [batch(random, "map", 8000, 10.0)]


def steady(random: Any) -> list[Batch]:
    found = [batch(random, "serve", 1, 20.0)]
    for step in range(120):
        count = int(random.poisson(40))
        found.append(replace(found[0], seconds=spread(random, count, 20.0, 0.5), at=15.0 * step))
    return [one for one in found if one.seconds]


def map_reduce_map(random: Any) -> list[Batch]:
    return [
        batch(random, "map", 4000, 8.0),
        batch(random, "combine", 50, 20.0, after=(0,)),
        batch(random, "reduce", 1, 60.0, after=(1,)),
        batch(random, "apply", 4000, 8.0, after=(2,)),
    ]


def long_tail(random: Any) -> list[Batch]:
    return [batch(random, "simulate", 3000, 20.0, 1.5)]


def mixed(random: Any) -> list[Batch]:
    needs = (("GPU", 1.0),)
    return [
        batch(random, "features", 3000, 10.0),
        batch(random, "infer", 300, 15.0, needs=needs),
        batch(random, "infer2", 300, 15.0, needs=needs, after=(0,)),
    ]


def rungs(random: Any) -> list[Batch]:
    return [batch(random, f"rung{n}", 243 // 3**n, 20.0 * 3**n, 0.3, after=(n - 1,) if n else ()) for n in range(5)]


def three_runs(random: Any) -> list[Batch]:
    found = []
    for job, (at, mean) in enumerate(((0.0, 8.0), (150.0, 15.0), (400.0, 5.0))):
        first = len(found)
        found += [
            batch(random, f"prepare{job}", 1500, mean, at=at, job=f"run{job}"),
            batch(random, f"fit{job}", 1, 40.0, at=at, after=(first,), job=f"run{job}"),
            batch(random, f"score{job}", 1500, mean, at=at, after=(first + 1,), job=f"run{job}"),
        ]
    return found


def preempted(random: Any) -> list[Batch]:
    return [batch(random, "map", 12000, 20.0)]


def flat(random: Any) -> list[Batch]:
    return [batch(random, "map", 20000, 10.0)]


WORKLOADS = (
    Workload("burst", "8,000 tasks of 10 s", burst),
    Workload("steady", "40 tasks of 20 s every 15 s for half an hour", steady),
    Workload("map-reduce-map", "4,000 of 8 s, 50 of 20 s, one of 60 s, 4,000 of 8 s", map_reduce_map),
    Workload("long tail", "3,000 tasks of 20 s, lognormal of 1.5", long_tail),
    Workload("mixed CPU/GPU", "3,000 of 10 s beside and before 300 of 15 s on a GPU", mixed, shapes=(CPU, GPU)),
    Workload("search rungs", "243 of 20 s, 81 of 60 s, ... 3 of 27 min", rungs),
    Workload("three runs sharing", "at 0, 150 and 400 s: 1,500 tasks, a fit of 40 s, 1,500 tasks", three_runs),
    Workload(
        "preemption",
        "12,000 of 20 s at most 300 workers that live for 5 min",
        preempted,
        300,
        Supply((60.0, 120.0), 0.02, 300.0),
    ),
)
FLAT = Workload("flat, at its cap", "20,000 tasks of 10 s on at most 200 workers", flat, 200)
