"""What does a unit cost? Many small calls on two workers: us, ``client.map``, and joblib.

Plain Dask sends one task per call, so it runs a part of the first tiny calls and its seconds are scaled,
taking its cost per call as constant. The limit is the calls themselves, shared by the slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import daskml_scale as dms

from .common import SLOTS, Bench, Counts, Row, Runner, Work, counting, least

Call = Callable[[int], int]


@dataclass(frozen=True)
class Size:
    """Numbers of calls of about 1 us and of 5 ms, and how many of the first tiny ones plain Dask runs."""

    tiny: tuple[int, ...]
    part: int
    short: int


SIZES = {
    "toy": Size((200,), 50, 20),
    "small": Size((20_000, 100_000), 2_000, 600),
    "full": Size((20_000, 100_000), 5_000, 2_000),
}


def tiny(number: int) -> int:
    """About 1 us."""
    return sum(range(number % 7 + 40))


def short(loops: int) -> int:
    """As many steps as were measured to take 5 ms."""
    total = 0
    for step in range(loops):
        total += step & 3
    return total


def measure(bench: Bench) -> list[Row]:
    """Return the rows of this question."""
    wanted = SIZES[bench.size]
    loops = round(10_000 * 0.005 / least(lambda: short(10_000)))
    client = bench.client
    for runner in (_ours, _plain, _joblib):
        runner(client, tiny, [1] * 20)(bench.folder)  # imports and pools start outside the clock
    first, *others = wanted.tiny
    works = [
        _work(client, f"{first:,} calls of 1 us", tiny, list(range(first)), wanted.part),
        *(_work(client, f"{count:,} calls of 1 us", tiny, list(range(count)), 0) for count in others),
        _work(client, f"{wanted.short:,} calls of 5 ms", short, [loops] * wanted.short, wanted.short),
    ]
    return bench.compare(works)


def _work(client: Any, name: str, function: Call, items: list[int], part: int) -> Work:
    sample = items[:100]
    seconds = least(lambda: [function(item) for item in sample]) * len(items) / len(sample)
    peers = {"joblib loky": _joblib(client, function, items)}
    if part:
        peers["client.map"] = _plain(client, function, items[:part])
    return Work(
        name,
        _ours(client, function, items),
        peers,
        limit=seconds / SLOTS,
        limit_is=f"the calls alone on {SLOTS} slots",
        scaled={"client.map": len(items) / part} if part else {},
    )


def _ours(client: Any, function: Call, items: list[int]) -> Runner:
    return counting(client, lambda: checked(dms.map(function, items, client=client), items))


def _plain(client: Any, function: Call, items: list[int]) -> Runner:
    return counting(client, lambda: checked(client.gather(client.map(function, items, pure=False)), items))


def _joblib(client: Any, function: Call, items: list[int]) -> Runner:
    import joblib

    def run(folder: Path) -> Counts:
        parallel = joblib.Parallel(n_jobs=SLOTS, backend="loky")
        checked(parallel(joblib.delayed(function)(item) for item in items), items)
        return {"tasks": parallel.n_dispatched_batches}

    return run


def checked(found: list[int], items: list[int]) -> None:
    """Refuse a runner that did not do the work."""
    if len(found) != len(items):
        raise RuntimeError(f"{len(found)} results of {len(items)} calls")
