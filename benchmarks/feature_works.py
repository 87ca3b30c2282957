"""The feature benchmarks that need more than the flights: tables of any size, made for it.

Each function is one row of the goals: what is done, who else does it, and what the machine allows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import daskml_scale as dms

from . import feature_data as data
from . import feature_peers as peers
from .common import OWN_CLUSTER, Bench, Counts, Runner, Work, installed, least

GB = 10**9
BYTES = {"toy": 200_000, "small": GB // 20, "full": GB}
"""Of the table of numbers in memory; ``DASKML_BENCH_GB`` says otherwise."""
LIMIT = os.environ.get("DASKML_BENCH_MEMORY", "1.5GiB")
"""Memory of a worker."""
ASKED = os.environ.get("DASKML_BENCH_WORKS", "flights,encode,refit,roll,join")
"""Which works are done."""


def size(bench: Bench) -> int:
    """Return how many bytes a table should have in memory."""
    asked = os.environ.get("DASKML_BENCH_GB")
    return int(float(asked) * GB) if asked and bench.size == "full" else BYTES[bench.size]


def chunks(rows: int, least_chunks: int = 8, most: int = 250_000) -> int:
    """Return rows per chunk."""
    return max(1, min(most, -(-rows // least_chunks)))


@dataclass(frozen=True)
class Setting:
    """A table and where work is done.

    Attributes
    ----------
    client : distributed.Client
        Of two workers with `LIMIT` of memory each.
    ranges : list of (start, stop)
        Rows of every chunk.
    """

    bench: Bench
    client: Any
    url: str
    rows: int
    ranges: list[tuple[int, int]]

    @property
    def folder(self) -> Path:
        return Path(self.url).parent


@contextmanager
def small_workers() -> Iterator[Any]:
    """Our own cluster of two workers, with the memory limit of the goal."""
    from distributed import Client

    cpu = {"workers": {"min": 2, "max": 2}, "threads": 1, "memory": LIMIT}
    with (
        dms.cluster({**OWN_CLUSTER, "classes": {"cpu": cpu}}) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(2)
        yield client


def works(bench: Bench) -> Iterator[Work]:
    """Yield what can be done here of what is asked; a table is made when it is needed."""
    asked = ASKED.split(",")
    if not {"encode", "refit", "roll", "join"} & set(asked):
        return
    client = bench.stack.enter_context(small_workers())
    if {"encode", "refit"} & set(asked):
        numbers = _setting(bench, client, "numbers", size(bench) // data.ROW_BYTES, "benchmarks.feature_data:numbers")
        yield from [encoded(numbers)] if "encode" in asked else []
        yield from refitted(numbers) if "refit" in asked else []
    if "roll" in asked:
        steps = 120 * 8
        vehicles = max(4, size(bench) // (100 * steps))
        options = {"vehicles": vehicles, "days": 120}
        whole = max(1, min(250, vehicles // 4)) * steps
        yield rolled(_setting(bench, client, "fleet", vehicles * steps, "fleet_data:readings", whole, **options))
    if "join" in asked:
        yield joined(bench, client)


def _setting(bench: Bench, client: Any, name: str, rows: int, function: str, chunk: int = 0, **options: Any) -> Setting:
    chunk = chunk or chunks(rows)
    folder = bench.folder / "works"
    folder.mkdir(exist_ok=True)
    url = data.write(folder / f"{name}.zarr", function, rows, chunk, client, **options)
    return Setting(bench, client, url, rows, [(at, min(rows, at + chunk)) for at in range(0, rows, chunk)])


STEPS = [
    {"impute": {"of": list(data.NUMBERS), "by": "mean"}},
    {"standardize": {"of": list(data.NUMBERS)}},
    *[{"one_hot": {"of": name, "levels": list(labels), "unknown": "zeros"}} for name, labels in data.KINDS.items()],
]
WIDTH = len(data.NUMBERS) + sum(map(len, data.KINDS.values()))
KNOWN_AT = "time('2024-01-01')"


def encoded(setting: Setting) -> Work:
    """Standardize, impute and one-hot: against copying as many bytes, scikit-learn in memory, and dask-ml."""

    def ours(into: Path) -> Counts:
        return {**features(setting, STEPS, KNOWN_AT, into), **peak(setting.client)}

    def copied(into: Path) -> None:
        target = str(into / "copy.zarr")
        _empty(target, setting, WIDTH)
        peers.in_partitions(setting.client, peers.copy, setting.ranges, setting.url, WIDTH, target)

    found: dict[str, Runner] = {"identity copy, 2 workers": copied}
    if setting.rows * data.ROW_BYTES * 4 < _free():
        found["scikit-learn, 1 process"] = lambda into: peers.by_scikit_learn(setting.url, setting.rows, into)
    if setting.rows * data.ROW_BYTES <= 2 * GB and installed("dask_ml"):  # its goal is one of 1 GB
        found["dask-ml, 2 workers"] = lambda into: peers.by_dask_ml(setting.client, setting.url, setting.ranges, into)
    moved = setting.rows * (2 * data.ROW_BYTES + 4 * WIDTH)
    limit, limit_is = _disk(setting, moved)
    return _work(f"standardize, impute, one-hot, {_size(setting)}", setting.client, ours, found, limit, limit_is)


def refitted(setting: Setting) -> list[Work]:
    """Refit after 1 % of the chunks changed (one, where there are fewer than 100), against the full fit."""
    from daskml_scale.storage import stores

    recipe = dms.Recipe(STEPS, known_at=KNOWN_AT)
    part = max(1, len(setting.ranges) // 100)

    def full(into: Path) -> Counts:
        recipe.fit_transform(setting.url, str(into / "features.zarr"))
        return _counted()

    def fitted() -> int:
        """Fit in this process; return the bytes that it read, the looks at metadata and at what changed among them."""
        before = _bytes_read()
        dms.Recipe(STEPS, known_at=KNOWN_AT).fit(setting.url)
        return _bytes_read() - before

    def ours(into: Path) -> Counts:
        # The change is made, and undone next time, by writing other values into the first chunks.
        for start, stop in setting.ranges[:part]:
            values = stores.read_region(setting.url, "x0", [(start, stop)])
            stores.write_region(setting.url, start, {"x0": -values})
        return {"% of the bytes of a full fit": round(100 * fitted() / whole, 2), **_counted()}

    whole = fitted()
    limit, limit_is = _disk(setting, part * setting.rows // len(setting.ranges) * data.ROW_BYTES)
    name = f"refit, {part} of {len(setting.ranges)} chunks changed"
    return [_work(name, setting.client, ours, {"full fit and transform": full}, limit, limit_is)]


def rolled(setting: Setting) -> Work:
    """Rolling and trailing windows of a fleet, against pandas groupby-rolling by Dask partitions of whole vehicles."""
    at = {"at": "time", "match": ["vehicle"]}
    steps = [
        {"rolling": {"of": "vibration", **at, "events": 24, "stats": ["mean", "std", "max"], "within": "7d"}},
        {"trailing": {"of": "load", **at, "windows": ["7d"], "stat": "mean"}},
    ]

    def ours(into: Path) -> Counts:
        return {**features(setting, steps, "time", into), **peak(setting.client)}

    def pandas(into: Path) -> None:
        peers.in_partitions(setting.client, peers.rolled, setting.ranges, setting.url, 24, "7D", str(into))

    limit, limit_is = _disk(setting, setting.rows * (4 * 8 + 4 * 4))
    name = f"rolling and trailing, fleet of {_size(setting, 100)}"
    return _work(name, setting.client, ours, {"pandas groupby-rolling, 2 workers": pandas}, limit, limit_is)


def joined(bench: Bench, client: Any) -> Work:
    """As-of join of ten rows to one, against ``merge_asof`` by Dask partitions."""
    rows = {"toy": 2_000, "small": 200_000, "full": 10_000_000}[bench.size]
    options = {"keys": max(10, rows // 1000), "span": 10**6}
    left = _setting(bench, client, "left", rows, "benchmarks.feature_data:events", **options)
    right = _setting(
        bench, client, "right", rows // 10, "benchmarks.feature_data:events", **{**options, "span": 10**7}, seed=3
    )
    steps = [{"as_of": {"table": "facts", "match": ["key"], "their_time": "when", "take": ["value"]}}]

    def ours(into: Path) -> Counts:
        return features(left, steps, "when", into, {"facts": right.url})

    def pandas(into: Path) -> None:
        peers.joined_all(client, left.ranges, left.url, right.url, right.rows, str(into))

    limit, limit_is = _disk(left, rows * (2 * 8 + 4))
    name = f"as-of join, {rows:,} x {right.rows:,} rows"
    return _work(name, client, ours, {"pandas merge_asof, 2 workers": pandas}, limit, limit_is)


def _work(name: str, client: Any, ours: Runner, others: Mapping[str, Runner], limit: float, limit_is: str) -> Work:
    counted = {peer: with_cpu(client, runner) for peer, runner in others.items()}
    return Work(name, with_cpu(client, ours), counted, limit, limit_is)


def features(
    setting: Setting, steps: list[Any], known_at: str, into: Path, tables: Mapping[str, str] | None = None
) -> Counts:
    """Fit and transform on the cluster, Zarr to Zarr."""
    recipe = dms.Recipe(steps, known_at=known_at)
    with setting.client.as_current():
        recipe.fit_transform(setting.url, str(into / "features.zarr"), tables=tables)
    return _counted()


def with_cpu(client: Any, runner: Runner) -> Runner:
    """Return a runner that counts the processor seconds of this process and of the workers, too."""

    def spent() -> float:
        import time

        return time.process_time() + sum(client.run(time.process_time).values())

    def run(into: Path) -> Counts:
        before = spent()
        found = dict(runner(into) or {})
        return {**found, "CPU s": round(spent() - before, 2)}

    return run


def peak(client: Any) -> Counts:
    """Return the most memory that a worker process has taken so far, in MB, as its kernel counts it, and the limit.

    A worker that was ended for its memory is no more: the name of its successor has a higher number.
    """

    def most() -> float:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    names = [str(worker["name"]) for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
    lost = max(int(name.rpartition("-")[2]) for name in names) - len(names) + 1
    return {"MB of a worker at most": round(max(client.run(most).values())), "workers lost": max(0, lost)}


def _bytes_read() -> int:
    """Return the bytes that this process has read from files so far, the operating system's cache among them."""
    import psutil

    return int(psutil.Process().io_counters().read_chars)


def _counted() -> dict[str, float]:
    row = dms.last_run()
    return {} if row is None else {"units": row.units, "reused": row.reused}


def _empty(url: str, setting: Setting, width: int) -> None:
    from daskml_scale.plan.units import Template, Variable
    from daskml_scale.storage import stores

    chunk = setting.ranges[0][1]
    variable = Variable("float32", ("row", "feature"), (setting.rows, width), (chunk, width))
    stores.create(url, Template("row", setting.rows, {"features": variable}))


def _disk(setting: Setting, moved: int) -> tuple[float, str]:
    """Return the seconds that moving bytes takes at the speed of writing one plain file."""
    block = np.zeros(max(1, min(moved, 64 << 20) // 8))
    seconds = least(lambda: np.save(setting.folder / "limit.npy", block))
    return seconds * moved / max(1, block.nbytes), f"{moved / 1e6:,.0f} MB at the speed of one plain file"


def _size(setting: Setting, row_bytes: int = data.ROW_BYTES) -> str:
    return f"{setting.rows * row_bytes / 1e6:,.0f} MB"


def _free() -> int:
    import psutil

    return int(psutil.virtual_memory().available)
