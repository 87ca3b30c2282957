"""What this registry knows of a run whose runner is a Job elsewhere: copied from its Pods' logs and its Job's state.

A runner writes lines for people and, as JSON, its events, what it would tell a registry, and its end (`inside`). They
are copied once each, into the same files that a run of this machine has, so every command about runs reads the same.
Kubernetes keeps only the newest part of a long log: what nobody looked at in time is missing from the copies, never
from the state.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from daskml_scale.errors import Exit
from daskml_scale.spec.kubernetes import KubernetesOptions

from .costs import Cost
from .event_log import NAME
from .rows import PLACE
from .state import RunRecord, StageRecord

if TYPE_CHECKING:
    from daskml_scale.deploy.runner import Seen
    from daskml_scale.deploy.runner_calls import Runners

    from .records import Registry

MARK = '{"daskml": '
"""How a line for programs begins."""
EVERY = 2.0
"""Seconds between two looks of a command that follows a run."""
TAIL = 500
"""Lines that are asked for first."""
OVERLAP = 5
"""Lines by which it is known where a copy ended."""
STATES = {
    Exit.OK: "succeeded", Exit.PARTIAL: "partial", Exit.FAILED: "failed", Exit.USAGE: "failed",
    Exit.CONFLICT: "failed", Exit.CANCELLED: "cancelled", Exit.INTERRUPTED: "interrupted",
}  # fmt: skip
"""Exit code of a runner that said nothing else -> how its run ended."""


def job_of(run: RunRecord) -> str:
    """Return the name of the Job of a run that is elsewhere."""
    from daskml_scale.deploy.runner import job_name

    return job_name(run.id, run.options[PLACE]["token"])


def options_of(run: RunRecord) -> KubernetesOptions:
    """Return how to reach the place of a run."""
    kept = run.options[PLACE]
    return KubernetesOptions(
        namespace=kept["namespace"], image="-", kubeconfig=kept["kubeconfig"], context=kept["context"]
    )


# Pure parts


def fresh(lines: Sequence[str], last: Sequence[str], known: int, *, whole: bool) -> list[str] | None:
    """Return the lines of a log after those that are known; ``None`` when these are not among them.

    Parameters
    ----------
    lines : sequence of str
        Its last lines.
    last : sequence of str
        The last ones that are known.
    known : int
        How many are known.
    whole : bool
        Whether ``lines`` are all.
    """
    count = len(last)
    if whole and list(lines[known - count : known]) == list(last):
        return list(lines[known:])
    for end in range(len(lines), count - 1, -1) if count else ():
        if list(lines[end - count : end]) == list(last):
            return list(lines[end:])
    return None


def standing(seen: Seen, end: Mapping[str, Any] | None, said: str) -> dict[str, Any]:
    """Return what a registry should say of a run.

    Parameters
    ----------
    end : mapping, optional
        What its runner told last of its end: state, exit code, message, summary, time.
    said : str
        The last line that its runner wrote for people.
    """
    values: dict[str, Any] = {"started": seen.started} if seen.started is not None else {}
    if seen.state in ("queued", "running"):
        return {**values, "state": seen.state, "message": seen.message}
    if end is not None:
        told = ("state", "exit_code", "message", "finished")
        return values | {name: end[name] for name in told} | {"summary": json.dumps(end["summary"])}
    state = STATES.get(Exit(seen.code), "") if seen.code in list(Exit) and seen.state == "ended" else ""
    if state:
        return {**values, "state": state, "exit_code": seen.code, "message": said or seen.message}
    return {**values, "state": "lost", "exit_code": int(Exit.LOST), "message": seen.message or "its runner was killed"}


# The copy


@dataclass
class _Copied:
    """How far the logs of a run are copied."""

    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] | None = None
    said: str = ""


class Mirror:
    """Copies the state and the log of a run into this registry. A context manager.

    Two of one run do not disturb each other: the second one reads what the first one copies.

    Parameters
    ----------
    run : RunRecord
    tell : callable
        Receives a line about what keeps it from looking.

    Raises
    ------
    ClusterError
        From all methods but `sleep`, when the server does not answer.
    """

    def __init__(self, registry: Registry, run: RunRecord, tell: Callable[[str], None]) -> None:
        self.registry, self.run, self.tell = registry, run, tell
        self._runners: Runners | None = None
        self._folder = registry.path.parent / "runs" / run.id
        self._job = job_of(run)
        self._next, self._silent = 0.0, False
        self._lock: int | None = None
        self._copied = _Copied()

    def __enter__(self) -> Mirror:
        return self

    @property
    def runners(self) -> Runners:
        """The server, asked for the first time when it is needed: a command that waits may begin without it."""
        from daskml_scale.deploy.runner_calls import Runners

        if self._runners is None:
            self._runners = Runners(options_of(self.run)).__enter__()
        return self._runners

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runners is not None:
            self._runners.__exit__(kind, error, trace)
        if self._lock is not None:
            os.close(self._lock)

    def sleep(self, seconds: float) -> None:
        """Wait as a loop does that looks for news in this registry, and bring them now and then."""
        from daskml_scale.deploy.kube_client import Unreachable

        time.sleep(seconds)
        if time.monotonic() < self._next:
            return
        try:
            self.refresh()
            self._silent = False
        except Unreachable as error:
            if not self._silent:
                self.tell(f"{error}; trying again")
            self._silent = True
        self._next = time.monotonic() + EVERY

    def refresh(self) -> None:
        """Bring the registry's entry and the copies of the logs up to date."""
        seen = self.copy()
        now = time.time()
        values = standing(seen, self._copied.end, self._copied.said)
        if seen.state == "gone" and not seen.pods and self._copied.end is None and self.run.epoch == 0:
            return  # its Job was not made yet, or never: its entry runs out by itself
        if values["state"] not in ("queued", "running"):
            values.setdefault("finished", now)
        told = self._copied.told
        stages = [StageRecord(**one) for one in told["stages"]] if told else None
        costs = [Cost(**one) for one in told["costs"]] if told else ()
        self.registry.mirrored(self.run.id, now=now, values={"epoch": 1, **values}, stages=stages, costs=costs)

    def copy(self) -> Seen:
        """Copy what the Pods wrote since the last time, and return how the Job stands."""
        seen = self.runners.look(self._job)
        if self._held():
            for pod in seen.pods:
                if not self._copied.pods.get(pod, {}).get("over"):
                    self._copy(pod, over=pod not in seen.running)
        return seen

    def _held(self) -> bool:
        """Return whether this process is the one that copies; another one's work is read otherwise."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._lock is not None:
            return True
        descriptor = os.open(self._folder / "mirror.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            self._load()
            return False
        self._lock = descriptor
        self._load()
        for name in (NAME, "log.txt"):  # what a copy that was broken off wrote would be there twice
            path, size = self._folder / name, self._copied.sizes.get(name, 0)
            if path.exists() and path.stat().st_size > size:
                os.truncate(path, size)
        return True

    def _load(self) -> None:
        try:
            self._copied = _Copied(**json.loads((self._folder / "mirror.json").read_text()))
        except (OSError, ValueError, TypeError):
            self._copied = _Copied()

    def _copy(self, pod: str, *, over: bool) -> None:
        known = self._copied.pods.setdefault(pod, {"lines": 0, "last": [], "over": False})
        found = self._lines(pod, known, over=over)
        if found is None:
            return
        texts: dict[str, list[str]] = {NAME: [], "log.txt": []}
        if not known["lines"] and found and len(self._copied.pods) > 1:
            self._copied.end = None
            texts["log.txt"].append(f"-- the runner was started again, as Pod {pod}")
        for line in found:
            self._take(line, texts)
        for name, lines in texts.items():
            self._append(name, lines)
        known["lines"] += len(found)
        known["last"] = [*known["last"], *found][-OVERLAP:]
        known["over"] = over
        path = self._folder / "mirror.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(vars(self._copied)))
        temporary.replace(path)

    def _lines(self, pod: str, known: Mapping[str, Any], *, over: bool) -> list[str] | None:
        """Return the whole lines that a Pod wrote since the last copy; ``None`` when they cannot be read now."""
        for most in (TAIL, None):
            text = self.runners.log(pod, most)
            if text is None:
                return None
            lines = text.split("\n")
            rest = lines.pop()
            if rest and over:
                lines.append(rest)  # its last line was never ended
            whole = most is None or len(lines) < most
            found = fresh(lines, known["last"], known["lines"], whole=whole)
            if found is not None and (known["last"] or whole):
                return found
        return [f"-- lines are missing here: Kubernetes keeps only the newest part of the log of Pod {pod}", *lines]

    def _take(self, line: str, texts: Mapping[str, list[str]]) -> None:
        if line.startswith(MARK):
            try:
                found = json.loads(line)
                kind = found.pop("daskml")
            except (ValueError, AttributeError):
                kind = ""
            if kind == "event":
                texts[NAME].append(json.dumps(found["event"]))
                return
            if kind in ("state", "end"):
                self._copied.told = {"stages": found.pop("stages"), "costs": found.pop("costs")}
                self._copied.end = found if kind == "end" else None
                return
        texts["log.txt"].append(line)
        self._copied.said = line.strip() or self._copied.said

    def _append(self, name: str, lines: Sequence[str]) -> None:
        path: Path = self._folder / name
        if lines:
            with path.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
        self._copied.sizes[name] = path.stat().st_size if path.exists() else 0
