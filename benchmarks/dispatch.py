"""What does a unit cost? Many calls on two workers: us, ``client.map``, joblib and ``multiprocessing.Pool``.

We and plain Dask use the same cluster, our own local one: scheduler and workers are processes of their own.
The pools have two processes as well, started outside the clock. Plain Dask, joblib.Memory and Ray (where it is
installed) run the first part of the tiny calls, and their seconds are scaled: their cost per call is constant.

"% busy" is the time that the calls themselves measured, over the slots' time. Where the workers have all cores,
driver and scheduler take theirs from the calls, which then last longer; "% CPU" shows that. The rows of 1,000
workers are simulated, in seconds per second of work.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import daskml_scale as dms

from . import calls
from .common import SLOTS, Bench, Counts, Row, Runner, Work, least
from .runners import Runners
from .watch import fresh, growth

CHUNK = 1000
"""Calls that a pool sends at a time, tiny ones and payloads."""
PAYLOAD = 200
"""Bytes."""
SHORT = 0.005
MEAN, SIGMA = 0.01, 2.0
"""Of the uneven calls: seconds, and the standard deviation of their logarithm."""
CRASH = 0.0004
"""Seconds of a call beside the one that crashes."""


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes
    ----------
    tiny, part, kept : int
        Calls of about 1 us, and how many of them plain Dask and joblib.Memory run.
    short, uneven, payloads : int
        Calls of 5 ms, of lognormal length, and with payloads.
    crash, crashes : int
        Calls of which one crashes, and how often that is done.
    slots, seconds : int
        Of the simulated cluster.
    """

    tiny: int
    part: int
    kept: int
    short: int
    uneven: int
    payloads: int
    crash: int
    crashes: int
    slots: int
    seconds: int


SIZES = {
    "toy": Size(200, 50, 20, 20, 20, 2_000, 50, 1, 80, 20),
    "small": Size(100_000, 500, 100, 600, 300, 100_000, 20_000, 1, 8_000, 100),
    "full": Size(100_000, 2_000, 500, 4_000, 2_000, 1_000_000, 20_000, 20, 8_000, 300),
}


def measure(bench: Bench) -> list[Row]:
    """Return the rows of this question."""
    size, runners = SIZES[bench.size], Runners.of(bench)
    per_step = least(lambda: calls.spin(100_000)) / 100_000
    return bench.compare(
        [
            *_tiny(runners, size),
            *_short(runners, size, per_step),
            *_uneven(runners, size, per_step),
            _payloads(runners, size),
            *_simulated(size),
            # Last, since it leaves workers behind that just started.
            _crash(runners, size, round(CRASH / per_step)),
        ]
    )


def _tiny(runners: Runners, size: Size) -> Iterator[Work]:
    items, name = list(range(size.tiny)), f"{size.tiny:,} calls of 1 us"
    sample = items[:100]
    limit = least(lambda: [calls.tiny(item) for item in sample]) * len(items) / len(sample) / SLOTS
    limit_is = f"the calls alone on {SLOTS} slots"
    peers = {
        "client.map": runners.plain(calls.tiny, items[: size.part]),
        "joblib loky": runners.joblib(calls.tiny, items),
        "Pool in chunks": runners.chunks(calls.tiny, items, CHUNK),
    }
    scaled = {"client.map": size.tiny / size.part}
    if runners.ray is not None:
        peers["Ray tasks"] = runners.rays(calls.tiny, items[: size.part])
        scaled["Ray tasks"] = size.tiny / size.part
    yield Work(name, runners.ours(calls.tiny, items), peers, limit, limit_is, scaled)
    keeping = {
        "joblib.Memory": runners.memory(calls.tiny, items[: size.kept]),
        "joblib loky, keeping nothing": runners.joblib(calls.tiny, items),
    }
    scaled = {"joblib.Memory": size.tiny / size.kept}
    yield Work(f"{name}, durable", runners.durable(calls.tiny, items), keeping, limit, limit_is, scaled)


