"""The fault harness: real runs of the command line, struck by real signals at drawn moments, compared with whole runs.

A test draws a moment (a number of kernel calls) from a seed, starts a ``Run`` whose script holds there, waits with
``reach``, strikes processes by their ids, lets the run ``go`` on, and takes its ``end``. The oracle is

* ``assert_equal``: two stores are equal (DESIGN section 5) when their data and metadata are equal to the byte and
  their ledgers are equal in (unit, fingerprint, digest, status);
* ``assert_only_lost_work_repeated``: a unit runs again only if a struck process had begun it and it was not durable
  at that moment, once per strike; so executions <= units + in flight x kills;
* ``assert_committed_once``;
* and ``end`` itself: no process of the run is left, and nothing of its cluster on disk.

Nothing here waits for a time to pass: it waits for pipes, for processes to end, for segments of a ledger.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
from map_work import SCRIPTS

from daskml_scale.errors import StoreError
from daskml_scale.plan.records import OK, Record
from daskml_scale.storage import result_segments
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.results import segment_names
from daskml_scale.testing import faults
from daskml_scale.testing.faults import REACHED, Script

DRIVER = Path(__file__).parent / "driver.py"
MAP_DRIVER = Path(__file__).parent / "map_driver.py"
MARK = "DASKML_FAULTS_RUN"
"""Environment variable by which all processes of a run are found, orphans too."""
DRIVER_MEMORY = "DASKML_FAULTS_DRIVER_MIB"
"""Environment variable: memory that the driver believes to have."""
UNITS = 80
"""Of the workflow `table`, besides its scan."""
CLUSTER = """
version: 1
name: two
backend: local
classes:
  cpu: {workers: {min: 2, max: 2}, threads: 1, memory: 700MiB}
