"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Verb = Callable[..., Any]


def _of_runs(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Complete the id of a run."""
    import time

    from daskml_scale.errors import DaskMLError
    from daskml_scale.runs.records import Registry

    try:
        return [run.id for run in Registry().list(now=time.time(), limit=200) if run.id.startswith(begun)]
    except DaskMLError:
        return []


def _of_files(
    what: str,
) -> Callable[[click.Context, click.Parameter, str], list[click.shell_completion.CompletionItem]]:
    def complete(
        context: click.Context, parameter: click.Parameter, begun: str
    ) -> list[click.shell_completion.CompletionItem]:
        from daskml_scale.spec.find import list_clusters, list_workflows

        found = [name for name, _ in (list_workflows() if what == "workflow" else list_clusters())]
        items = [click.shell_completion.CompletionItem(name) for name in found if name.startswith(begun)]
        return items or [click.shell_completion.CompletionItem(begun, type="file")]

    return complete


def run_argument(*, required: bool = True) -> Callable[[Verb], Verb]:
    """Add the argument RUN, which shells complete."""
    return click.argument("run", required=required, shell_complete=_of_runs)


def workflow_argument(name: str = "workflow") -> Callable[[Verb], Verb]:
    """Add the argument WORKFLOW, which shells complete."""
    return click.argument(name, shell_complete=_of_files("workflow"))


def options(*names: str) -> Callable[[Verb], Verb]:
    """Add shared options, in this order."""
    known: dict[str, Callable[[Verb], Verb]] = {
        "store": click.option("--store", metavar="URL", help="Where results go; the workflow's own by default."),
        "cluster": click.option(
            "--cluster",
            metavar="NAME",
            help="A cluster's name or file, or 'none' to work in this process.",
            shell_complete=_of_files("cluster"),
        ),
        "sample": click.option(
            "--sample",
            type=click.FloatRange(0, 1, min_open=True),
            metavar="SHARE",
            help="Read only this share of the sources, such as 0.05, for an experiment; needs --store.",
        ),
        "set": click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="A value instead of the file's, by its dotted path: stages.model.where='x > 3'. Repeatable.",
        ),
        "label": click.option(
            "--label", "labels", multiple=True, metavar="NAME=VALUE", help="For list and cost. Repeatable."
        ),
        "quiet": click.option("--quiet", "-q", is_flag=True, help="No progress."),
        "detach": click.option("--detach", is_flag=True, help="In the background, as submit does."),
        "json": click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
    }

    def add(verb: Verb) -> Verb:
        for name in reversed(names):
            verb = known[name](verb)
        return verb

    return add
