"""The verbs of ``clusters``: which definitions there are, what is in one, whether it would work."""

from __future__ import annotations

from typing import Any

import click

from daskml_scale.cli_end import print_names, print_result
from daskml_scale.errors import Exit


@click.group("clusters", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.pass_context
def clusters(context: click.Context, as_json: bool) -> int | None:
    """List the clusters that have a name, show what is in one, check it before use.

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
