"""The command line: verbs that join what the other rooms do. No logic: decisions and pictures are elsewhere.

Results and ``--json`` go to stdout, progress and errors to stderr; how a command ends is the matter of
`cli_end`. Everything heavy is imported inside the verb that needs it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

import click

from daskml_scale.cli_clusters import clusters, holder
from daskml_scale.cli_end import PROGRAM, RunEndedError, ended, print_names, print_result, put, say
from daskml_scale.cli_features import features
from daskml_scale.cli_ledger import ledger
from daskml_scale.cli_models import models
from daskml_scale.cli_quarantine import quarantine
from daskml_scale.cli_runs import cancel_verb, logs_verb, wait_verb
from daskml_scale.cli_scaling import scaling
from daskml_scale.errors import Exit

if TYPE_CHECKING:
    from daskml_scale.events import Sink
    from daskml_scale.runs.execute import RunSummary
    from daskml_scale.runs.records import Registry
    from daskml_scale.runs.state import RunRecord

Verb = Callable[..., Any]


class _Verbs(click.Group):
    """Verbs in the order in which they are defined, which is that of use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _options(*names: str) -> Callable[[Verb], Verb]:
    """Add the shared options, in this order."""
    known: dict[str, Callable[[Verb], Verb]] = {
        "store": click.option("--store", metavar="URL", help="Where results go; the workflow's own by default."),
        "cluster": click.option(
            "--cluster", metavar="NAME", help="A cluster's name or file, or 'none' to work in this process."
        ),
        "sample": click.option(
            "--sample",
            type=click.FloatRange(0, 1, min_open=True),
            metavar="SHARE",
            help="Read only this share of the sources, such as 0.05, for an experiment; needs --store.",
        ),
        "json": click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
    }

    def add(verb: Verb) -> Verb:
        for name in reversed(names):
            verb = known[name](verb)
        return verb

    return add


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 failed, 2 wrong arguments or file, 3 conflict, 4 done with bad rows, 5 lost, "
    "6 cancelled, 130 interrupted.",
)
def verbs() -> None:
    """Features, search and prediction as Dask task graphs over chunked data. Every run resumes.

    \b
    Examples:
      daskml-scale run flights              run a workflow and watch it
      daskml-scale run flights --dry-run    show what would run, and why
      daskml-scale submit flights           run it detached from this terminal
      daskml-scale status                   how far the newest run is
    """


