"""Timing and JSON for all benchmarks: us and the peers in turn, several times, medians and ratios.

A benchmark gives ``Work``: what is done, our runner, the peers' runners, and the least time that the
machine allows. Runners take turns and the first one changes every round, so that a noisy neighbour
hits all alike; a ratio is formed within each round and its median is reported. A runner gets an empty
folder, made and removed outside the clock, and may return counts (tasks sent, model loads). One that
repeats itself, or simulates, says its seconds itself as the count ``seconds``.

Nothing here knows what is measured.
"""

from __future__ import annotations

import gc
import importlib
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .machine import cpu

Counts = Mapping[str, float]
Runner = Callable[[Path], "Counts | None"]
SLOTS = 2
"""Worker processes of one thread each, for us and for the peers."""


@dataclass(frozen=True)
class Work:
    """One piece of work that several do.

    Attributes
    ----------
    name : str
    ours : callable
    peers : mapping of name to callable
    limit : float
        Seconds below which this machine cannot do it.
    limit_is : str
        Where that number comes from.
    scaled : mapping of peer to float
        Peers that do only a part, and by what their seconds are multiplied.
    """

    name: str
    ours: Runner
    peers: Mapping[str, Runner]
    limit: float
    limit_is: str
    scaled: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of repeated measurements."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class Row:
    """Us and one peer: seconds, and ``ratio`` = ours / peer within each round (above 1 we are slower)."""

    work: str
    peer: str
    ours: Spread
    theirs: Spread
    ratio: Spread
    limit: float
    limit_is: str
    scaled: float
    counts: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Bench:
    """What every benchmark is given.

    Attributes
    ----------
    size : str
        ``toy``, ``small`` or ``full``.
    repeat : int
        Rounds.
    folder : Path
        Shared by all benchmarks of a run.
    stack : ExitStack
        Closes what was opened.
    only : str
        Part of the names of the works that are wanted; all by default.
    """

    size: str
    repeat: int
    folder: Path
    stack: ExitStack
    only: str = ""

    def wants(self, *names: str) -> bool:
        """Return whether a work of one of these names is to be measured: ask before preparing much for it."""
        return any(self.only in name for name in names)

    @cached_property
    def client(self) -> Any:
        """Client of a plain Dask cluster of two workers, started when it is first used; not the default client."""
        return self.stack.enter_context(two_workers())

    @cached_property
    def own(self) -> Any:
        """Client of our own local cluster of two workers, each process for itself; not the default client."""
        return self.stack.enter_context(own_cluster())

    def warm(self, work: Work, but: str = "") -> None:
        """Run everybody once, ``but`` a peer: imports, pools and caches are outside the clock."""
        for runner in (work.ours, *(runner for name, runner in work.peers.items() if name != but)):
            runner(Path(tempfile.mkdtemp(dir=self.folder)))

    def compare(self, works: Iterable[Work]) -> list[Row]:
        """Measure every work and return its rows, our worst ratio first."""
        rows = [row for work in works if self.wants(work.name) for row in _rows(work, self.repeat, self.folder)]
        return sorted(rows, key=lambda row: -row.ratio.median)


def _rows(work: Work, repeat: int, folder: Path) -> list[Row]:
    runners = {"ours": work.ours, **work.peers}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    counts: dict[str, dict[str, float]] = {}
    for turn in range(repeat):
        names = list(runners)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken, found = timed(runners[name], folder)
            seconds[name].append(taken * work.scaled.get(name, 1.0))
            counts[name] = dict(found)
    ours = seconds["ours"]
    return [
        Row(
            work=work.name,
            peer=peer,
            ours=Spread.of(ours),
            theirs=Spread.of(seconds[peer]),
            ratio=Spread.of([mine / other for mine, other in zip(ours, seconds[peer], strict=True)]),
            limit=work.limit,
            limit_is=work.limit_is,
            scaled=work.scaled.get(peer, 1.0),
            counts={"ours": counts["ours"], "peer": counts[peer]},
        )
        for peer in work.peers
    ]


def timed(runner: Runner, folder: Path) -> tuple[float, Counts]:
    """Run once in a folder of its own; return seconds and what it counted."""
    own = Path(tempfile.mkdtemp(dir=folder))
    gc.collect()
    started = time.perf_counter()
    try:
        found = dict(runner(own) or {})
        taken = time.perf_counter() - started
        return found.pop("seconds", taken), found
    finally:
        shutil.rmtree(own, ignore_errors=True)


def costing(runner: Runner) -> Runner:
    """Return a runner that counts CPU seconds, too (see `machine.cpu`), unless it counts its own."""

    def run(folder: Path) -> Counts:
        before = cpu()
        found = dict(runner(folder) or {})
        return {"CPU s": round(cpu() - before, 3), **found}

    return run


def costed(work: Work) -> Work:
    """Return the work with `costing` around all its runners."""
    return replace(work, ours=costing(work.ours), peers={name: costing(runner) for name, runner in work.peers.items()})


def installed(package: str) -> bool:
    """Return whether a peer is installed and imports; says why it is left out where it does not."""
    try:
        importlib.import_module(package)
    except Exception as error:
        print(f"{package} is left out: {type(error).__name__}: {error}")
        return False
    return True


def elsewhere(python: str, script: str, *words: object) -> Counts:
    """Run a program of this folder in a peer's interpreter; return the counts of its last line."""
    command = [python, str(Path(__file__).with_name(script)), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{script} failed: {done.stderr[-2000:]}")
    found: Counts = json.loads(done.stdout.splitlines()[-1])
    return found


def least(function: Callable[[], object], times: int = 3) -> float:
    """Return the shortest of a few runs in seconds: the estimate of a limit."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return min(found)


@contextmanager
def two_workers() -> Iterator[Any]:
    """A plain Dask cluster of two single-threaded worker processes on loopback, the same for us and for peers.

    Its client is not the default one. See `counting` for the tasks that it is sent.
    """
    from distributed import Client, LocalCluster
    from distributed.diagnostics.plugin import SchedulerPlugin

    class Tasks(SchedulerPlugin):  # type: ignore[misc]
        name = "tasks"
        sent = 0

        def update_graph(self, scheduler: Any, *, tasks: Sequence[Any], **more: Any) -> None:
            self.sent += len(tasks)

    with (
        LocalCluster(
            n_workers=SLOTS, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.scheduler.add_plugin(Tasks())
        yield client


OWN_CLUSTER = {
    "version": 1,
    "name": "bench",
    "backend": "local",
    "classes": {"cpu": {"workers": {"min": SLOTS, "max": SLOTS}, "threads": 1, "memory": "auto"}},
    "dashboard": {"listen": "127.0.0.1:0"},
}


@contextmanager
def own_cluster() -> Iterator[Any]:
    """The local cluster that our users get, with two workers: the scheduler does not share the driver's process."""
    from distributed import Client

    import daskml_scale as dms

    with dms.cluster(OWN_CLUSTER) as cluster, Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(SLOTS)
        yield client


def counting(client: Any, function: Callable[[], object]) -> Runner:
    """Return a runner that calls ``function`` and counts the tasks that the scheduler of `two_workers` is given."""

    def run(folder: Path) -> Counts:
        tasks = client.cluster.scheduler.plugins["tasks"]
        before = tasks.sent
        function()
        return {"tasks": tasks.sent - before}

    return run


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as JSON values."""
    return [asdict(row) for row in rows]
