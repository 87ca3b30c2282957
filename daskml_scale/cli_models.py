"""The verbs ``models list``, ``show``, ``promote``, ``rollback`` and ``drift``: the registered models of a store."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from daskml_scale.errors import Exit


@click.group("models")
def models() -> None:
    """Show the registered models of a store, and choose which version is the champion."""


@models.command("list")
@click.argument("store")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def list_verb(store: str, as_json: bool) -> int:
    """List the registered models of STORE: name, versions, champion.

    \b
    Example:
      daskml-scale models list runs/flights
    """
    from daskml_scale.runs import models as shown

    _say(shown.names(store), shown.table_of_names, as_json)
    return Exit.OK


@models.command("show")
@click.argument("store")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def show_verb(store: str, name: str, as_json: bool) -> int:
    """Show all versions of the model NAME, newest first: metrics, hash, and why it is the champion or not.

    \b
    Example:
      daskml-scale models show runs/flights flights-late
    """
    from daskml_scale.runs import models as shown

    _say(shown.versions(store, name), shown.table_of_versions, as_json)
    return Exit.OK


@models.command("promote")
@click.argument("store")
@click.argument("name")
@click.argument("version")
@click.option("--alias", default="champion", show_default=True, help="What to point at the version.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def promote_verb(store: str, name: str, version: str, alias: str, as_json: bool) -> int:
    """Make VERSION (a number, or an alias such as candidate) the champion.

    \b
    Example:
      daskml-scale models promote runs/flights flights-late 3
    """
    from daskml_scale.runs import models as shown

    _say(shown.promote(store, name, version, alias), shown.table_of_versions, as_json)
    return Exit.OK


@models.command("rollback")
@click.argument("store")
@click.argument("name")
@click.option("--alias", default="champion", show_default=True, help="What to point back.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def rollback_verb(store: str, name: str, alias: str, as_json: bool) -> int:
    """Make the version the champion that was it before.

    \b
    Example:
      daskml-scale models rollback runs/flights flights-late
    """
    from daskml_scale.runs import models as shown

    _say(shown.rollback(store, name, alias), shown.table_of_versions, as_json)
    return Exit.OK


@models.command("drift")
@click.argument("predictions")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Write plots there (.html or .png).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def drift_verb(predictions: str, plot: Path | None, as_json: bool) -> int:
    """Say how the rows of PREDICTIONS differ from those that the model was trained on: the worst features first.

    PREDICTIONS is what a monitor stage, or a prediction with monitor=True, wrote: STORE/NAME.zarr.

    \b
    Examples:
      daskml-scale models drift runs/flights/watch.zarr
      daskml-scale models drift runs/flights/watch.zarr --plot drift.html
    """
    from daskml_scale.runs import models as shown
    from daskml_scale.stages.monitor import drift

    found = drift(predictions)
    if plot is not None:
        from daskml_scale.dashboard.plots import drift_plot

        drift_plot(plot, found)
    _say(found, shown.table_of_drift, as_json)
    return Exit.OK


def _say(found: Any, drawn: Any, as_json: bool) -> None:
    from daskml_scale.runs import show

    if as_json:
        click.echo(json.dumps(found))
    else:
        show.write(drawn(found), sys.stdout)
