"""Who maps a function over items in `dispatch`: us, plain Dask, joblib, ``multiprocessing.Pool`` and Ray.

Every method returns a runner; processes, imports and caches are started once, outside the clock.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import daskml_scale as dms

from . import calls
from .common import SLOTS, Bench, Runner
from .watch import Watch, timing


@dataclass(frozen=True)
class Runners:
    """Everybody who can do the work.

    Attributes
    ----------
    pool : multiprocessing.pool.Pool
    ray : module or None
    """

    bench: Bench
    watch: Watch
    pool: Any
    ray: Any

    @classmethod
    def of(cls, bench: Bench) -> Runners:
        """Start them, so that imports and processes are outside the clock."""
        # Forking a process with running threads may hang; a fork server has none.
        pool = bench.stack.enter_context(multiprocessing.get_context("forkserver").Pool(SLOTS))
        found = cls(bench, Watch(bench.own), pool, _ray(bench))
        for runner in (found.ours(calls.tiny, [1] * 20), found.joblib(calls.tiny, [1] * 20)):
            runner(bench.folder)
        pool.map(calls.tiny, [1] * 20)
        return found

    def ours(self, call: Callable[..., Any], items: Sequence[Any]) -> Runner:
        client = self.watch.client
        return timing(lambda folder: dms.map(call, items, client=client), len(items), self.watch)

    def durable(self, call: Callable[..., Any], items: Sequence[Any]) -> Runner:
        client = self.watch.client
        return timing(lambda folder: dms.map(call, items, client=client, out=folder / "out"), len(items), self.watch)

    def plain(self, call: Callable[..., Any], items: Sequence[Any]) -> Runner:
        client = self.watch.client
        return timing(lambda folder: client.gather(client.map(call, items, pure=False)), len(items), self.watch)

    def joblib(self, call: Callable[..., Any], items: Sequence[Any]) -> Runner:
        import joblib

        parallel = joblib.Parallel(n_jobs=SLOTS, backend="loky")
        return timing(lambda folder: parallel(joblib.delayed(call)(item) for item in items), len(items))

    def memory(self, call: Callable[..., Any], items: Sequence[Any]) -> Runner:
        """joblib with a cache on disk: the peer that keeps results."""
        import joblib

        def run(folder: Path) -> list[Any]:
            kept = joblib.Memory(folder, verbose=0).cache(call)
            found: list[Any] = joblib.Parallel(n_jobs=SLOTS, backend="loky")(joblib.delayed(kept)(i) for i in items)
            return found

        return timing(run, len(items))

    def chunks(self, call: Callable[..., Any], items: Sequence[Any], size: int) -> Runner:
        return timing(lambda folder: list(self.pool.imap_unordered(call, items, chunksize=size)), len(items))

    def rays(self, call: Callable[..., Any], items: Sequence[Any]) -> Runner:
        remote = self.ray.remote(call)
        return timing(lambda folder: self.ray.get([remote.remote(item) for item in items]), len(items))


def _ray(bench: Bench) -> Any:
    if importlib.util.find_spec("ray") is None:
        return None
    ray = importlib.import_module("ray")
    ray.init(num_cpus=SLOTS, include_dashboard=False, log_to_driver=False)
    bench.stack.callback(ray.shutdown)
    ray.get([ray.remote(calls.tiny).remote(1) for _ in range(20)])
    return ray