@verbs.command("run")
@click.argument("workflow")
@_options("store", "cluster", "sample", "json")
@click.option("--dry-run", is_flag=True, help="Print the plan; start and write nothing.")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def run_verb(
    workflow: str,
    store: str | None,
    cluster: str | None,
    sample: float | None,
    as_json: bool,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Run a workflow to its end, or what is left of it.

    WORKFLOW is a name (see: daskml-scale workflows) or a file. What an earlier run committed and
    is still valid is reused. Ctrl-C stops; the same command goes on from there.

    \b
    Examples:
      daskml-scale run flights
      daskml-scale run my.yaml --store runs/try --cluster none
      daskml-scale run my.yaml --store runs/try --sample 0.05
      daskml-scale run flights --json > summary.json
    """
    from daskml_scale import api
    from daskml_scale.runs.records import Registry

    if dry_run:
        return _dry_run(workflow, store, cluster, sample, as_json)
    registry = Registry()
    return _run_here(registry, api.register(registry, "run", workflow, store, cluster, sample=sample), as_json, quiet)


@verbs.command("resume")
@click.argument("run")
@_options("json")
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
@click.option("--detach", is_flag=True, help="In the background, as submit does.")
def resume_verb(run: str, as_json: bool, quiet: bool, detach: bool) -> int:
    """Go on with a run that ended or was lost: its workflow, store and cluster, from its directory.

    What is committed and still valid is reused; the rest runs as a run of its own.

    \b
    Examples:
      daskml-scale resume flights-20260829-04d2
      daskml-scale resume flights-20260829-04d2 --detach
    """
    from daskml_scale import api
    from daskml_scale.errors import ConflictError, UsageError
    from daskml_scale.runs.records import Registry

    registry = Registry()
    found = registry.get(run, now=time.time())
    if found.live:
        raise ConflictError(f"run {found.id} is {found.state}; see it: {PROGRAM} status {found.id}")
    try:
        os.chdir(found.cwd)
    except OSError as error:
        raise UsageError(f"run {found.id} was started in {found.cwd}: {error.strerror}; bring it back") from error
    if detach:
        sent = api.submit(found.source, store=found.store, cluster=found.cluster, sample=api.sample_of(found))
        return _submitted(sent, as_json)
    again = api.register(registry, "run", found.source, found.store, found.cluster, sample=api.sample_of(found))
    return _run_here(registry, again, as_json, quiet)


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


@verbs.command()
@click.argument("workflow")
@_options("store", "cluster", "sample", "json")
def submit(workflow: str, store: str | None, cluster: str | None, sample: float | None, as_json: bool) -> int:
    """Start a run in the background and print its id.

    It goes on when this terminal closes; its output is in the log that status names.

    \b
    Examples:
      daskml-scale submit flights
      id=$(daskml-scale submit flights) && daskml-scale status $id
    """
    from daskml_scale import api

    return _submitted(api.submit(workflow, store=store, cluster=cluster, sample=sample), as_json)


def _submitted(run: RunRecord, as_json: bool) -> int:
    put(json.dumps(run.to_dict()) if as_json else run.id)
    say(f"Watch it:            {PROGRAM} status {run.id}")
    say(f"If it stops, go on:  {_again(run)}")
    return Exit.OK


@verbs.command()
@click.argument("run", required=False)
@click.option("--why", "unit", metavar="UNIT", help="Say why this unit ran, and whether it would run again.")
@_options("json")
def status(run: str | None, unit: str | None, as_json: bool) -> int:
    """Show how far a run is.

    The newest one, or the one whose id begins with RUN. UNIT is a key as ledger show lists them, or
    STAGE:KEY.

    \b
    Examples:
      daskml-scale status
      daskml-scale status --why predictions:rows/00000003
    """
    from daskml_scale.runs import show
    from daskml_scale.runs.records import Registry

    now = time.time()
    found = Registry().get(run, now=now)
    if unit is not None:
        from daskml_scale import api
        from daskml_scale.runs.why import drawn

        told = api.why(found, unit)
        print_result([one.to_dict() for one in told], as_json, lambda: drawn(told))
        return Exit.OK
    if found.state == "lost":
        from daskml_scale.runs.recount import recounted

        found = recounted(found)
    print_result(found.to_dict(), as_json, lambda: show.status(found, now, os.getcwd()))
    return Exit.OK


@verbs.command("list")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many, newest first."
)
@_options("json")
def list_verb(limit: int, as_json: bool) -> int:
    """List the runs of this user, newest first."""
    from daskml_scale.runs import show
    from daskml_scale.runs.records import Registry

    now = time.time()
    runs = Registry().list(now=now, limit=limit)
    print_result([run.to_dict() for run in runs], as_json, lambda: show.runs(runs, now, os.getcwd()))
    return Exit.OK


for _verb in (wait_verb, logs_verb, cancel_verb):
    verbs.add_command(_verb)


@verbs.command()
@click.argument("file")
@_options("json")
def validate(file: str, as_json: bool) -> int:
    """Check a workflow file without running anything.

    FILE may also be a name.
    """
    from daskml_scale import api
    from daskml_scale.runs import show
    from daskml_scale.runs.words import plural

    spec = api.check(file)
    data = {"file": file, "workflow": spec.name, "stages": list(spec.stages)}
    line = f"ok: {file}: workflow {spec.name}, {plural(len(spec.stages), 'stage')}"
    print_result(data, as_json, lambda: show.text(line))
    return Exit.OK


@verbs.command()
@_options("json")
def workflows(as_json: bool) -> int:
    """List the workflows that have a name.

    They lie in ./workflows and in the package; any other file is given by its path.
    """
    from daskml_scale.spec.find import list_workflows

    print_names(list_workflows(), as_json)
    return Exit.OK


verbs.add_command(clusters)


@verbs.command()
@_options("json")
def version(as_json: bool) -> int:
    """Show versions: daskml-scale, Python, Dask and the like."""
    from importlib.metadata import version as of

    from daskml_scale.runs import show

    packages = ("daskml-scale", "dask", "distributed", "zarr", "xarray", "scikit-learn")
    found = {name: of(name) for name in packages} | {"python": sys.version.split()[0]}
    print_result(found, as_json, lambda: show.pairs(list(found.items())))
    return Exit.OK


verbs.add_command(holder)
verbs.add_command(ledger)
verbs.add_command(models)
verbs.add_command(features)
verbs.add_command(scaling)
verbs.add_command(quarantine)


@verbs.command("_runner", hidden=True)
@click.argument("run")
def runner(run: str) -> int:
    """Do the work of a submitted run. Started by submit."""
    from daskml_scale.runs import show
    from daskml_scale.runs.records import Registry

    registry = Registry()
    summary = _work(registry, registry.get(run, now=time.time()), quiet=False)
    show.write(show.summary(summary.to_dict(), os.getcwd()), sys.stderr)
    return summary.exit_code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; the entry point of ``daskml-scale``.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after the program's name; ``sys.argv`` by default.
    """
    # Idle OpenMP threads must not spin: on busy cores that makes a small fit 20 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ✓ shows a ?
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return int(verbs.main(args=words, prog_name=PROGRAM, standalone_mode=False) or Exit.OK)
    except (Exception, KeyboardInterrupt) as error:
        return ended(error, "--json" in words)


def _dry_run(workflow: str, store: str | None, cluster: str | None, sample: float | None, as_json: bool) -> int:
    from daskml_scale import api
    from daskml_scale.runs import show
    from daskml_scale.runs.attend import only_results

    with only_results(as_json):
        rows = api.dry_run(workflow, store=store, cluster=cluster, sample=sample)
    print_result([row.to_dict() for row in rows], as_json, lambda: show.plan(rows))
    return Exit.OK


def _work(registry: Registry, run: RunRecord, *, quiet: bool) -> RunSummary:
    from daskml_scale.runs.attend import attend
    from daskml_scale.runs.live import view
    from daskml_scale.runs.words import near

    here = near(run.source, os.getcwd())  # as errors name it
    source = here if here.endswith((".yaml", ".yml")) else run.source

    def work(sink: Sink) -> RunSummary:
        from daskml_scale import api  # once the view is up: this takes a moment

        sample = api.sample_of(run)
        return api.run(source, store=run.store, cluster=run.cluster, sample=sample, sink=sink, run_id=run.id)

    return attend(registry, run, work, view(sys.stderr, quiet=quiet))


def _again(run: RunRecord) -> str:
    from daskml_scale.runs.words import command

    return command(run.command, run.cwd, os.getcwd())
