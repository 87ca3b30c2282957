"""Enter a run into the registry, and start its process: what ``run``, ``submit``, ``resume`` and ``rerun`` share.

All that a file can tell is checked first, and what is submitted is planned; then the run gets its id, and its
provenance is kept. A crash between two of these steps leaves a run that is queued without a process, which counts as
lost after a minute, never as running.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskml_scale.errors import ConflictError, Exit, StoreError, UsageError
from daskml_scale.spec.find import find_workflow
from daskml_scale.spec.load import Loaded
from daskml_scale.spec.workflow import Workflow
from daskml_scale.spec.yaml_text import read_text
from daskml_scale.storage import files
from daskml_scale.storage.lock import holder, in_use

from . import provenance, remote
from .check import NO_CLUSTER, checked, elsewhere, sampled_in
from .lease import spawn
from .queue import at_once
from .records import Registry
from .rows import PLACE
from .state import RunRecord

if TYPE_CHECKING:
    from .planning import StagePlanRow

_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")
LONGEST = 200
"""Characters of a label's value, and of a key."""


@dataclass(frozen=True, slots=True)
class Options:
    """What changes the work of a run beside its file.

    Attributes
    ----------
    sample : float, optional
        Share of the sources that is read.
    settings : tuple of str
        ``PATH=VALUE``.
    again : str
        The stage from which on everything is done again; only by this run, not by those that go on from it.
    """

    sample: float | None = None
    settings: tuple[str, ...] = ()
    again: str = ""

    @classmethod
    def of(cls, run: RunRecord) -> Options:
        """Return the options of a run; those of older versions tell by their command."""
        words = list(run.command)
        told = float(words[words.index("--sample") + 1]) if "--sample" in words else None
        kept = run.options
        return cls(kept.get("sample", told), tuple(kept.get("settings", ())), str(kept.get("again", "")))

    def words(self) -> list[str]:
        """Return the command line's words for what another run of the same must have, too."""
        sample = [] if self.sample is None else ["--sample", str(self.sample)]
        return [*sample, *(word for text in self.settings for word in ("--set", text))]


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for: a workflow by name or path, and where and how it is to run."""

    workflow: str
    store: str | None = None
    cluster: str | None = None
    options: Options = field(default_factory=Options)
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    key: str | None = None

    @classmethod
    def like(cls, run: RunRecord, again: str = "") -> Asked:
        """Return what asks for the same as a run did."""
        kept = Options.of(run)
        return cls(
            run.source, run.store, run.cluster, Options(kept.sample, kept.settings, again), run.labels, run.priority
        )

    def command(self, verb: str) -> list[str]:
        """Return the words after ``daskml-scale`` that go on with this run."""
        place = [word for name, value in (("--store", self.store), ("--cluster", self.cluster)) if value
                 for word in (name, value)]  # fmt: skip
        return [verb, self.workflow, *place, *self.options.words()]


def owner() -> str:
    """Return the name of the user at work."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no entry in the system's table, as in some containers
        return str(os.getuid())


def _check(asked: Asked) -> None:
    for name, value in asked.labels.items():
        if not _LABEL.fullmatch(name):
            raise UsageError(f"label {name!r}: use letters, digits, '_', '-' and '.', starting with a letter")
        if not isinstance(value, str) or not value or len(value) > LONGEST or not value.isprintable():
            raise UsageError(f"label {name}: {value!r} is not a text of 1 to {LONGEST} printable characters")
    if asked.key is not None and (not asked.key or len(asked.key) > LONGEST or not asked.key.isprintable()):
        raise UsageError(f"key {asked.key!r} is not a text of 1 to {LONGEST} printable characters")


@dataclass(frozen=True, slots=True)
class _Checked:
    """A workflow that was found sound: its name, file, place, and what its results will come from."""

    name: str
    source: Path
    store: str
    cluster: str
    kept: Mapping[str, Any]
    loaded: Loaded[Workflow]
    spec: Workflow
    parcel: remote.Parcel | None = None
    """What travels to a runner elsewhere."""


def _checked(asked: Asked, *, detached: bool) -> _Checked:
    """Check what a file alone can tell; importing estimators is left to the detached process."""
    _check(asked)
    path = find_workflow(asked.workflow)
    source, text = path.absolute(), read_text(path)
    loaded: Loaded[Workflow] = checked(
        asked.workflow, store=asked.store, cluster=asked.cluster, estimators=not detached,
        settings=asked.options.settings, text=text, detached=detached,
    )  # fmt: skip
    spec = sampled_in(loaded.model, asked.options.sample, asked.store)
    if asked.options.again and asked.options.again not in spec.stages:
        raise UsageError(f"there is no stage {asked.options.again!r}; there are {', '.join(spec.stages)}")
    store, cluster = files.normal(asked.store or spec.store), asked.cluster or spec.cluster
    if detached and files.is_memory(store):
        raise UsageError(f"{store} would end with the detached process; choose a local path with --store")
    kept = provenance.collected(spec, source, text, asked.options.settings, store, cluster)
    parcel = None
    if detached and (there := elsewhere(cluster)) is not None:
        remote.refuse_folder(asked.store or spec.store)
        parcel = remote.packed(there, source, text, kept)
    return _Checked(spec.name, source, store, cluster, kept, loaded, spec, parcel)


