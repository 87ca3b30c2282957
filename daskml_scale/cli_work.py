"""The verbs that start work: ``run``, ``submit``, ``resume``, ``rerun``, and the hidden one of a submitted run."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

import click

from daskml_scale.cli_end import PROGRAM, RunEndedError, print_result, put, say
from daskml_scale.cli_options import options, run_argument, workflow_argument
from daskml_scale.cli_runs import awaited, followed
from daskml_scale.errors import Exit

if TYPE_CHECKING:
    from daskml_scale.events import Sink
    from daskml_scale.runs.live import Silent
    from daskml_scale.runs.records import Registry
    from daskml_scale.runs.state import RunRecord
    from daskml_scale.runs.summary import RunSummary


@click.command("run")
@workflow_argument()
@options("store", "cluster", "sample", "set", "label")
@click.option("--dry-run", is_flag=True, help="Print the plan; start and write nothing.")
@options("quiet", "json")
def run_verb(
    workflow: str,
    store: str | None,
    cluster: str | None,
    sample: float | None,
    settings: tuple[str, ...],
    labels: tuple[str, ...],
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run a workflow to its end, or what is left of it.

    WORKFLOW is a name (see: daskml-scale workflows) or a file. What an earlier run committed and
    is still valid is reused. Ctrl-C stops; the same command goes on from there.

    \b
    Examples:
      daskml-scale run flights
      daskml-scale run my.yaml --store runs/try --cluster none
      daskml-scale run my.yaml --store runs/try --sample 0.05
      daskml-scale run my.yaml --set stages.model.where='x > 3'
      daskml-scale run flights --json > summary.json
    """
    if dry_run:
        return _dry_run(workflow, store, cluster, sample, settings, as_json)
    from daskml_scale.runs.enter import Asked, Options, registered
    from daskml_scale.runs.records import Registry
    from daskml_scale.runs.words import labelled

    registry = Registry()
    asked = Asked(workflow, store, cluster, Options(sample, settings), labelled(labels))
    return _run_here(registry, registered(registry, asked), as_json, quiet)


@click.command("submit")
@workflow_argument()
@options("store", "cluster", "sample", "set", "label")
@click.option("--priority", type=int, default=0, show_default=True, help="The larger goes first in the queue.")
@click.option("--key", metavar="TEXT", help="Idempotency: a second submit with the same key returns the same run.")
@click.option("--wait", is_flag=True, help="Wait until the run has ended, and exit as it did.")
@click.option("--follow", is_flag=True, help="As --wait, and print its log meanwhile.")
@options("json")
def submit_verb(
    workflow: str,
    store: str | None,
    cluster: str | None,
    sample: float | None,
    settings: tuple[str, ...],
    labels: tuple[str, ...],
    priority: int,
    key: str | None,
    wait: bool,
    follow: bool,
    as_json: bool,
) -> int:
    """Start a run in the background and print its id.

    It goes on when this terminal closes; its output is in the log that status names. It waits its turn
    when its cluster has as many runs as its definition allows (runs:, 1 by default), or its store is in use.

    \b
    Examples:
      daskml-scale submit flights
      id=$(daskml-scale submit flights) && daskml-scale status $id
      daskml-scale submit flights --wait --label team=ops
      daskml-scale submit flights --key flights-$(date +%F)     once a day, however often
      for x in 1 2 3; do daskml-scale submit my.yaml --store runs/$x --set stages.model.seed=$x; done
    """
    from daskml_scale.runs.begin import among_few
    from daskml_scale.storage.home import home

    with among_few(str(home() / "submits")):  # before what takes its time: a hundred may be submitted at once
        from daskml_scale.runs.enter import Asked, Options, submitted
        from daskml_scale.runs.records import Registry
        from daskml_scale.runs.words import labelled

        registry = Registry()
        asked = Asked(workflow, store, cluster, Options(sample, settings), labelled(labels), priority, key)
        run = submitted(registry, asked)
    return _submitted(registry, run, as_json, wait=wait, follow=follow)


@click.command("resume")
@run_argument()
@options("quiet", "detach", "json")
def resume_verb(run: str, quiet: bool, detach: bool, as_json: bool) -> int:
    """Go on with a run that ended or was lost: its workflow, settings, store and cluster, from its directory.

    What is committed and still valid is reused; the rest runs as a run of its own. What changed since (the
    file, its Python, versions of libraries) is told first: it decides what is still valid.

    \b
    Examples:
      daskml-scale resume flights-20260829-04d2
      daskml-scale resume flights-20260829-04d2 --detach
    """
    return _go_on(run, "", quiet, detach, as_json)


@click.command("rerun")
@run_argument()
@click.option("--from", "stage", metavar="STAGE", required=True, help="Do this stage again, and all that need it.")
@options("quiet", "detach", "json")
def rerun_verb(run: str, stage: str, quiet: bool, detach: bool, as_json: bool) -> int:
    """Do a run again from a stage on, although what it made is valid.

    For what no fingerprint knows of: a driver, a service that a function asks, a doubt. Stages before it are
    reused. To do again only rows in quarantine, see: daskml-scale quarantine show --retry.

    \b
    Examples:
      daskml-scale rerun flights-20260829-04d2 --from train
      daskml-scale rerun flights-20260829-04d2 --from features --detach
    """
    return _go_on(run, stage, quiet, detach, as_json)


