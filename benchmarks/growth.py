"""Curves: efficiency against workers, and seconds against data: ``python -m benchmarks.growth [--gb 1] [--json FILE]``.

Workers: the same computing units, and the same features, on 1 and 2 real workers, ``T(1) / (n T(n))``; beyond them the
model of a large cluster (`daskml_scale.scaling.simulate`, with the costs per task of a slow core), up to 4,000 workers
of four threads. Those are marked as simulated. Driver and scheduler take their part of the two cores, too.

Data: features (impute, standardize, one-hot) and what they write copied by xarray, on two workers, from 10 MB on;
medians of rounds in which both take turns. ``--gb 10`` takes a quarter of an hour and 25 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import daskml_scale as dms
from daskml_scale.scaling.simulate import constant, simulate

from . import calls
from . import feature_data as data
from .common import OWN_CLUSTER, timed
from .curves import Point
from .feature_works import KNOWN_AT, STEPS, chunks
from .machine import load, machine
from .search_work import steps_for

THREADS = 4
WORKERS = (1, 10, 100, 1000, 4000)
UNITS = {"10 ms a unit": 0.01, "1 s a unit": 1.0, "10 s a unit": 10.0}
MB = 10**6


@contextmanager
def workers(count: int) -> Iterator[Any]:
    """Our own cluster of so many workers of one thread; gives its client."""
    from distributed import Client

    classes = {"cpu": {**OWN_CLUSTER["classes"]["cpu"], "workers": {"min": count, "max": count}}}
    with (
        dms.cluster({**OWN_CLUSTER, "classes": classes}) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(count)
        yield client


def spread(x: float, values: Sequence[float]) -> Point:
    """Return a point of a curve: the median and the ends of the rounds."""
    return x, statistics.median(values), min(values), max(values)


def efficiency(seconds: dict[int, list[float]]) -> list[Point]:
    """Return T(1) / (n T(n)) of the rounds, by the number of workers."""
    return [
        spread(count, [one / (count * many) for one, many in zip(seconds[1], taken, strict=True)])
        for count, taken in sorted(seconds.items())
    ]


def of_workers(folder: Path, rounds: int, units: int, rows: int) -> list[dict[str, Any]]:
    """Measure 1 and 2 workers in turn, every round with clusters of its own."""
    steps = steps_for(0.01)
    computed: dict[int, list[float]] = {1: [], 2: []}
    made: dict[int, list[float]] = {1: [], 2: []}
    url = table(folder, rows)
    for turn in range(rounds):
        for count in (1, 2) if turn % 2 == 0 else (2, 1):
            with workers(count) as client:
                dms.map(calls.computing, [1] * 200, client=client)  # imports, and what a task costs here
                computed[count].append(timed(lambda _: compute(client, steps, units), folder)[0])
                features(client, url, folder)
                made[count].append(features(client, url, folder))
    return [
        {"name": "units of 10 ms, computing", "points": efficiency(computed)},
        {"name": f"features of {rows * data.ROW_BYTES / MB:,.0f} MB", "points": efficiency(made)},
    ]


def compute(client: Any, steps: int, units: int) -> None:
    """Compute so many units on a cluster."""
    dms.map(calls.computing, [steps] * units, client=client)


def simulated(seconds: float = 300.0) -> list[dict[str, Any]]:
    """Return the share of the slots' time that is spent on units, filling included, by the model."""
    return [
        {"name": name, "simulated": True, "points": [
            spread(count, [simulate(count * THREADS, constant(unit), seconds=seconds).slots]) for count in WORKERS]}
        for name, unit in UNITS.items()
    ]  # fmt: skip


def table(folder: Path, rows: int, client: Any | None = None) -> str:
    """Return the URL of a table of so many rows."""
    return data.write(folder / f"numbers-{rows}.zarr", "benchmarks.feature_data:numbers", rows, chunks(rows), client)


def features(client: Any, url: str, folder: Path) -> float:
    """Return the seconds of fitting and writing the features of a table."""

    def run(into: Path) -> None:
        with client.as_current():
            dms.Recipe(STEPS, known_at=KNOWN_AT).fit_transform(url, str(into / "features.zarr"))

    return timed(run, folder)[0]


def copied(client: Any, url: str, folder: Path) -> float:
    """Return the seconds in which xarray copies a table on the same workers."""
    import xarray as xr

    def run(into: Path) -> None:
        with client.as_current():
            xr.open_zarr(url, consolidated=False).to_zarr(into / "copy.zarr", consolidated=False)

    return timed(run, folder)[0]


def of_data(folder: Path, rounds: int, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Measure tables of ``sizes`` bytes on two workers; every table is removed when it is done."""
    found: dict[str, list[Point]] = {"features": [], "the table copied by xarray": []}
    with workers(2) as client:
        for size in sizes:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                here = Path(place)
                url = table(here, size // data.ROW_BYTES, client)
                runs = dict(zip(found, (features, copied), strict=True))
                for run in runs.values():
                    run(client, url, here)  # imports, and the pages of the table in memory
                taken: dict[str, list[float]] = {name: [] for name in found}
                for _ in range(rounds):
                    for name, run in runs.items():
                        taken[name].append(run(client, url, here))
                for name, values in taken.items():
                    found[name].append(spread(size / MB, values))
                print(f"{size / MB:,.0f} MB: {taken}", flush=True)
    return [{"name": name, "points": points} for name, points in found.items()]


def sizes_to(most: float) -> list[int]:
    """Return 10 MB, 30, 100, ... bytes up to ``most`` bytes."""
    return [size for power in (7, 8, 9, 10) for size in (10**power, 3 * 10**power) if size <= most]


REAL = "Real: two cores, which driver and scheduler share with the workers."
MODEL = "Simulated: four threads a worker, 1.7 ms of a scheduler per task, the beginning of a stage included."
SMALL = "Two workers. What a stage takes whatever its size keeps the exponent of small tables below 1."


def curves(folder: Path, rounds: int, most: float, small: bool, only: str = "") -> list[dict[str, Any]]:
    """Measure and return the curves of a result file."""
    found: list[dict[str, Any]] = []
    if only in ("", "workers"):
        units, rows, seconds = (300, 100_000, 60.0) if small else (3_000, 3_000_000, 300.0)
        lines = [*of_workers(folder, rounds, units, rows), *simulated(seconds)]
        about = {"name": "Efficiency against workers", "x": "workers", "y": "efficiency", "note": f"{REAL} {MODEL}"}
        found.append({**about, "lines": lines})
    if only in ("", "data"):
        about = {"name": "Seconds against data", "x": "data, MB in memory", "y": "seconds", "note": SMALL}
        found.append({**about, "lines": of_data(folder, rounds, sizes_to(most))})
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, and write the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--gb", type=float, default=1.0, help="size of the largest table; 1 by default")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; default 3")
    parser.add_argument("--only", default="", choices=("workers", "data"))
    parser.add_argument("--small", action="store_true", help="tables up to 100 MB, a tenth of the units")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    before, began = load(), time.perf_counter()
    most = min(options.gb, 0.1) if options.small else options.gb
    with tempfile.TemporaryDirectory(prefix="daskml-bench-") as folder:
        found = curves(Path(folder), options.repeat, most * 10**9, options.small, options.only)
    for curve in found:
        print(curve["name"], *(f"  {line['name']}: {line['points']}" for line in curve["lines"]), sep="\n")
    if options.json:
        about = {"size": "small" if options.small else "full", "repeat": options.repeat, **machine(), "load": before}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        seconds = round(time.perf_counter() - began, 1)
        options.json.write_text(json.dumps({**about, "seconds": seconds, "curves": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