def _planned(found: _Checked, again: str) -> list[StagePlanRow]:
    """Plan what was found sound.

    Raises
    ------
    SpecError
        With file and line, when it cannot be carried out.
    """
    from .projection import projected  # what a run in a terminal does not need here

    with found.loaded.placing():
        return projected(
            found.spec, found.store, cluster=found.cluster, base=Path.cwd(), modules=found.source.parent, again=again
        )


def registered(registry: Registry, asked: Asked) -> RunRecord:
    """Check what can be checked, then enter a run that this process will do, with its provenance.

    Raises
    ------
    SpecError, UsageError
        Nothing was written.
    """
    return _entered(registry, "run", asked, _checked(asked, detached=False), time.time())


def submitted(registry: Registry, asked: Asked) -> RunRecord:
    """Enter a run and start its process; return the run that has the same key, if there is one.

    A run that was entered under the key and never got a process (its command line was killed) gets one.

    Raises
    ------
    PlanError, SpecError, UsageError
        Nothing was written: the workflow is wrong, or cannot be carried out.
    ConflictError
        When the key belongs to a run of another workflow, store or cluster, or somebody whom the registry
        does not know holds the store.
    """
    found, now = _checked(asked, detached=True), time.time()
    before = registry.keyed(asked.key, now=now) if asked.key is not None else None
    if before is None and found.parcel is not None:
        run = _entered(registry, "submit", asked, found, now, place=remote.place(found.parcel.spec.kubernetes))
        if run.created == now:
            return _begun(registry, run, found)
        before = run  # another process was quicker with this key
    elif before is None:
        if (other := holder(found.store)) and not _known(registry, found.store, now):
            raise in_use(found.store, other)
        run = _entered(registry, "submit", asked, found, now, _planned(found, asked.options.again))
        if run.created == now:
            return _begun(registry, run, found)
        before = run  # another process was quicker with this key
    if before.options.get("asked") != _digest(found.kept):
        raise ConflictError(
            f"key {asked.key!r} belongs to run {before.id}, which was submitted with another workflow, store, cluster "
            f"or settings; choose another key, or see: daskml-scale status {before.id}"
        )
    if before.state == "lost" and before.epoch == 0 and registry.requeue(before, now=now):
        return _begun(registry, before, found)
    return registry.get(before.id, now=now)


def _begun(registry: Registry, run: RunRecord, found: _Checked) -> RunRecord:
    """Start the process of a run and note it, so that its death is seen at once; or make its Job."""
    if found.parcel is not None:
        remote.start(registry, run, found.parcel)
        return registry.get(run.id, now=time.time())
    pid = spawn(registry, run)
    with suppress(StoreError):  # it says so itself when it waits
        registry.attached(run, host=os.uname().nodename, pid=pid)
    return run


def _entered(
    registry: Registry, verb: str, asked: Asked, found: _Checked, now: float, plan: Sequence[StagePlanRow] = (),
    place: Mapping[str, Any] | None = None,
) -> RunRecord:  # fmt: skip
    options = asked.options
    kept: dict[str, Any] = {"settings": list(options.settings)} if options.settings else {}
    kept |= {"sample": options.sample} if options.sample is not None else {}
    kept |= {"again": options.again} if options.again else {}
    kept |= {"asked": _digest(found.kept)} if asked.key is not None else {}
    kept |= {PLACE: dict(place)} if place is not None else {}
    run = registry.create(
        workflow=found.name, source=str(found.source), store=found.store, cluster=found.cluster,
        command=asked.command(verb), cwd=os.getcwd(), now=now, detached=verb == "submit", owner=owner(),
        labels=asked.labels, options=kept, queue=_queue(found.cluster), most=at_once(found.cluster, NO_CLUSTER),
        priority=asked.priority, key=asked.key, stages=[row.to_stage() for row in plan],
    )  # fmt: skip
    if run.created == now:
        planned = {"plan": [row.to_dict() for row in plan]} if plan else {}
        try:
            provenance.write(registry.path.parent, run.id, {**found.kept, **planned})
        except StoreError as error:
            registry.finish(run.id, run.epoch, now=now, state="failed", exit_code=Exit.FAILED, message=str(error))
            raise
    return run


def _digest(kept: Mapping[str, Any]) -> str:
    """Return what two submissions under one key must have in common."""
    same = [kept[name] for name in ("resolved", "store", "cluster")]
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()[:16]


def _queue(cluster: str) -> str:
    """Return what runs on the same cluster have in common: its name, or its file."""
    return os.path.abspath(cluster) if os.sep in cluster or cluster.endswith((".yaml", ".yml")) else cluster


def _known(registry: Registry, store: str, now: float) -> bool:
    """Return whether a run that the registry knows works in a store: then the next one waits for it."""
    return any(run.live and run.store == store for run in registry.alive(now=now))


def resumed(found: RunRecord, home: Path) -> list[str]:
    """Return what is different now from what a run was made of: file, code, versions."""
    before = provenance.read(home, found.id)
    if not before:
        return []
    options = Options.of(found)
    loaded = checked(found.source, store=found.store, cluster=NO_CLUSTER, estimators=False, settings=options.settings)
    source = Path(found.source)
    now = provenance.collected(
        sampled_in(loaded.model, options.sample, found.store), source, read_text(source), options.settings,
        found.store, found.cluster,
    )  # fmt: skip
    return provenance.changes(before, now)
