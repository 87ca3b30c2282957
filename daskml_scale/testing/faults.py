"""Scripted faults: what the calls of a stage's kernel do besides their work, and what they did.

A ``Script`` counts every call, tells a test that a moment is reached (and holds there), and makes chosen
units kill, crash, raise, swell, dawdle or return too much. Moments are numbers of calls or commits, never
times, and the same script fails at the same unit and attempt every time. What was called and committed is
appended to one file per process, so that the account of a killed process is complete. Not imported by the
package.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.events import Score
from daskml_scale.plan.records import Record, Written
from daskml_scale.plan.units import Outcome, Plan, Unit
from daskml_scale.stages.base import Input, Ref, Stage, StageResult
from daskml_scale.storage.ledger import Ledger

ALWAYS = 1_000_000
REACHED = "reached"
"""Named pipe in a script's folder: one line ``<moment> <pid> <unit>`` per moment."""
STEP = 32 << 20
"""Bytes that a swelling unit takes at a time."""
PATIENCE = 30.0
"""Seconds after which a swollen unit that nobody ended gives up."""


class ScriptedError(Exception):
    """What a unit raises that is told to."""


@dataclass(frozen=True)
class Fault:
    """What one unit does wrong.

    Attributes
    ----------
    unit : str
        Its key.
    does : str
        ``kill`` (SIGKILL of its process), ``segfault``, ``raise``, ``swell`` (takes ``amount`` bytes and waits to be
        ended), ``dawdle`` (``amount`` seconds more), ``large`` (returns a text of ``amount`` characters).
    times : int
        The first so many calls of the unit; all by default.
    """

    unit: str
    does: str
    times: int = ALWAYS
    amount: float = 0.0


@dataclass(frozen=True)
class Script:
    """What the kernel calls of a stage do besides their work.

    Attributes
    ----------
    folder : str
        Gets the accounts, and holds the named pipes when somebody listens.
    delay : float
        Seconds that each call takes longer.
    faults : tuple of Fault
    moments : tuple of str
        Who comes to one of them writes a line into the pipe ``reached`` and waits for a byte in the pipe
        ``go.<moment>``. ``call.17`` is the start of the 17th call of the stage, over all processes; ``commit.2`` is
        before its second commit in the driver and ``committed.2`` after it; ``finish.1`` is before its end.
    """

    folder: str
    delay: float = 0.0
    faults: tuple[Fault, ...] = ()
    moments: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Script:
        """Rebuild a script; the inverse of ``to_dict``."""
        faults = tuple(Fault(**fault) for fault in data["faults"])
        return cls(**{**data, "faults": faults, "moments": tuple(data["moments"])})

    def call(self, stage: str, unit: str, work: Callable[[], Any]) -> Any:
        """Count a call of a unit, do what is scripted for it, and return what ``work`` returns.

        Raises
        ------
        ScriptedError
            When that is the script.
        """
        # The calling process's own file: whoever kills it can read later what it had begun.
        _append(self._path(f"{os.getpid()}.calls"), f"{stage}\t{unit}\n")
        self.reach(f"call.{self.count(stage, 'call')}", unit)
        fault = next((fault for fault in self.faults if fault.unit == unit), None)
        if fault is not None and self.count(stage, unit.replace("/", ".")) > fault.times:
            fault = None
        if fault is not None and fault.does in _BEFORE:
            _BEFORE[fault.does](unit, fault.amount)
        time.sleep(self.delay)
        value = work()
        return _enlarged(value, int(fault.amount)) if fault is not None and fault.does == "large" else value

    def note_committed(self, stage: str, records: Sequence[Record]) -> None:
        """Append what a stage made durable to the account of commits; it ends where the process may not write files.

        Such a limit can fall between a commit and its account: then the next commit fails, as it shall.
        """
        lines = "".join(f"{stage}\t{record.unit}\n" for record in records)
        try:
            _append(self._path(f"{os.getpid()}.commits"), lines)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise

    def count(self, stage: str, what: str) -> int:
        """Count something, over all processes; return its number from 1."""
        return _append(self._path(f"{stage}.{what}.ticks"), ".")

    def reach(self, moment: str, unit: str = "-") -> None:
        """Tell that this is the moment, and wait, if it is one of the script's."""
        if moment not in self.moments:
            return
        _append(self._path(REACHED), f"{moment} {os.getpid()} {unit}\n", flags=os.O_WRONLY)
        gate = os.open(self._path(f"go.{moment}"), os.O_RDONLY)
        os.read(gate, 1)
        os.close(gate)

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)


