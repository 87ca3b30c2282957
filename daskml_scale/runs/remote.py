"""Runs whose runner is a Job of a Kubernetes cluster: what travels there, and how they are started and cancelled.

Such a run is in this registry like any other, with the place of its Job among its options; where it stands is asked
of the API server (`mirror`). What its workflow needs beside its text must be where Pods find it. Nothing here works
on a run.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskml_scale.errors import ConflictError, DaskMLError, Exit, StoreError, UsageError
from daskml_scale.spec.kubernetes import KubernetesOptions, KubernetesSpec
from daskml_scale.storage.urls import is_local

from .mirror import Mirror, job_of, options_of
from .rows import PLACE
from .words import plural, size

if TYPE_CHECKING:
    from .records import Registry
    from .state import RunRecord

GONE_SECONDS = 60.0
"""Time for the Pods of a run that is cancelled to be gone; a runner has half of it to commit what it holds."""
LOOK_SECONDS = 1.0
_NOT_CODE = ("__pycache__",)


@dataclass(frozen=True, slots=True)
class Parcel:
    """What goes to a runner's Pod.

    Attributes
    ----------
    spec : KubernetesSpec
        Where it goes.
    files : mapping of str to str
        Path -> text, see `deploy.runner`.
    """

    spec: KubernetesSpec
    files: Mapping[str, str]


def refuse_folder(store: str) -> None:
    """Refuse a store that is a folder of this machine: a runner in a Pod would write into its own file system.

    Raises
    ------
    UsageError
    """
    plain = store.removeprefix("file://")
    if is_local(store) and not os.path.isabs(plain):
        raise UsageError(
            f"store {store!r} is a folder of this machine, and the runner will be a Pod: give a URL such as "
            "s3://bucket/flights, or the absolute path of a volume that all Pods mount (kubernetes.pod), with --store"
        )


def packed(spec: KubernetesSpec, source: Path, text: str, kept: Mapping[str, Any]) -> Parcel:
    """Return what travels of a workflow: its text, the definition of its cluster, and the Python beside it.

    Parameters
    ----------
    source : Path
        The workflow's file.
    text : str
        What it says.
    kept : mapping
        Provenance of the run.

    Raises
    ------
    UsageError
        When that is more than a ConfigMap takes.
    """
    from daskml_scale.deploy.runner import CODE, MOST_BYTES, SLACK_BYTES

    inside = {"kubeconfig": None, "context": None, "connect": "auto"}
    given = spec.model_copy(update={"kubernetes": spec.kubernetes.model_copy(update=inside)})
    files = {
        "cluster.yaml": json.dumps(given.model_dump(mode="json", exclude_none=True)),
        "provenance.json": json.dumps(kept),
        f"{CODE}/{source.name}": text,
    }
    code = python_beside(source.parent) if spec.kubernetes.code == "configmap" else {}
    files |= {f"{CODE}/{path}": found for path, found in code.items()}
    total = sum(len(found.encode()) for found in files.values())
    if total > MOST_BYTES - SLACK_BYTES:
        largest = sorted(((len(found.encode()), path) for path, found in files.items()), reverse=True)[:3]
        named = ", ".join(f"{path.removeprefix(f'{CODE}/')} {size(count)}" for count, path in largest)
        raise UsageError(
            f"{source}: the workflow and the Python beside it are {size(total)} in {plural(len(files), 'file')}, and a "
            f"ConfigMap takes 1 MiB ({named}); keep the workflow in a folder of its own, or install its Python in the "
            "image and write kubernetes.code: image into the cluster file"
        )
    return Parcel(spec, files)


def python_beside(folder: Path) -> dict[str, str]:
    """Return path -> text of the Python that a workflow of a folder may import: modules, and packages below.

    Raises
    ------
    UsageError
        For a file that is no text, or cannot be read.
    """
    found: dict[str, str] = {}
    folders = [folder]
    while folders:
        here = folders.pop()
        for path in sorted(here.glob("*.py")):
            try:
                found[path.relative_to(folder).as_posix()] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{path} cannot go with the workflow: {error}") from None
        folders += [
            path for path in sorted(here.iterdir())
            if path.name.isidentifier() and path.name not in _NOT_CODE and (path / "__init__.py").is_file()
        ]  # fmt: skip
    return found


def place(options: KubernetesOptions) -> dict[str, Any]:
    """Return where a run will be, as its options keep it: the context of now, whatever becomes of the current one.

    Raises
    ------
    ClusterError, UsageError
        Without credentials, or when the server does not answer.
    """
    from daskml_scale.deploy.runner_calls import Runners

    with Runners(options) as runners:
        context = runners.kube.context
    config = os.path.abspath(os.path.expanduser(options.kubeconfig)) if options.kubeconfig else None
    return {"token": uuid.uuid4().hex[:5], "namespace": options.namespace, "kubeconfig": config, "context": context}


def start(registry: Registry, run: RunRecord, parcel: Parcel) -> None:
    """Make the Job of a queued run.

    Raises
    ------
    ClusterError
        The run is then marked as failed, and nothing is left in the cluster.
    """
    from daskml_scale.deploy.runner import keyed, runner_job
    from daskml_scale.deploy.runner_calls import Runners

    told = {"id": run.id, "workflow": run.workflow, "source": Path(run.source).name, "store": run.store,
            "command": run.command, "owner": run.owner, "labels": run.labels, "options": run.options}  # fmt: skip
    files = {**parcel.files, "run.json": json.dumps(told)}
    paths = keyed(files)
    try:
        with Runners(options_of(run)) as runners:
            job = runner_job(job_of(run), run.id, parcel.spec, paths)
            runners.make(job, {key: files[path] for key, path in paths.items()})
    except DaskMLError as error:
        code, message = int(error.exit_code), str(error)
        registry.finish(run.id, run.epoch, now=time.time(), state="failed", exit_code=code, message=message)
        raise
    message = f"Job {job_of(run)} in namespace {run.options[PLACE]['namespace']}"
    registry.mirrored(run.id, now=time.time(), values={"epoch": 1, "state": "queued", "message": message})


def cancel(registry: Registry, run: RunRecord, tell: Callable[[str], None]) -> RunRecord:
    """Delete the Job of a run, and with it all that it owns; return the run when its Pods are gone.

    Raises
    ------
    ConflictError
        When it has ended.
    ClusterError
        When the server does not answer or refuses; the run goes on.
    """
    with Mirror(registry, run, tell) as mirror:
        mirror.refresh()
        found = registry.get(run.id, now=time.time())
        if not found.live and found.state != "lost":
            raise ConflictError(f"run {found.id} cannot be cancelled: it is {found.state}")
        mirror.runners.delete(job_of(run))
        deadline = time.monotonic() + GONE_SECONDS
        while (seen := mirror.copy()).state != "gone" or seen.pods:
            if time.monotonic() > deadline:
                tell(f"Pods of run {run.id} are still there: {', '.join(seen.pods)}")
                break
            time.sleep(LOOK_SECONDS)
    message = "cancelled; committed work stays"
    values = {"state": "cancelled", "exit_code": int(Exit.CANCELLED), "message": message, "finished": time.time()}
    if not registry.mirrored(run.id, now=time.time(), values=values):
        raise ConflictError(f"run {run.id} cannot be cancelled: it is {registry.get(run.id, now=time.time()).state}")
    return registry.get(run.id, now=time.time())


@contextmanager
def news(registry: Registry, run: RunRecord, tell: Callable[[str], None]) -> Iterator[Callable[[float], None]]:
    """Give what a command calls to wait between two looks at a run; it brings news of one that is elsewhere."""
    if PLACE not in run.options or not run.live:
        yield time.sleep
        return
    with Mirror(registry, run, tell) as mirror:
        yield mirror.sleep


def is_elsewhere(run: RunRecord) -> bool:
    """Return whether the runner of a run is, or was, a Job of a cluster."""
    return PLACE in run.options


def current(registry: Registry, run: RunRecord, tell: Callable[[str], None]) -> RunRecord:
    """Return a run as it stands now; where nobody can be asked, as it was known last, and say so."""
    if PLACE not in run.options or not run.live:
        return run
    try:
        with Mirror(registry, run, tell) as mirror:
            mirror.refresh()
    except StoreError:
        raise
    except DaskMLError as error:
        tell(f"run {run.id} is shown as it was known last: {error}")
    return registry.get(run.id, now=time.time())
