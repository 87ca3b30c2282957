"""The verbs ``features list`` and ``features show``: the feature sets of a store."""

from __future__ import annotations

import click

from daskml_scale.cli_end import print_result
from daskml_scale.errors import Exit


@click.group("features")
def features() -> None:
    """Show the feature sets of a store: what is known of which entity, at which time."""


@features.command("list")
@click.argument("store")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def list_verb(store: str, as_json: bool) -> int:
    """List the feature sets of STORE: name, newest version, entity, time.

    \b
    Example:
      daskml-scale features list runs/fleet
    """
    from daskml_scale.runs import feature_sets as shown

    found = shown.names(store)
    print_result(found, as_json, lambda: shown.table_of_names(found))
    return Exit.OK


@features.command("show")
@click.argument("store")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def show_verb(store: str, name: str, as_json: bool) -> int:
    """Show all versions of the feature set NAME, newest first: recipe, matrix, features.

    \b
    Example:
      daskml-scale features show runs/fleet fleet-health
    """
    from daskml_scale.runs import feature_sets as shown

    found = shown.versions(store, name)
    print_result(found, as_json, lambda: shown.table_of_versions(found))
    return Exit.OK
