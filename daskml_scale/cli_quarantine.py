"""The verb ``quarantine show``: rows that could not be predicted, why, and having them tried again."""

from __future__ import annotations

import click

from daskml_scale.cli_end import print_result
from daskml_scale.errors import Exit


@click.group("quarantine")
def quarantine() -> None:
    """Show the rows that could not be predicted, and have them tried again."""


@quarantine.command("show")
@click.argument("store")
@click.argument("stage", required=False)
@click.option("--retry", is_flag=True, help="Mark the units concerned: the next run repeats exactly these.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def show_verb(store: str, stage: str | None, retry: bool, as_json: bool) -> int:
    """List the rows in quarantine with their reasons, and the units that failed.

    STORE is the store of a workflow, or a dataset of predictions. A mended input runs again by itself;
    --retry is for mends that show in no input: another version of a library, more memory.

    \b
    Examples:
      daskml-scale quarantine show runs/flights
      daskml-scale quarantine show runs/flights predictions --retry
    """
    from daskml_scale.runs import quarantine as looked

    found = looked.retry(store, stage) if retry else looked.held(store, stage)
    print_result([one.to_dict() for one in found], as_json, lambda: looked.table(found, retry))
    return Exit.OK