def _go_on(ref: str, again: str, quiet: bool, detach: bool, as_json: bool) -> int:
    from daskml_scale.errors import ConflictError, UsageError
    from daskml_scale.runs import remote
    from daskml_scale.runs.enter import Asked, registered, resumed, submitted
    from daskml_scale.runs.records import Registry

    registry = Registry()
    found = remote.current(registry, registry.get(ref, now=time.time()), say)
    if found.live:
        raise ConflictError(f"run {found.id} is {found.state}; see it: {PROGRAM} status {found.id}")
    try:
        os.chdir(found.cwd)
    except OSError as error:
        raise UsageError(f"run {found.id} was started in {found.cwd}: {error.strerror}; bring it back") from error
    asked = Asked.like(found, again)
    changed = resumed(found, registry.path.parent)
    for line in changed:
        say(f"since {found.id}: {line}")
    if detach:
        return _submitted(registry, submitted(registry, asked), as_json)
    return _run_here(registry, registered(registry, asked), as_json, quiet)


@click.command("_job", hidden=True)
def job_runner() -> int:
    """Do the work of a run whose runner is a Job. Started by Kubernetes."""
    from daskml_scale.errors import UsageError
    from daskml_scale.runs import inside, show
    from daskml_scale.runs.live import view

    if "DASKML_RUN" not in os.environ:
        raise UsageError("_job is what a Job of Kubernetes runs; to run a workflow: daskml-scale run WORKFLOW")
    tell = inside.teller()
    registry, run = inside.entered(os.environ, tell)
    summary = _work(registry, run, quiet=False, shown=inside.Told(view(sys.stderr), tell))
    show.write(show.summary(summary.to_dict(), os.getcwd()), sys.stderr)
    return summary.exit_code


@click.command("_runner", hidden=True)
@click.argument("run")
def runner(run: str) -> int:
    """Do the work of a submitted run. Started by submit."""
    from daskml_scale import logs
    from daskml_scale.runs import show
    from daskml_scale.runs.records import Registry

    registry = Registry()
    summary = _work(registry, registry.get(run, now=time.time()), quiet=False, wait=True)
    if not logs.as_json():
        show.write(show.summary(summary.to_dict(), os.getcwd()), sys.stderr)
    return summary.exit_code


def _submitted(registry: Registry, run: RunRecord, as_json: bool, *, wait: bool = False, follow: bool = False) -> int:
    from daskml_scale.runs import provenance

    waits, plan = wait or follow, provenance.read(registry.path.parent, run.id).get("plan", [])
    if not (waits and as_json):
        put(json.dumps({**run.to_dict(), "plan": plan}) if as_json else run.id)
    say(f"Watch it:            {PROGRAM} status {run.id}")
    say(f"If it stops, go on:  {_again(run)}")
    if plan:
        from daskml_scale.runs.words import planned

        say(f"Its plan:            {planned(plan)}")
    if not waits:
        return Exit.OK
    if follow and not followed(registry, run.id, say):
        return Exit.INTERRUPTED
    return awaited(registry, run.id, as_json, quiet=not as_json)


def _run_here(registry: Registry, run: RunRecord, as_json: bool, quiet: bool) -> int:
    from daskml_scale.runs import show
    from daskml_scale.runs.attend import only_results

    try:
        with only_results(as_json):
            summary = _work(registry, run, quiet=quiet)
    except Exception as error:
        raise RunEndedError(run) from error
    print_result(summary.to_dict(), as_json, lambda: show.summary(summary.to_dict(), os.getcwd()))
    return summary.exit_code


def _dry_run(
    workflow: str,
    store: str | None,
    cluster: str | None,
    sample: float | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> int:
    from daskml_scale import api
    from daskml_scale.runs import show
    from daskml_scale.runs.attend import only_results

    with only_results(as_json):
        rows = api.dry_run(workflow, store=store, cluster=cluster, sample=sample, settings=settings)
    print_result([row.to_dict() for row in rows], as_json, lambda: show.plan(rows))
    return Exit.OK


def _work(
    registry: Registry, run: RunRecord, *, quiet: bool, wait: bool = False, shown: Silent | None = None
) -> RunSummary:
    from daskml_scale.runs.attend import attend
    from daskml_scale.runs.live import view
    from daskml_scale.runs.words import near

    here = near(run.source, os.getcwd())  # as errors name it
    source = here if here.endswith((".yaml", ".yml")) else run.source

    def work(sink: Sink) -> RunSummary:
        from daskml_scale import api  # once the view is up: this takes a moment
        from daskml_scale.runs import provenance
        from daskml_scale.runs.enter import Options

        asked = Options.of(run)
        text = str(provenance.read(registry.path.parent, run.id).get("spec", ""))
        return api.run(
            source, store=run.store, cluster=run.cluster, sample=asked.sample, settings=asked.settings, sink=sink,
            run_id=run.id, text=text, again=asked.again,
        )  # fmt: skip

    return attend(registry, run, work, shown or view(sys.stderr, quiet=quiet), wait=wait)


def _again(run: RunRecord) -> str:
    from daskml_scale.runs.words import command

    return command(run.command, run.cwd, os.getcwd())
