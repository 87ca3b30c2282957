"""The verbs about runs that were: ``report``, ``cost``, ``provenance`` and ``gc``."""

from __future__ import annotations

import json
import os
import time

import click

from daskml_scale.cli_end import print_result, put, say
from daskml_scale.cli_options import options, run_argument
from daskml_scale.errors import Exit


@click.command("report")
@run_argument(required=False)
@click.option("--out", metavar="FILE", help="FILE.html, .json or .png; report-RUN.html here by default.")
@options("json")
def report_verb(run: str | None, out: str | None, as_json: bool) -> int:
    """Write a report of a run: one HTML file that needs nothing else.

    Stages over time, throughput, what was reused and why units ran, trials, metrics with their curves,
    drift, cost, rows in quarantine, scaling, warnings, and where the results come from. With --json the
    same as one document on stdout, and no file.

    \b
    Examples:
      daskml-scale report
      daskml-scale report flights-20260829-04d2 --out /tmp/flights.html
      daskml-scale report flights-20260829-04d2 --json
    """
    from daskml_scale.runs import remote, report
    from daskml_scale.runs.records import Registry

    registry = Registry()
    found = report.gathered(registry, remote.current(registry, registry.get(run, now=time.time()), say))
    if as_json:
        put(report.document(found))
    else:
        put(str(report.written(found, out or f"report-{found['run']['id']}.html")))
    return Exit.OK


@click.command("cost")
@click.option(
    "--by", default="run", show_default=True, metavar="WHAT", help="run, owner, label, or label:NAME for one of them."
)
@options("label")
@click.option("--owner", metavar="NAME", help="Only runs of this user.")
@options("json")
def cost_verb(by: str, labels: tuple[str, ...], owner: str | None, as_json: bool) -> int:
    """Show what runs cost: worker-seconds, what stood idle, start-up, money, and what reuse saved.

    Money needs prices in the cluster's definition, and is an estimate.

    \b
    Examples:
      daskml-scale cost
      daskml-scale cost --by label:team
      daskml-scale cost --by owner --label project=flights --json
    """
    from daskml_scale.errors import UsageError
    from daskml_scale.runs import costs, show
    from daskml_scale.runs.records import Registry
    from daskml_scale.runs.words import labelled

    if by not in ("run", "owner", "label") and not by.removeprefix("label:") != by:
        raise UsageError(f"--by {by}: there are run, owner, label and label:NAME")
    registry = Registry()
    runs = registry.list(now=time.time(), labels=labelled(labels), owner=owner)
    found = costs.bills(runs, registry.costs(), by)
    print_result([bill.to_dict() for bill in found], as_json, lambda: show.bills(found, by))
    return Exit.OK


@click.command("provenance")
@run_argument(required=False)
def provenance_verb(run: str | None) -> int:
    """Print where a run's results come from, as one JSON document.

    The file's text, settings, the workflow with all defaults, the commit of its folder and whether it was
    changed since, hashes of the Python beside it, versions, seed, and the identities of its inputs.

    \b
    Example:
      daskml-scale provenance flights-20260829-04d2 > provenance.json
    """
    from daskml_scale.runs import provenance
    from daskml_scale.runs.records import Registry

    registry = Registry()
    found = registry.get(run, now=time.time())
    put(json.dumps(provenance.whole(registry.path.parent, found.id, found.store), indent=1))
    return Exit.OK


@click.command("gc")
@click.option("--older", default="30d", show_default=True, metavar="AGE", help="Only what is older: 12h, 30d.")
@click.option("--yes", is_flag=True, help="Remove; without it only what would be removed is listed.")
@options("json")
def gc_verb(older: str, yes: bool, as_json: bool) -> int:
    """Remove what old runs left: entries in the registry, their logs, ledgers without a dataset.

    Results and what a later run can reuse stay; so do runs that live or are lost a short time.

    \b
    Examples:
      daskml-scale gc                    what would go
      daskml-scale gc --older 90d --yes
    """
    from daskml_scale.runs import gc
    from daskml_scale.runs.records import Registry

    registry = Registry()
    found = gc.found(registry, gc.age(older), now=time.time())
    if yes:
        gc.remove(registry, found)
    print_result([one.to_dict() for one in found], as_json, lambda: gc.drawn(found, removed=yes, here=os.getcwd()))
    return Exit.OK
