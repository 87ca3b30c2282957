"""The verbs about runs of other processes: ``status``, ``list``, ``wait``, ``logs`` and ``cancel``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from daskml_scale.cli_end import print_result, put, say
from daskml_scale.cli_options import options, run_argument
from daskml_scale.errors import Exit

if TYPE_CHECKING:
    from daskml_scale.runs.records import Registry


@click.command("status")
@run_argument(required=False)
@click.option("--why", "unit", metavar="UNIT", help="Say why this unit ran, and whether it would run again.")
@options("json")
def status_verb(run: str | None, unit: str | None, as_json: bool) -> int:
    """Show how far a run is.

    The newest one, or the one whose id begins with RUN. UNIT is a key as ledger show lists them, or
    STAGE:KEY.

    \b
    Examples:
      daskml-scale status
      daskml-scale status --why predictions:rows/00000003
    """
    from daskml_scale.runs import remote, show
    from daskml_scale.runs.records import Registry

    registry, now = Registry(), time.time()
    found = remote.current(registry, registry.get(run, now=now), say)
    if unit is not None:
        from daskml_scale.runs.why import drawn, of_run

        told = of_run(found, unit)
        print_result([one.to_dict() for one in told], as_json, lambda: drawn(told))
        return Exit.OK
    if found.state == "lost":
        from daskml_scale.runs.recount import recounted

        found = recounted(found)
    print_result(found.to_dict(), as_json, lambda: show.status(found, now, os.getcwd()))
    return Exit.OK


@click.command("top")
@run_argument(required=False)
@options("json")
def top_verb(run: str | None, as_json: bool) -> int:
    """Watch a run on the terminal until it has ended: stages, units left, scaling, warnings.

    The newest run, or the one whose id begins with RUN. It exits as the run did. Ctrl-C ends the watching,
    not the run. With --json the run as one document, once.

    \b
    Examples:
      daskml-scale top
      daskml-scale top flights-20260829-04d2
    """
    import sys

    from daskml_scale.runs import control, remote, top
    from daskml_scale.runs.records import Registry

    registry = Registry()
    found = remote.current(registry, registry.get(run, now=time.time()), say)
    if as_json:
        print_result(found.to_dict(), True, lambda: "")
        return Exit.OK
    try:
        with remote.news(registry, found, say) as sleep:
            found = top.follow(registry, found.id, sys.stdout, sleep=sleep)
    except KeyboardInterrupt:
        say(f"run {found.id} goes on; see: daskml-scale top {found.id}")
        return Exit.INTERRUPTED
    return control.exit_code(found)


@click.command("list")
@click.option(
    "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="At most so many, newest first."
)
@options("label", "json")
@click.option("--owner", metavar="NAME", help="Only runs of this user.")
def list_verb(limit: int, labels: tuple[str, ...], owner: str | None, as_json: bool) -> int:
    """List the runs in the registry, newest first.

    \b
    Examples:
      daskml-scale list
      daskml-scale list --label team=weather --limit 100 --json
    """
    from daskml_scale.runs import remote, show
    from daskml_scale.runs.records import Registry
    from daskml_scale.runs.words import labelled

    registry, now = Registry(), time.time()
    runs = registry.list(now=now, limit=limit, labels=labelled(labels), owner=owner)
    runs = [remote.current(registry, one, say) for one in runs]
    print_result([run.to_dict() for run in runs], as_json, lambda: show.runs(runs, now, os.getcwd()))
    return Exit.OK


@click.command("wait")
@run_argument(required=False)
@options("json")
def wait_verb(run: str | None, as_json: bool) -> int:
    """Wait until a run has ended, and exit as it did.

    The newest run, or the one whose id begins with RUN. Ctrl-C ends the waiting, not the run. Exit code 5
    when the run's process is gone.

    \b
    Example:
      id=$(daskml-scale submit flights) && daskml-scale wait $id
    """
    from daskml_scale.runs.records import Registry

    registry = Registry()
    return awaited(registry, registry.get(run, now=time.time()).id, as_json)


def awaited(registry: Registry, run: str, as_json: bool, *, quiet: bool = False) -> int:
    """Wait until a run has ended, tell how, and return its exit code."""
    from daskml_scale.runs import control, remote, show

    try:
        with remote.news(registry, registry.get(run, now=time.time()), say) as sleep:
            found = control.finished(registry, run, sleep=sleep)
    except KeyboardInterrupt:
        say(f"run {run} goes on; see: daskml-scale status {run}")
        return Exit.INTERRUPTED
    line = f"run {found.id} is {found.state}" + (f": {found.message}" if found.message else "")
    if quiet:
        say(line)
    else:
        print_result(found.to_dict(), as_json, lambda: show.text(line))
    return control.exit_code(found)


def followed(registry: Registry, run: str, tell: Callable[[str], None]) -> bool:
    """Tell the lines of a run's log until it has ended; False when Ctrl-C ended that."""
    from daskml_scale.runs import control, remote

    found = registry.get(run, now=time.time())
    try:
        with remote.news(registry, found, say) as sleep:
            for line in control.lines(registry, found, follow=True, sleep=sleep):
                tell(line)
    except KeyboardInterrupt:
        say(f"run {run} goes on; see: daskml-scale status {run}")
        return False
    return True