dashboard: {listen: '127.0.0.1:0'}
"""
ITEMS = 80
"""Of a ``MapRun``."""
MEMORY = 700 << 20
"""Limit of a worker of this cluster, bytes."""


class Draw(random.Random):
    """Everything that chance decides in a case: equal for an equal case and seed."""

    def __init__(self, case: str, seed: int) -> None:
        super().__init__(f"{case} {seed}")

    def moments(self, units: int, number: int = 1, first: int = 1) -> tuple[str, ...]:
        """Return moments of a stage: numbers of calls of its kernel, in order, all while work is left."""
        return tuple(f"call.{call}" for call in sorted(self.sample(range(first, units - 5), number)))


@dataclass(frozen=True)
class Reached:
    """A process of the run that holds at a moment: in the call of a unit, or in the driver."""

    moment: str
    pid: int
    unit: str


@dataclass(frozen=True)
class Strike:
    """A blow: the processes hit (with their descendants), and the units of the stage that were durable before it."""

    pids: frozenset[int]
    durable: frozenset[str]


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    summary: dict[str, Any]
    said: str
    """What it wrote to stderr."""


@dataclass
class Run:
    """One process of the command line, its cluster, and what strikes it.

    Parameters
    ----------
    workflow : Path
    store : Path
    folder : Path
        Of this run alone: accounts, pipes, temporary files.
    stage : str
        The scripted stage.
    cluster : str
        A file or ``none``.
    script : dict
        Fields of `Script`, without the folder.
    environ : mapping
        Further environment variables.
    """

    workflow: Path
    store: Path
    folder: Path
    stage: str
    cluster: str
    script: dict[str, Any]
    environ: Mapping[str, str] = field(default_factory=dict)
    strikes: list[Strike] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "tmp").mkdir(parents=True)
        script = Script(str(self.folder), **self.script)
        names = (REACHED, *(f"go.{moment}" for moment in script.moments))
        for name in names:
            os.mkfifo(self.folder / name)
        # Open for both: no end of file while nobody writes, and none that reads is missed.
        self.pipes = {name: os.open(self.folder / name, os.O_RDWR) for name in names}
        self.heard = b""
        scripts = self.folder / "scripts.json"
        scripts.write_text(json.dumps({self.stage: script.to_dict()}))
        self.mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, *self.command(scripts)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                **self.environ,
                MARK: self.mark,
                SCRIPTS: str(scripts),
                "DASK_TEMPORARY_DIRECTORY": str(self.folder / "tmp"),
                "DASKML_SCALE_HOME": str(self.folder / "home"),
            },
            cwd=self.folder,
            start_new_session=True,
        )
        self.texts = (_Text(self.process.stdout), _Text(self.process.stderr))

    def command(self, scripts: Path) -> list[str]:
        """Return the words after the interpreter."""
        options = ["--store", str(self.store), "--cluster", self.cluster, "--json"]
        return [str(DRIVER), str(scripts), "run", str(self.workflow), *options]

    def durable(self) -> set[str]:
        """Return the units of the scripted stage that are durable now."""
        return durable(self.store, self.stage)

    # Moments

    def reach(self, timeout: float = 120) -> Reached:
        """Wait for the next moment of the script."""
        while b"\n" not in self.heard:
            ready, _, _ = select.select([self.pipes[REACHED], self._end()], [], [], timeout)
            if self.pipes[REACHED] not in ready:
                raise AssertionError(f"the moment was not reached ({'ended' if ready else 'too slow'})\n{self.told()}")
            self.heard += os.read(self.pipes[REACHED], 4096)
        line, _, self.heard = self.heard.partition(b"\n")
        moment, pid, unit = line.decode().split(" ")
        return Reached(moment, int(pid), unit)

    def go(self, reached: Reached) -> None:
        """Let the process that holds go on (or nobody, if it is gone)."""
        os.write(self.pipes[f"go.{reached.moment}"], b"g")

    def _end(self) -> int:
        if not hasattr(self, "_pidfd"):
            self._pidfd = os.pidfd_open(self.process.pid)
        return self._pidfd

    # Processes

    def processes(self) -> list[psutil.Process]:
        """Return every living process of the run, the driver's among them."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def workers(self) -> list[int]:
        """Return the process ids of the workers, in the order of their names."""
        return [pid for _, pid in sorted((words[-1], pid) for pid, words in self._role("daskml-worker"))]

    def schedulers(self) -> list[int]:
        """Return the process id of the scheduler; nothing while there is none."""
        return [pid for pid, _ in self._role("daskml-scheduler")]

    def _role(self, role: str) -> list[tuple[int, list[str]]]:
        found = []
        for process in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if role in (words := process.cmdline()):
                    found.append((process.pid, words))
        return found

    # Blows

    def strike(self, number: signal.Signals, *pids: int, costs: Collection[int] | None = None) -> Strike:
        """Send a signal to processes, each by its id.

        Parameters
        ----------
        costs : collection of int, optional
            The processes whose work is lost by it; those struck by default.
        """
        losers = set(pids if costs is None else costs)
        for pid in list(losers):
            with contextlib.suppress(psutil.NoSuchProcess):
                losers.update(child.pid for child in psutil.Process(pid).children(recursive=True))
        blow = Strike(frozenset(losers), frozenset(self.durable()))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        self.strikes.append(blow)
        return blow

    # The end

    def end(self, timeout: float = 150) -> Ended:
        """Wait until the run ends; check that it leaves no process and no file of its cluster."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            told = self.told(stacks=True)
            raise AssertionError(f"the run does not end within {timeout:g} s\n{told}") from None
        _, left = psutil.wait_procs(self.processes(), timeout=20)
        out, said = (text.whole() for text in self.texts) if not left else ("", "")
        assert not left, f"outlived their driver: {[process.cmdline()[-2:] for process in left]}"
        assert os.listdir(self.folder / "tmp") == []
        return Ended(code, json.loads(out) if out.strip() else {}, said)

    def told(self, stacks: bool = False) -> str:
        """Return what the run wrote so far and which processes it has; with ``stacks``, where its threads are."""
        if stacks and self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
            self.texts[1].wait_for("most recent call first", timeout=5)
        called = len(faults.calls(self.folder))
        roles = [f"{process.pid} {process.status()} {process.cmdline()[-2:]}" for process in self.processes()]
        texts = "\n--\n".join(text.so_far() for text in self.texts)
        return f"{called} calls\n" + "\n".join(roles) + f"\n{texts}"

    def close(self) -> None:
        """End whatever is left, by ids."""
        for process in self.processes():
            process.kill()
        self.process.wait()
        for descriptor in self.pipes.values():
            os.close(descriptor)
        if hasattr(self, "_pidfd"):
            os.close(self._pidfd)
        for text in self.texts:
            text.whole()


class MapRun(Run):
    """A program of a user that calls ``dms.map(work, range(ITEMS), out=store)``; its units are the items."""

    def command(self, scripts: Path) -> list[str]:
        return [str(MAP_DRIVER), str(self.store), self.cluster, str(ITEMS)]

    def durable(self) -> set[str]:
        return {item for item, _, _, ok in result_rows(self.store) if ok}


class PlainRun(Run):
    """The command line as users have it; the function that its stage ``map`` calls follows the script."""

    def command(self, scripts: Path) -> list[str]:
        return ["-m", "daskml_scale", *super().command(scripts)[2:]]


class _Text:
    """What a process writes into a pipe, read by a thread so that the process never waits."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        assert stream is not None
        self.stream, self.news = stream, threading.Condition()
        self.blocks: list[bytes] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while block := os.read(self.stream.fileno(), 65536):
            with self.news:
                self.blocks.append(block)
                self.news.notify_all()

    def so_far(self) -> str:
        return b"".join(self.blocks).decode(errors="replace")

    def wait_for(self, text: str, timeout: float) -> bool:
        with self.news:
            return self.news.wait_for(lambda: text in self.so_far(), timeout)

    def whole(self) -> str:
        self.thread.join()
        self.stream.close()
        return self.so_far()


