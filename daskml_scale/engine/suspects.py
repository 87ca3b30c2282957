"""Units whose worker died, run where a death proves guilt: in a child process of a worker, one at a time.

A lost worker says only that its units were there, not which of them ended it. So they run again in a
process that may die: the unit that it dies on is the cause, and after `DEATHS` deaths it fails as poison. The
others finish, and what the child finished before it died is not run again. The child ends with its worker.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from multiprocessing.connection import Connection, Pipe
from typing import Any

from . import parcel
from .task import Failure, Limits, Rows, calls, packed, run_units, unpacked
from .worker import WorkerContext

DEATHS = 3
"""Times that a process may die on a unit before the unit fails."""
MEMORY_SHARE = 0.95
"""Of the worker's memory limit: a child above it is ended, as the worker itself would be."""
POISON = "PoisonedUnit"
"""First word of the error of a unit that ends its process every time."""
POLL_SECONDS = 0.05
_START = (
    "import sys, pickle; from multiprocessing.connection import Connection as C; pipe = C(int(sys.argv[1])); "
    "sys.path[:] = pickle.loads(pipe.recv_bytes()); from daskml_scale.engine.suspects import child; child(pipe)"
)
_READY = b"ready"


def run_suspects(blob: bytes, blob_digest: str, units: bytes, limits: Limits) -> tuple[str, bytes]:
    """Run the units of one task in a child process (arguments and result as `task.run_batch`).

    Raises
    ------
    RuntimeError
        When the kernel cannot be loaded in the child, or ends it before the first unit; no unit is to blame.
    """
    from distributed import get_worker

    worker = get_worker()
    memory = getattr(worker.memory_manager, "memory_limit", None)
    keys, payloads, weights = pickle.loads(units)
    finished: list[bytes] = []
    deaths = starts = 0
    while len(finished) < len(keys):
        at = len(finished)
        rest = pickle.dumps((keys[at:], payloads[at:], weights[at:]))
        ready, reason = _run_child([blob, rest, pickle.dumps((limits, str(worker.name)))], memory, finished, len(keys))
        if len(finished) == len(keys):
            break
        if not ready:
            starts += 1
            if starts < DEATHS:
                continue
            raise RuntimeError(f"a process that was to run the units {reason} before the first one, {DEATHS} times")
        deaths = deaths + 1 if len(finished) == at else 1
        if deaths >= DEATHS:
            finished.append(packed(poisoned(reason)))
            deaths = 0
    return str(worker.name), packed(merged(finished))


def poisoned(reason: str) -> Rows:
    """Return the row of a unit that ended `DEATHS` processes, the last one for this reason."""
    text = f"{POISON}: {DEATHS} processes died while they ran this unit; the last one {reason}"
    rows = Rows([None], {0: Failure(text, kinds=(POISON,))})
    rows.nanoseconds.append(0)
    return rows


def merged(parts: list[bytes]) -> Rows:
    """Join the rows of many `task.packed` blobs."""
    rows = Rows()
    for part in map(unpacked, parts):
        for position, failure in part.failures.items():
            rows.failures[len(rows.values) + position] = failure
        rows.values.extend(part.values)
        rows.nanoseconds.extend(part.nanoseconds)
    return rows


def _run_child(messages: list[bytes], memory: int | None, finished: list[bytes], wanted: int) -> tuple[bool, str]:
    """Run units in one child until all are done or it dies; append what it finished.

    Returns
    -------
    ready : bool
        Whether it came to the first unit.
    reason : str
        How it ended.
    """
    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _START, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()
    ready, reason = False, ""
    try:
        for message in (pickle.dumps(sys.path), *messages):
            ours.send_bytes(message)
        while len(finished) < wanted:
            if ours.poll(POLL_SECONDS):
                answer = ours.recv_bytes()
                if answer.startswith(b"!"):
                    raise RuntimeError(answer[1:].decode())
                if answer == _READY:
                    ready = True
                else:
                    finished.append(answer)
            elif memory and _resident(process.pid) > memory * MEMORY_SHARE:
                reason = f"used more than {memory * MEMORY_SHARE / 2**20:,.0f} MiB of memory"
                process.kill()
    except (EOFError, OSError):
        pass
    finally:
        ours.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        process.kill()
        code = process.wait()
    return ready, reason or _how(code)


def _resident(pid: int) -> int:
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _how(code: int) -> str:
    if code >= 0:
        return f"ended itself with exit code {code}"
    try:
        return f"died of {signal.Signals(-code).name}"
    except ValueError:
        return f"died of signal {-code}"


def child(pipe: Connection) -> None:
    """Run the units that come through the pipe (the child's main function); end with the parent."""
    blob, units, options = (pipe.recv_bytes() for _ in range(3))
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    try:
        kernel, shared = parcel.unpacked(blob)
        limits, name = pickle.loads(options)
        keys, payloads, weights = pickle.loads(units)
        call, arguments = calls(kernel, keys, payloads, weights, WorkerContext(shared=shared, threads=1, name=name))
    except BaseException as raised:
        pipe.send_bytes(f"!{type(raised).__name__}: {raised}".encode())
        return
    pipe.send_bytes(_READY)
    for argument in arguments:
        pipe.send_bytes(packed(run_units(call, [argument], limits), limits.result_bytes))


def _end_with(pipe: Any) -> None:
    with contextlib.suppress(EOFError, OSError):
        pipe.recv_bytes()
    os._exit(1)