@click.command("cancel")
@run_argument()
@options("json")
def cancel_verb(run: str, as_json: bool) -> int:
    """Stop a run that waits or runs; what it committed stays.

    It closes its cluster; after half a minute it is ended. The same command goes on from there, as does:
    daskml-scale resume RUN.

    \b
    Example:
      daskml-scale cancel flights-20260829-04d2
    """
    from daskml_scale.runs import control, remote, show
    from daskml_scale.runs.records import Registry

    registry = Registry()
    found = registry.get(run, now=time.time())
    if remote.is_elsewhere(found):
        found = remote.cancel(registry, found, say)
    else:
        found = control.cancel(registry, run)
    print_result(found.to_dict(), as_json, lambda: show.text(f"run {found.id} is {found.state}; committed work stays"))
    return Exit.OK


@click.command("logs")
@run_argument(required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until the run has ended.")
@click.option("--unit", metavar="UNIT", help="What is kept of this unit, with the traceback if it failed.")
@click.option(
    "--worker", metavar="NAME", help="What this worker on another host wrote; a pattern such as 'cpu-*' for several."
)
def logs_verb(run: str | None, follow: bool, unit: str | None, worker: str | None) -> int:
    """Print what a submitted run and the workers on its machine wrote, or the events of another as JSON lines.

    The newest run, or the one whose id begins with RUN. UNIT is a key as ledger show lists them, or STAGE:KEY.
    Workers on other hosts, and those of a cluster that clusters up started, have logs of their own: see --worker.

    \b
    Examples:
      daskml-scale logs -f
      daskml-scale logs --unit predictions:rows/00000003
      daskml-scale logs -f --worker 'cpu-*'
      daskml-scale logs flights-20260829-04d2 | grep warning
    """
    from daskml_scale.runs import control, remote, worker_logs
    from daskml_scale.runs.records import Registry

    if unit is not None and worker is not None:
        raise click.UsageError("--unit and --worker: give one of them")
    registry = Registry()
    found = remote.current(registry, registry.get(run, now=time.time()), say)
    lines: Iterator[str] = iter(())
    if unit is not None:
        from daskml_scale.runs.ledgers import said_by

        lines = iter(said_by(found.store, unit))
    try:
        with remote.news(registry, found, say) as sleep:
            if worker is not None:
                lines = worker_logs.lines(registry, found, worker, follow=follow, sleep=sleep)
            elif unit is None:
                lines = control.lines(registry, found, follow=follow, sleep=sleep)
            for line in lines:
                put(line)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    if unit is worker is None and (workers := worker_logs.files(worker_logs.places(registry.path.parent, found.id))):
        say(f"Its workers wrote:   daskml-scale logs {found.id} --worker NAME   ({', '.join(workers)})")
    return Exit.OK
