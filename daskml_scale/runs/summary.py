"""The end of a run as one record: its stages, metrics, versions and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from daskml_scale.errors import Exit
from daskml_scale.spec.workflow import EvaluateSpec, Workflow
from daskml_scale.stages.accounting import StageRow


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The end of a run, also written to ``summary.json`` in its store.

    Attributes
    ----------
    state : str
        ``succeeded``, or ``partial`` when rows were quarantined within ``max_bad``.
    metrics : mapping
        Of the evaluate stages; with several of them the keys are ``<stage>.<metric>``.
    rows_predicted : int
    seconds : float
        Wall time of the run.
    cost : mapping
        ``worker_seconds`` of kernels, ``saved_seconds`` by reuse, ``money`` (0 without prices), and
        ``per_thousand_predictions``, of those that were made by this run.
    skipped : mapping of stage to text
        Stages whose ``when:`` did not hold, and those that need them.
    """

    run: str
    workflow: str
    store: str
    state: str
    stages: tuple[StageRow, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    rows_predicted: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cost: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return int(Exit.PARTIAL if self.state == "partial" else Exit.OK)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "stages": [asdict(row) for row in self.stages]}

    def __repr__(self) -> str:
        units, reused = sum(r.units for r in self.stages), sum(r.reused for r in self.stages)
        return f"<Run {self.run or self.workflow}: {self.state}, {units} units, {reused} reused, {self.seconds:.1f} s>"

    def _repr_html_(self) -> str:
        from daskml_scale import html

        rows = [
            (row.name, row.kind, row.units, row.reused, f"{row.seconds:.1f}", f"{row.rows:,}") for row in self.stages
        ]
        stages = html.table(("stage", "kind", "units", "reused", "seconds", "rows"), rows, title=repr(self))
        scalars = [(name, f"{value:.4f}") for name, value in self.metrics.items() if isinstance(value, float)]
        return stages + (html.table(("metric", "value"), scalars) if scalars else "")


def cost_of(rows: Sequence[StageRow]) -> dict[str, float]:
    """Return what a run cost, and what it saved by reuse."""
    found = {
        "worker_seconds": sum(row.worker_seconds for row in rows),
        "saved_seconds": sum(row.saved_seconds for row in rows),
        "money": sum(row.cost for row in rows),
    }
    predicted = [row for row in rows if row.kind == "predict" and row.cost_per_thousand]
    if predicted:
        made = sum(row.cost / row.cost_per_thousand for row in predicted)
        found["per_thousand_predictions"] = sum(row.cost for row in predicted) / made
    return found


def metrics_of(workflow: Workflow, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    evaluated = [name for name in results if isinstance(workflow.stages[name], EvaluateSpec)]
    found: dict[str, Any] = {}
    for name in evaluated:
        for metric, value in results[name].get("metrics", {}).items():
            found[metric if len(evaluated) == 1 else f"{name}.{metric}"] = value
    return found