def _append(path: str, text: str, flags: int = os.O_WRONLY | os.O_APPEND | os.O_CREAT) -> int:
    """Append in one system call; return the size of the file right after it, which no other writer can share."""
    descriptor = os.open(path, flags, 0o666)
    try:
        os.write(descriptor, text.encode())
        return os.lseek(descriptor, 0, os.SEEK_CUR) if flags & os.O_APPEND else 0
    finally:
        os.close(descriptor)


def _kill(unit: str, amount: float) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault(unit: str, amount: float) -> None:
    ctypes.string_at(0)


def _raise(unit: str, amount: float) -> None:
    raise ScriptedError(f"unit {unit} was told to raise")


def _swell(unit: str, amount: float) -> None:
    taken = [b"x" * STEP for _ in range(int(amount) // STEP)]
    time.sleep(PATIENCE)
    raise ScriptedError(f"unit {unit} held {len(taken) * STEP / 2**20:.0f} MiB for {PATIENCE:g} s and nobody ended it")


def _dawdle(unit: str, amount: float) -> None:
    time.sleep(amount)


_BEFORE: dict[str, Callable[[str, float], None]] = {
    "kill": _kill,
    "segfault": _segfault,
    "raise": _raise,
    "swell": _swell,
    "dawdle": _dawdle,
}


def _enlarged(value: Any, size: int) -> Any:
    text = "x" * size
    return replace(value, result=text) if isinstance(value, Written) else text


@dataclass(frozen=True)
class Counted:
    """A stage whose kernel calls and commits follow a script; otherwise the stage that it wraps."""

    stage: Any
    script: Script

    @property
    def name(self) -> str:
        return str(self.stage.name)

    @property
    def kind(self) -> str:
        return str(self.stage.kind)

    @property
    def ledger(self) -> str:
        return str(self.stage.ledger)

    def reads(self) -> Mapping[str, Ref]:
        return self._stage.reads()

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        return self._stage.plan(inputs, records)

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        return self.script.call(self.name, unit.key, lambda: self._stage.kernel(unit, worker))

    def commit(self, outcomes: Sequence[Outcome], plan: Plan, ledger: Ledger) -> list[Record]:
        number = self._number("commit")
        self.script.reach(f"commit.{number}")
        records = self._stage.commit(outcomes, plan, ledger)
        self.script.note_committed(self.name, records)
        self.script.reach(f"committed.{number}")
        return records

    def trial_scores(self, outcomes: Sequence[Outcome], records: Sequence[Record]) -> tuple[Score, ...]:
        return self._stage.trial_scores(outcomes, records)

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        self.script.reach(f"finish.{self._number('finish')}")
        return self._stage.finish(inputs, records)

    def _number(self, what: str) -> int:
        """Count what only the driver does, in memory: its disk may be full."""
        _COUNTS[self.name, what] += 1
        return _COUNTS[self.name, what]

    @property
    def _stage(self) -> Stage:
        found: Stage = self.stage
        return found


_COUNTS: Counter[tuple[str, str]] = Counter()


class Noted(NamedTuple):
    """One line of an account."""

    pid: int
    stage: str
    unit: str


def calls(folder: str | Path, pids: Collection[int] | None = None) -> list[Noted]:
    """Return the kernel calls noted in a script's folder, of these processes or all; in order within a process."""
    return [noted for noted in _read(folder, "calls") if pids is None or noted.pid in pids]


def commits(folder: str | Path) -> list[Noted]:
    """Return the commits noted in a script's folder, in order within a process."""
    return list(_read(folder, "commits"))


def executions(folder: str | Path, stage: str) -> Counter[str]:
    """Return how often the kernel of each unit of a stage was called."""
    return Counter(noted.unit for noted in calls(folder) if noted.stage == stage)


def _read(folder: str | Path, kind: str) -> Iterator[Noted]:
    for path in sorted(Path(folder).glob(f"*.{kind}")):
        for line in path.read_text().splitlines():
            stage, unit = line.split("\t")
            yield Noted(int(path.stem), stage, unit)