# The oracle


def records(store: Path, stage: str) -> dict[str, Record]:
    """Return a stage's newest records, also while its driver writes."""
    for _ in range(20):
        try:
            return dict(Ledger(str(store / f"{stage}.ledger")).records())
        except StoreError:
            continue  # compacted between the listing and the reading
    raise AssertionError(f"the ledger of {stage} cannot be read")


def durable(store: Path, stage: str) -> set[str]:
    """Return the units that are committed and ok."""
    return {unit for unit, record in records(store, stage).items() if record.status == OK}


def unfinished(store: Path, stage: str) -> dict[str, str]:
    """Return the units with another status: unit -> its error."""
    return {unit: record.error for unit, record in records(store, stage).items() if record.status != OK}


UNFINISHED = re.compile(r"\..+\.\d+-\d+|.+\.[0-9a-f]{32}\.partial")
"""What a process that was killed in a write leaves beside the object: ours, and Zarr's. Nobody reads it."""


def content(store: Path) -> dict[str, bytes]:
    """Return every file of data and metadata; ledgers, logs and times are compared apart."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and ".ledger" not in str(path) and path.name not in ("summary.json", ".lock")
        if not UNFINISHED.fullmatch(path.name)
    }


def identities(store: Path) -> dict[str, list[tuple[str, str, str, str]]]:
    """Return what must be equal in the ledgers of equal stores."""
    return {
        folder.name: sorted(record.identity() for record in records(store, folder.stem).values())
        for folder in store.glob("*.ledger")
    }


def assert_equal(store: Path, whole: Path, but: Mapping[str, Iterable[str]] | None = None) -> None:
    """Check that a store equals one of a run that nothing happened to.

    Parameters
    ----------
    but : mapping of stage to unit keys, optional
        Units that failed: their data may be missing, their records are not compared.
    """
    left_out = {f"{stage}.ledger": set(units) for stage, units in (but or {}).items()}
    found, wanted = identities(store), identities(whole)
    assert set(found) == set(wanted)
    for ledger, rows in wanted.items():
        missing = left_out.get(ledger, set())
        assert [row for row in found[ledger] if row[0] not in missing] == [row for row in rows if row[0] not in missing]
    ignored = {
        f"{stage}.zarr/{chunk}" for stage, units in (but or {}).items() for unit in units
        for chunk in records(whole, stage)[unit].chunks
    }  # fmt: skip
    have, want = ({n: data for n, data in content(url).items() if n not in ignored} for url in (store, whole))
    assert sorted(have) == sorted(want)
    assert not [name for name, data in have.items() if data != want[name]]


def result_rows(out: Path) -> list[tuple[str, bytes, bytes, bool]]:
    """Return (item, fingerprint, digest of the value, ok) of every durable row of ``dms.map(out=...)``, in order."""
    rows = []
    for name in segment_names(str(out)):
        columns = result_segments.read(str(out), name, values=True)
        rows += [
            (
                f"items/{item:08d}",
                columns.prints[row].tobytes(),
                bytes(columns.value(row)[: result_segments.SIZE]),
                bool(ok),
            )
            for row, (item, ok) in enumerate(zip(columns.numbers, columns.status == result_segments.OK, strict=True))
        ]
    return rows


def assert_committed_once(run: Run, units: Iterable[str]) -> None:
    """Check that the run committed each of these units exactly once, and nothing else."""
    assert Counter(noted.unit for noted in faults.commits(run.folder)) == dict.fromkeys(units, 1)


def repeated(run: Run) -> Counter[str]:
    """Return how often each unit was called beyond the first time."""
    counted = faults.executions(run.folder, run.stage)
    return Counter({unit: number - 1 for unit, number in counted.items() if number > 1})


def duplicated(said: str) -> int:
    """Return how many units the run says it sent again beyond what was struck: a busy machine has such, too."""
    slow = re.findall(r"(\d+) units are [\d.]+ s on a worker where .* usual; they are sent again", said)
    lost = re.findall(r"a result was lost on its way .*; (\d+) units go out again", said)
    return sum(map(int, slow + lost))


def assert_ran(run: Run, unit: str, times: int, said: str) -> None:
    """Check that a unit was called so many times, and beyond that only where the run says so."""
    called = faults.executions(run.folder, run.stage)[unit]
    assert times <= called <= times + duplicated(said), said


def assert_only_lost_work_repeated(run: Run, said: str) -> None:
    """Check that units ran again only where a strike cost them, once per strike, or where the run says so."""
    lost: Counter[str] = Counter()
    for strike in run.strikes:
        lost.update({noted.unit for noted in faults.calls(run.folder, strike.pids)} - strike.durable)
    innocent = repeated(run) - lost
    assert innocent.total() <= duplicated(said), f"ran again without a cause: {dict(innocent)}\n{said}"
