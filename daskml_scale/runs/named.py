"""Clusters that outlive the shell: started once by name, used by later runs and notebooks.

A process of its own holds each and starts, scales and closes it; a file in the user's data directory says where
it is. Others join it as a cluster of somebody else and never close it. It ends when it is told to, or after a
time in which its scheduler knew no task. The record of a process that is gone counts for nothing.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from daskml_scale.dashboard import PRELOAD
from daskml_scale.errors import ClusterError, ConflictError, DaskMLError, UsageError
from daskml_scale.spec.base import seconds
from daskml_scale.storage import files

from .process import end, gone, let_go
from .state import home

logger = logging.getLogger(__name__)

TOPIC = "daskml-cluster"
"""Dask event topic on which a holder takes requests to scale."""
LOOK_SECONDS = 1.0
"""Between two looks of a holder at its cluster."""
END_SECONDS = 40.0
"""Time that a holder has to close its cluster."""


@dataclass(frozen=True, slots=True)
class Named:
    """A running cluster and the process that holds it.

    Attributes
    ----------
    address, dashboard : str
        Of its scheduler.
    definition : str
        Name or file that it was started from.
    host, pid, since : str, int, float
        Of the holder; ``since`` in seconds since the epoch.
    idle : str
        Time without a task after which it ends.
    certificates : mapping, optional
        Files by which this user's programs connect, of a scheduler at ``tls://``.
    logs : str
        Folder or file with what its workers write.
    """

    name: str
    address: str
    dashboard: str
    definition: str
    host: str
    pid: int
    since: float
    idle: str
    certificates: dict[str, str] | None = None
    logs: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def folder() -> Path:
    """Return the directory of the records and logs."""
    return home() / "clusters"


def running() -> list[Named]:
    """Return the named clusters that run, by name; records of holders that are gone are removed."""
    found = []
    for path in sorted(folder().glob("*.json")):
        try:
            one = Named(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue  # half written, or not ours
        if gone(one.host, one.pid, one.since):
            path.unlink(missing_ok=True)
        else:
            found.append(one)
    return found


def find(name: str) -> Named | None:
    """Return the running cluster of a name."""
    return next((one for one in running() if one.name == name), None)


def up(definition: str, *, name: str | None = None, idle: str = "1h") -> Named:
    """Start a cluster in a process of its own and return it once it is ready.

    Parameters
    ----------
    definition : str
        A name or a file.
    name : str, optional
        By default that of the definition.
    idle : str
        Time without a task after which it ends, such as ``"90m"``.

    Raises
    ------
    ConflictError
        When a cluster of that name runs.
    SpecError, ClusterError
        When the definition is wrong, or the cluster does not start: nothing is left behind.
    """
    from daskml_scale.spec.find import find_cluster
    from daskml_scale.spec.load import load_cluster

    path = find_cluster(definition)
    called = name or load_cluster(path).name
    if not called.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"{called!r} is no name; use letters, digits, - and _")
    try:
        seconds(idle)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if other := find(called):
        raise ConflictError(
            f"cluster {called} runs already at {other.address} (process {other.pid} on {other.host}); "
            f"use it, or end it: daskml-scale clusters down {called}"
        )
    return _started(called, str(path.absolute()), definition, idle)


def _started(name: str, path: str, definition: str, idle: str) -> Named:
    log = folder() / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.parent.chmod(0o700)  # records hold links with tokens
    command = [sys.executable, "-m", "daskml_scale", "_cluster", path, name, definition, idle]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, start_new_session=True
        )
    let_go(process)
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
    with suppress(ValueError):
        said = json.loads(line)
        if "error" not in said:
            return Named(**said)
        raise ClusterError(said["error"])
    raise ClusterError(f"cluster {name} ended before it was ready; {log} says why")


def hold(path: str, name: str, definition: str, idle: str) -> int:
    """Hold a cluster until it is ended or idle; what the process that `up` starts does.

    One line on standard output tells the record or the error; afterwards standard output is standard error.
    """
    from daskml_scale.deploy import cluster

    leave = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leave.set())
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    record = folder() / f"{name}.json"
    try:
        with cluster(path, preload=(PRELOAD,)) as held, held.get_client() as client:
            client.subscribe_topic(TOPIC, lambda event: _scaled(held, event))
            link = str(held.dashboard_link or "")
            files_of_user = getattr(held, "certificates", None)
            own = Named(
                name,
                held.scheduler_address,
                link,
                definition,
                os.uname().nodename,
                os.getpid(),
                time.time(),
                idle,
                files_of_user and files_of_user.model_dump(),
                str(getattr(held, "logs", None) or folder() / f"{name}.log"),
            )
            files.write_json(str(record), own.to_dict())
            _say(answer, own.to_dict())
            try:
                _attend(client, leave, seconds(idle))
            finally:
                record.unlink(missing_ok=True)
    except DaskMLError as error:
        if not answer.closed:
            _say(answer, {"error": str(error)})
        logger.error("%s", error)
        return int(error.exit_code)
    return 0


def _say(answer: Any, message: dict[str, Any]) -> None:
    with suppress(OSError):  # whoever asked is gone; the cluster runs all the same
        answer.write(json.dumps(message) + "\n")
        answer.close()


def _scaled(held: Any, event: Any) -> None:
    request = event[1]
    try:
        if request.get("worker_class"):
            held.scale(request["workers"], worker_class=request["worker_class"])
        else:
            held.scale(request["workers"])
    except Exception:
        logger.exception("a request to scale was refused: %s", request)


def _attend(client: Any, leave: threading.Event, idle: float) -> None:
    """Return when the cluster is to end, was idle for so many seconds, or is gone."""
    last = time.monotonic()
    while not leave.wait(LOOK_SECONDS):
        try:
            busy = client.run_on_scheduler(_has_tasks)
        except (OSError, TimeoutError) as error:
            raise ClusterError(f"the scheduler does not answer any more: {error}") from error
        if client.status != "running":
            raise ClusterError("the scheduler is gone")
        last = time.monotonic() if busy else last
        if time.monotonic() - last > idle:
            logger.warning("no task for %g s: the cluster ends", idle)
            return


def _has_tasks(dask_scheduler: Any) -> bool:
    return bool(dask_scheduler.tasks)


def down(name: str) -> Named:
    """End a named cluster and return what it was.

    Raises
    ------
    UsageError
        When none of that name runs.
    ConflictError
        When its holder is on another machine.
    """
    one = required(name)
    if one.host != os.uname().nodename:
        raise ConflictError(f"cluster {name} is held by process {one.pid} on {one.host}: run this command there")
    end(one.host, one.pid, one.since, END_SECONDS)  # its processes end with it
    (folder() / f"{name}.json").unlink(missing_ok=True)
    return one


def required(name: str) -> Named:
    """Return the running cluster of a name.

    Raises
    ------
    UsageError
        When there is none: names those that run.
    """
    one = find(name)
    if one is None:
        known = ", ".join(each.name for each in running()) or "none"
        raise UsageError(f"no cluster {name!r} runs; running: {known}. Start it: daskml-scale clusters up {name}")
    return one
