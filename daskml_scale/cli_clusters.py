"""The verbs of ``clusters``: which definitions there are, what is in one, whether it would work."""

from __future__ import annotations

from typing import Any

import click

from daskml_scale.cli_end import print_names, print_result, say
from daskml_scale.errors import Exit


@click.group("clusters", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.pass_context
def clusters(context: click.Context, as_json: bool) -> int | None:
    """List the clusters that have a name; show and check one; start and end clusters that outlive the shell.

    They lie in ./clusters and in the package; any other file is given by its path.
    """
    return None if context.invoked_subcommand else _list(as_json)


@clusters.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def list_verb(as_json: bool) -> int:
    """List the clusters that have a name."""
    return _list(as_json)


def _list(as_json: bool) -> int:
    from daskml_scale.spec.find import list_clusters

    print_names(list_clusters(), as_json)
    return Exit.OK


@clusters.command("show")
@click.argument("cluster")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def show_verb(cluster: str, as_json: bool) -> int:
    """Show a definition with every default filled in.

    CLUSTER is a name or a file.
    """
    from daskml_scale.runs import show
    from daskml_scale.spec.yaml_text import written

    data = _read(cluster).model_dump(mode="json", exclude_none=True)
    print_result(data, as_json, lambda: show.text(written(data)))
    return Exit.OK


@clusters.command("check")
@click.argument("cluster")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def check_verb(cluster: str, as_json: bool) -> int:
    """Prove a definition before it is used: what would fail, and how to mend it.

    Starts nothing. Exit code 1 when something would fail.

    \b
    Examples:
      daskml-scale clusters check local
      daskml-scale clusters check team.yaml
    """
    from daskml_scale.deploy.check import check
    from daskml_scale.runs import show

    found = check(_read(cluster))
    print_result([one.to_dict() for one in found], as_json, lambda: show.findings(found))
    return Exit.OK if all(one.ok for one in found) else Exit.FAILED


def _read(cluster: str) -> Any:
    from daskml_scale.spec.find import find_cluster
    from daskml_scale.spec.load import load_cluster

    return load_cluster(find_cluster(cluster))


@clusters.command("up")
@click.argument("cluster")
@click.option("--name", metavar="NAME", help="What it is called; the definition's own name by default.")
@click.option("--idle", default="1h", show_default=True, help="It ends when it had no task for so long.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def up_verb(cluster: str, name: str | None, idle: str, as_json: bool) -> int:
    """Start a cluster that outlives this shell.

    Runs and notebooks that ask for a cluster of its name use it, until it is ended or was idle for long.

    \b
    Examples:
      daskml-scale clusters up local --name team
      daskml-scale run flights --cluster team
      daskml-scale clusters down team
    """
    from daskml_scale.runs import named, show

    one = named.up(cluster, name=name, idle=idle)
    print_result(
        one.to_dict(), as_json, lambda: show.text(f"cluster {one.name} runs at {one.address}, {one.dashboard}")
    )
    return Exit.OK


@clusters.command("down")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def down_verb(name: str, as_json: bool) -> int:
    """End a cluster that `up` started. Tasks on it are lost; committed work of runs stays."""
    from daskml_scale.runs import named, show

    one = named.down(name)
    print_result(one.to_dict(), as_json, lambda: show.text(f"cluster {one.name} has ended"))
    return Exit.OK


@clusters.command("scale")
@click.argument("name")
@click.argument("workers", type=click.IntRange(min=0))
@click.option("--class", "worker_class", metavar="CLASS", help="Of this class; the first one by default.")
def scale_verb(name: str, workers: int, worker_class: str | None) -> int:
    """Ask a cluster that `up` started for a number of workers; it follows its backlog no more."""
    from daskml_scale.runs import named, named_use

    with named_use.NamedCluster(named.required(name)) as cluster:
        cluster.scale(workers, worker_class)
    say(f"cluster {name} was asked for {workers:,} workers; see: daskml-scale clusters ps {name}")
    return Exit.OK


@clusters.command("ps")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def ps_verb(name: str | None, as_json: bool) -> int:
    """List the clusters that `up` started and that run, or the workers of one."""
    from daskml_scale.runs import named, named_use, show
    from daskml_scale.runs.words import size

    if name is None:
        found = named.running()
        rows = [(one.name, one.address, one.dashboard, one.definition, show.moment(one.since)) for one in found]
        header = ("name", "scheduler", "dashboard", "from", "since")
        none = show.text("No cluster is up. Start one: daskml-scale clusters up NAME")
        print_result([one.to_dict() for one in found], as_json, lambda: show.columns(header, rows) if rows else none)
    else:
        workers = named_use.workers_of(name)
        lines = [
            (row["worker"], str(row["threads"]), size(row["memory"]), size(row["limit"]), str(row["running"]),
             row["address"])
            for row in workers
        ]  # fmt: skip
        head = ("worker", "threads", "memory", "limit", "running", "address")
        print_result(workers, as_json, lambda: show.columns(head, lines, head[1:5]))
    return Exit.OK


@clusters.command("logs")
@click.argument("name")
@click.option("--lines", "-n", type=click.IntRange(min=1), default=100, show_default=True, help="Of each process.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def logs_verb(name: str, lines: int, as_json: bool) -> int:
    """Show what scheduler and workers of a cluster that `up` started wrote last."""
    from daskml_scale.runs import named_use, show

    found = named_use.logs_of(name, lines)
    told = "\n".join(f"== {place}\n{text}" for place, text in found.items())
    print_result(found, as_json, lambda: show.text(told))
    return Exit.OK


@click.command("_cluster", hidden=True)
@click.argument("path")
@click.argument("name")
@click.argument("definition")
@click.argument("idle")
def holder(path: str, name: str, definition: str, idle: str) -> int:
    """Hold a named cluster. Started by up."""
    from daskml_scale.runs import named

    return named.hold(path, name, definition, idle)
