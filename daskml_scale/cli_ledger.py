"""The verbs of ``ledger``: what a store's ledgers hold, whether it is true, and the way back to an earlier run."""

from __future__ import annotations

import click

from daskml_scale.cli_end import print_result
from daskml_scale.errors import Exit


@click.group("ledger")
def ledger() -> None:
    """Show what is done in a store, check that it still is what was written, go back to an earlier run."""


@ledger.command("show")
@click.argument("store")
@click.argument("stage", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def show_verb(store: str, stage: str | None, as_json: bool) -> int:
    """List the stages of a store, or the units of one.

    STORE is the store of a workflow, or a dataset that a stage wrote.

    \b
    Examples:
      daskml-scale ledger show runs/flights
      daskml-scale ledger show runs/flights predictions
    """
    from daskml_scale.runs import ledgers

    if stage is None:
        found = ledgers.summaries(store)
        drawn, data = ledgers.show(found), [one.to_dict() for one in found]
    else:
        records = list(ledgers.records_of(store, stage))
        drawn = ledgers.listing(records)
        data = [
            {"unit": one.unit, "status": one.status, "rows": one.rows, "attempt": one.attempt, "seconds": one.seconds,
             "worker": one.worker, "why": one.why, "error": one.error}
            for one in records
        ]  # fmt: skip
    print_result(data, as_json, lambda: drawn)
    return Exit.OK


@ledger.command("verify")
@click.argument("store")
@click.argument("stage", required=False)
@click.option("--repair", is_flag=True, help="Mark the units concerned: the next run repeats exactly these.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def verify_verb(store: str, stage: str | None, repair: bool, as_json: bool) -> int:
    """Read everything in a store and compare it with the ledger.

    Finds chunks that are missing, torn or altered, also where size and time are unchanged. Exit code 1
    when something is found and not repaired.

    \b
    Examples:
      daskml-scale ledger verify runs/flights
      daskml-scale ledger verify runs/flights predictions --repair
    """
    from daskml_scale.runs import ledgers

    found = ledgers.checked(store, stage, repair=repair)
    print_result([one.to_dict() for one in found], as_json, lambda: ledgers.verdicts(found))
    return Exit.FAILED if any(one.problems for one in found) and not repair else Exit.OK


@ledger.command("rollback")
@click.argument("store")
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def rollback_verb(store: str, run: str | None, as_json: bool) -> int:
    """Bring an Icechunk store back to the end of an earlier run.

    Data, ledgers, models and small files, in one step; the next run goes on from there. Without RUN the
    runs that the store knows are listed, newest first.

    \b
    Examples:
      daskml-scale ledger rollback icechunk+file://runs/flights
      daskml-scale ledger rollback icechunk+file://runs/flights 20260829-0912-flights-7f3a
    """
    from daskml_scale.runs import rollback

    if run is None:
        known = rollback.runs_of(store)
        data = [{"run": name, "committed": at} for name, at in known]
        print_result(data, as_json, lambda: rollback.table(known))
    else:
        left = rollback.rolled_back(store, run)
        print_result({"run": run, "left": left}, as_json, lambda: rollback.said(store, run, left))
    return Exit.OK