def _short(runners: Runners, size: Size, per_step: float) -> Iterator[Work]:
    count = size.short
    for does, call, item in (
        ("sleeping", calls.sleeping, SHORT),
        ("computing", calls.computing, round(SHORT / per_step)),
    ):
        items = [item] * count
        peers = {
            "Pool in chunks": runners.chunks(call, items, max(1, count // 100)),
            "joblib loky": runners.joblib(call, items),
            "client.map": runners.plain(call, items),
        }
        limit_is = f"5 ms each on {SLOTS} slots"
        yield Work(f"{count:,} x 5 ms {does}", runners.ours(call, items), peers, count * SHORT / SLOTS, limit_is)


def _uneven(runners: Runners, size: Size, per_step: float) -> Iterator[Work]:
    count, drawn = size.uneven, random.Random(7)
    seconds = [drawn.lognormvariate(0, SIGMA) for _ in range(count)]
    factor = MEAN * count / sum(seconds)
    seconds = [factor * each for each in seconds]
    limit = max(MEAN * count / SLOTS, *seconds)
    for does, call, items in (
        ("sleeping", calls.sleeping, seconds),
        ("computing", calls.computing, [round(each / per_step) for each in seconds]),
    ):
        peers = {"Pool one by one": runners.chunks(call, items, 1), "joblib loky": runners.joblib(call, items)}
        limit_is = f"their seconds on {SLOTS} slots, or the longest one"
        yield Work(f"{count:,} uneven, mean 10 ms, {does}", runners.ours(call, items), peers, limit, limit_is)


def _payloads(runners: Runners, size: Size) -> Work:
    watch, count = runners.watch, size.payloads
    address = watch.client.scheduler.address

    def ours(folder: Path) -> Counts:
        watch.now()
        return {**fresh(_our_growth, address, count), "tasks a slot at most": watch.most() / SLOTS}

    sample = [bytes(PAYLOAD)] * 1000
    limit = least(lambda: [calls.length(item) for item in sample]) * count / len(sample) / SLOTS
    name = f"{count:,} payloads of {PAYLOAD} bytes from a generator"
    peers = {"Pool in chunks": lambda folder: fresh(_pool_growth, count)}
    return Work(name, ours, peers, limit, f"the calls alone on {SLOTS} slots")


def _our_growth(address: str, count: int) -> Counts:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        dms.map(calls.length, [b""] * 2000, client=client)  # imports are outside the clock
        return growth(functools.partial(dms.map, calls.length, client=client, as_completed=True), count, PAYLOAD)


def _pool_growth(count: int) -> Counts:
    with multiprocessing.get_context("forkserver").Pool(SLOTS) as pool:
        pool.map(calls.length, [b""] * 2000)
        return growth(lambda items: pool.imap_unordered(calls.length, items, chunksize=CHUNK), count, PAYLOAD)


def _crash(runners: Runners, size: Size, steps: int) -> Work:
    client, drawn = runners.watch.client, random.Random(7)
    part = max(1, size.crash // 40)

    def ours(folder: Path) -> Counts:
        found = []
        for turn in range(size.crashes):
            client.wait_for_workers(SLOTS)
            path, guilty = str(folder / f"{turn}.calls"), drawn.randrange(size.crash)
            items = [(path, number, steps, number == guilty) for number in range(size.crash)]
            started = time.perf_counter()
            outcomes = dms.map(calls.crashing, items, client=client, as_completed=True)
            failed = {int(outcome.unit.key) for outcome in outcomes if outcome.error}
            found.append((time.perf_counter() - started, os.path.getsize(path) - size.crash, failed ^ {guilty}))
        seconds, extra, wrong = zip(*found, strict=True)
        return {
            "seconds": statistics.median(seconds),
            "runs": size.crashes,
            "s at most": max(seconds),
            "extra executions": statistics.median(extra),
            "at most": max(extra),
            "wrongly quarantined": sum(map(len, wrong)),
        }

    def plain(folder: Path) -> Counts:
        other, count, path = runners.bench.client, part, str(folder / "calls")
        items = [(path, number, steps, number == count // 2) for number in range(count)]
        futures = other.map(calls.crashing, items, pure=False)
        other.gather(futures, errors="skip")  # waits for all
        failed = sum(future.status == "error" for future in futures)
        return {"extra executions": os.path.getsize(path) - count, "wrongly quarantined": failed - 1}

    name = f"{size.crash:,} x 0.4 ms, one crashes"
    peers = {f"client.map of {part:,}, no settings": plain}
    return Work(name, ours, peers, CRASH * size.crash / SLOTS, f"the calls that do not crash on {SLOTS} slots")


def _simulated(size: Size) -> Iterator[Work]:
    from daskml_scale.plan.batching import MAX_UNITS
    from daskml_scale.scaling import simulate

    def runner(units: Callable[[], simulate.Draw], costs: simulate.Costs, most: int) -> Runner:
        @functools.cache
        def counts() -> Counts:  # every round would give the same
            found = simulate.simulate(size.slots, units(), seconds=size.seconds, costs=costs, max_units=most)
            return {
                "seconds": 1 / found.slots,
                "% slots busy": 100 * found.slots,
                "% in the first 30 s": 100 * found.first,
                "% scheduler": 100 * found.scheduler,
                "% driver": 100 * found.driver,
                "s a task": found.task_seconds[0],
            }

        return lambda folder: counts()

    slow, quick = simulate.Costs(), simulate.Costs(scheduler=0.0010, driver=0.0006)
    for costs, mean, uneven in (
        *((slow, mean, False) for mean in (0.001, 0.01, 0.1, 1.0, 10.0)),
        *((slow, mean, True) for mean in (0.1, 10.0)),
        (quick, 1.0, False),
    ):
        units = functools.partial(simulate.lognormal if uneven else simulate.constant, mean)
        name = (
            f"simulated {size.slots:,} x {mean:g} s{' uneven' if uneven else ''}, {costs.scheduler * 1e3:g} ms a task"
        )
        peers = {"one unit a task": runner(units, costs, 1)}
        limit = max(1.0, costs.driver_unit * size.slots / mean)
        limit_is = "slots always busy, or the driver's time per unit"
        yield Work(name, runner(units, costs, MAX_UNITS), peers, limit, limit_is)
