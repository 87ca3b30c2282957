"""The verbs ``scaling explain``, ``scaling simulate`` and ``scaling report``: why, what if, and what bounds it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from daskml_scale.cli_end import print_result
from daskml_scale.errors import Exit, UsageError

if TYPE_CHECKING:
    from daskml_scale.runs.replay import Load
    from daskml_scale.runs.state import RunRecord
    from daskml_scale.scaling.demand import Shape
    from daskml_scale.scaling.policy import Limits


@click.group("scaling")
def scaling() -> None:
    """Say why the number of workers changed, what others would do, and what bounds a run."""


@scaling.command("explain")
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def explain_verb(run: str | None, as_json: bool) -> int:
    """List the scaling decisions of a run, each with its reason.

    The newest run, or the one whose id begins with RUN.

    \b
    Examples:
      daskml-scale scaling explain
      daskml-scale scaling explain flights-0721 --json
    """
    from daskml_scale.runs import scaling_report

    found, log = _run(run)
    listed = scaling_report.decisions(log)
    started = found.started or found.created
    print_result([one.to_dict() for one in listed], as_json, lambda: scaling_report.explained(listed, started))
    return Exit.OK


@scaling.command("simulate")
@click.argument("subject", metavar="[RUN|WORKFLOW]", required=False)
@click.option("--max", "maxima", default="1,8,64", show_default=True, metavar="N,N,...", help="Most workers, in turn.")
@click.option("--startup", metavar="TIME", help="Of a worker, as 90s; the cluster's own guess, or 60s, by default.")
@click.option("--cluster", metavar="NAME", help="Take threads, price, horizon and idle time from this definition.")
@click.option("--threads", type=click.IntRange(min=1), help="Tasks that a worker runs at a time.")
@click.option("--price", type=click.FloatRange(min=0), help="Per worker and hour.")
@click.option("--fail", type=click.FloatRange(0, 0.9), default=0.0, help="Share of the workers that never arrive.")
@click.option("--lifetime", metavar="TIME", help="Mean time until a worker is preempted.")
@click.option("--seconds", multiple=True, metavar="STAGE=S", help="Of one unit of a stage that has never run.")
@click.option("--seed", type=int, default=0, help="Of the chances.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Write plots there (.html or .png).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def simulate_verb(
    subject: str | None, maxima: str, startup: str | None, cluster: str | None, threads: int | None,
    price: float | None, fail: float, lifetime: str | None, seconds: tuple[str, ...], seed: int, plot: Path | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Say what a run would take with other limits, before paying.

    Plays the recorded units of RUN (the newest, or the one whose id begins so), or what WORKFLOW would
    run now, on a simulated cluster that follows the same policy.

    \b
    Examples:
      daskml-scale scaling simulate --max 1,8,64,4000 --startup 90s
      daskml-scale scaling simulate flights --seconds features=2.5 --plot limits.html
    """
    import math

    from daskml_scale.runs import scaling_report
    from daskml_scale.runs.replay import capacity
    from daskml_scale.scaling.usage import Supply

    counts = _counts(maxima)
    shape, limits, guess = _cluster(cluster, threads, price)
    start = guess if startup is None else _seconds("--startup", startup)
    life = math.inf if lifetime is None else _seconds("--lifetime", lifetime)
    loads = _loads(subject, seconds)
    rows = capacity(loads, counts, shape, start, Supply((0.75 * start, 1.25 * start), fail, life), limits, seed)
    if plot is not None:
        from daskml_scale.dashboard.plots import scaling_plot

        ended = [row for row in rows if math.isfinite(row.seconds)]
        scaling_plot(plot, [row.to_dict() for row in ended], {row.maximum: row.timeline for row in ended})
    data = [{**row.to_dict(), "seconds": row.seconds if math.isfinite(row.seconds) else None} for row in rows]
    print_result(data, as_json, lambda: scaling_report.capacities(rows, loads))
    return Exit.OK


@scaling.command("report")
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def report_verb(run: str | None, as_json: bool) -> int:
    """Say how a run scales: Amdahl's and Gunther's laws, efficiency at N workers, and what bounds it.

    \b
    Examples:
      daskml-scale scaling report
      daskml-scale scaling report flights-0721
    """
    from daskml_scale.runs import scaling_report
    from daskml_scale.runs.replay import recorded

    found = scaling_report.report(recorded(*_run(run)))
    print_result(found.to_dict(), as_json, lambda: scaling_report.reported(found))
    return Exit.OK


def _run(ref: str | None) -> tuple[RunRecord, Path]:
    """Return a run and its log."""
    from daskml_scale.runs.event_log import path_of
    from daskml_scale.runs.records import Registry

    registry = Registry()
    found = registry.get(ref, now=time.time())
    return found, path_of(registry.path.parent, found.id)


def _loads(subject: str | None, seconds: tuple[str, ...]) -> list[Load]:
    """Return the work of a run, or of a workflow if there is one of that name."""
    from daskml_scale.runs.planning import planned_by
    from daskml_scale.runs.replay import projected, recorded

    if subject is not None and _is_workflow(subject):
        return projected(planned_by(subject), dict(_pair(text) for text in seconds))
    if seconds:
        raise UsageError("--seconds is for a workflow; the units of a run have their own durations")
    return recorded(*_run(subject))


def _is_workflow(name: str) -> bool:
    from daskml_scale.errors import SpecError
    from daskml_scale.spec.find import find_workflow

    try:
        find_workflow(name)
    except SpecError:
        return name.endswith((".yaml", ".yml")) or "/" in name
    return True


def _pair(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not name or not 0 < value < 1e9:
        raise UsageError(f"--seconds {text}: write STAGE=SECONDS, as features=2.5")
    return name, value


def _counts(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.replace(" ", "").split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1 or max(found) > 100_000:
        raise UsageError(f"--max {text}: write whole numbers from 1 to 100,000, as 1,8,64")
    return sorted(set(found))


def _seconds(option: str, text: str) -> float:
    from daskml_scale.spec.base import seconds

    try:
        found = seconds(text)
    except ValueError as error:
        raise UsageError(f"{option} {error}") from None
    if found <= 0:
        raise UsageError(f"{option} {text}: it must be longer than zero")
    return found


def _cluster(name: str | None, threads: int | None, price: float | None) -> tuple[Shape, Limits, float]:
    """Return class, limits and start-up of a definition's first class, or of a plain worker."""
    from dataclasses import replace

    from daskml_scale.scaling.demand import Shape
    from daskml_scale.scaling.policy import Limits

    shape, limits, startup = Shape("worker", 1), Limits(), 60.0
    if name is not None:
        from daskml_scale.scaling.limits import limits_of
        from daskml_scale.spec.base import seconds
        from daskml_scale.spec.cluster import ExistingSpec
        from daskml_scale.spec.find import find_cluster
        from daskml_scale.spec.load import load_cluster

        spec = load_cluster(find_cluster(os.fspath(name)))
        if isinstance(spec, ExistingSpec):
            raise UsageError(f"--cluster {name}: its workers are not ours to describe; name a cluster with classes")
        first, item = next(iter(spec.classes.items()))
        shape = Shape(first, item.threads, dict(item.resources), item.price_per_hour)
        limits = limits_of(spec, dict.fromkeys(spec.classes, 1), on_this_machine=False)[first]
        startup = seconds(item.startup)
    return (
        replace(shape, threads=threads or shape.threads, price=shape.price if price is None else price),
        limits,
        startup,
    )
