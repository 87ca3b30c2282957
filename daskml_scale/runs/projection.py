"""What is known of a run before it exists: its stages, their units, what is reused, and the memory of a unit.

The planner of a dry run, kept to what a command line can answer within a second and without Dask or scikit-learn: it
reads few bytes of sources and ledgers, only on this machine, and imports no Python of the user. What is beyond that is
planned by the run itself, and says so. A plan that cannot be carried out is refused here, before there is a run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from daskml_scale.errors import SpecError, StoreError
from daskml_scale.plan.dag import order, users
from daskml_scale.spec.base import byte_count
from daskml_scale.spec.cluster import ClusterSpec
from daskml_scale.spec.cube_stages import GenerateSpec
from daskml_scale.spec.hosts import SshSpec
from daskml_scale.spec.steps_learned import Function, SklearnStep
from daskml_scale.spec.workflow import FeaturesSpec, MapSpec, PredictSpec, StageSpec, Workflow
from daskml_scale.stages.base import Ref, Stage
from daskml_scale.stages.file_patterns import sources
from daskml_scale.stages.inputs import known_ids
from daskml_scale.stages.worker_memory import check_memory
from daskml_scale.storage import files
from daskml_scale.storage.urls import beside, is_local

from .check import NO_CLUSTER
from .planning import Planner, StagePlanRow
from .words import size

SOURCE_BYTES = 16 << 20
"""Bytes of sources that are read."""
LEDGER_BYTES = 4 << 20
"""Bytes of ledgers that are read for one stage."""


def projected(
    workflow: Workflow, store: str, *, cluster: str, base: Path, modules: Path, again: str = ""
) -> list[StagePlanRow]:
    """Plan a workflow as far as that is quickly done.

    Parameters
    ----------
    store : str
        Normal URL.
    cluster : str
        Name or file of its definition.
    base, modules : Path
        As in `planning.planned`.
    again : str
        The stage from which on everything is done again.

    Raises
    ------
    PlanError, SpecError
        When it cannot be carried out: misaligned chunks, a missing input, more memory than any worker has.
    """
    repeated = {again, *users(workflow, again)} if again else set()
    planner = Planner(workflow, store, base=base, modules=modules, again=repeated, looked_at=SOURCE_BYTES, quick=True)
    limit = most_memory(cluster)
    rows: list[StagePlanRow] = []
    left: list[str] = []
    for name in order(workflow):
        why = _left_to_the_run(workflow.stages[name], left)
        try:
            why = why or _too_much(planner, name, store)
            found = None if why else planner.one(name)
        except StoreError as error:  # another run may be just writing there
            found, why = None, str(error)
        if found is None:
            left.append(name)
            row = StagePlanRow(name, workflow.stages[name].kind, 0, 0, 1, "", 0, note=f"planned by the run: {why}")
        else:
            row = found.row
            if found.plan is not None:
                check_memory(name, found.plan, limit)
        rows.append(row)
    return rows


def _left_to_the_run(spec: StageSpec, left: Collection[str]) -> str:
    """Return why only the run can plan a stage; empty when it can be planned here."""
    waits_for = [other for other in spec.references().values() if other in left]
    if waits_for:
        return f"after {waits_for[0]}"
    steps = spec.steps if isinstance(spec, FeaturesSpec) else ()
    calls = isinstance(spec, (MapSpec, GenerateSpec)) or (isinstance(spec, PredictSpec) and ":" in spec.method)
    if calls or any(isinstance(step, Function) for step in steps):
        return "it imports your Python"
    return "it imports scikit-learn" if any(isinstance(step, SklearnStep) for step in steps) else ""


def _too_much(planner: Planner, name: str, store: str) -> str:
    """Return what there would be too much to look at; empty when there is not."""
    stage = planner.builder.build(name)
    reads = stage.reads().values()
    if not all(is_local(url) for url in (stage.ledger, *(ref.url for ref in reads))):
        return "it reads or writes outside this machine"
    ledgers = [stage.ledger, *(beside(ref.url, "ledger") for ref in reads if ref.kind == "dataset")]
    noted = sum(_ledger_bytes(url) for url in ledgers)
    if noted > LEDGER_BYTES:
        return f"its ledgers hold {size(noted)}"
    unread = _unread(stage, [ref for ref in reads if not ref.url.startswith(f"{store}/")])
    return f"its sources hold {size(unread)}" if unread > SOURCE_BYTES else ""


def _ledger_bytes(url: str) -> int:
    stats = (files.stat(files.join(url, name)) for name in files.names(url))
    return sum(seen[0] for seen in stats if seen is not None)


def _unread(stage: Stage, refs: Iterable[Ref]) -> int:
    """Return the bytes of sources that nobody has looked at, or that changed since."""
    known = known_ids(stage.ledger)
    return sum(
        seen[0]
        for ref in refs
        if ref.kind in ("sources", "files", "cubes", "dataset", "file")
        for url, seen in _stats(ref.url)
        if known.get(url, ())[:2] != seen
    )


def _stats(url: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the files that a reference means, each with size and stamp."""
    place = Path(url)
    if place.is_dir():
        for path in place.rglob("*"):
            if path.is_file() and (seen := files.stat(str(path))) is not None:
                yield str(path), seen
        return
    for one in sources(url, quick=True).values():
        yield one.url, (one.size, one.stamp)


def most_memory(cluster: str) -> int:
    """Return the memory of the largest worker that a cluster may have, in bytes; 0 is unknown."""
    import psutil

    machine = int(psutil.virtual_memory().total)
    if cluster == NO_CLUSTER:
        return machine
    from daskml_scale.spec.find import find_cluster
    from daskml_scale.spec.load import load_cluster

    from .named import find

    try:
        spec = load_cluster(find_cluster(cluster)) if find(cluster) is None else None
    except SpecError:
        return 0  # who checks it says so
    if not isinstance(spec, (ClusterSpec, SshSpec)):
        return 0
    if isinstance(spec, ClusterSpec):
        return max(machine if item.memory == "auto" else byte_count(item.memory) for item in spec.classes.values())
    texts = [host.memory or item.memory for item in spec.classes.values() for host in item.hosts]
    return 0 if "auto" in texts else max(map(byte_count, texts))
