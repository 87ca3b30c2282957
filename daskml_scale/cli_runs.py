"""The verbs ``wait``, ``logs`` and ``cancel``: what may be done with a run of another process."""

from __future__ import annotations

import time

import click

from daskml_scale.cli_end import print_result, put, say
from daskml_scale.errors import Exit


@click.command("wait")
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def wait_verb(run: str | None, as_json: bool) -> int:
    """Wait until a run has ended, and exit as it did.

    The newest run, or the one whose id begins with RUN. Ctrl-C ends the waiting, not the run. Exit code 5
    when the run's process is gone.

    \b
    Example:
      id=$(daskml-scale submit flights) && daskml-scale wait $id
    """
    from daskml_scale.runs import control, show
    from daskml_scale.runs.records import Registry

    registry = Registry()
    found = registry.get(run, now=time.time())
    try:
        found = control.finished(registry, found.id)
    except KeyboardInterrupt:
        say(f"run {found.id} goes on; see: daskml-scale status {found.id}")
        return Exit.INTERRUPTED
    line = f"run {found.id} is {found.state}" + (f": {found.message}" if found.message else "")
    print_result(found.to_dict(), as_json, lambda: show.text(line))
    return control.exit_code(found)


@click.command("cancel")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def cancel_verb(run: str, as_json: bool) -> int:
    """Stop a run that waits or runs; what it committed stays.

    It closes its cluster; after half a minute it is ended. The same command goes on from there, as does:
    daskml-scale resume RUN.
    """
    from daskml_scale.runs import control, show
    from daskml_scale.runs.records import Registry

    found = control.cancel(Registry(), run)
    print_result(found.to_dict(), as_json, lambda: show.text(f"run {found.id} is {found.state}; committed work stays"))
    return Exit.OK


@click.command("logs")
@click.argument("run", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until the run has ended.")
def logs_verb(run: str | None, follow: bool) -> int:
    """Print what a submitted run wrote, or the events of another as JSON lines.

    The newest run, or the one whose id begins with RUN.
    """
    from daskml_scale.runs import control
    from daskml_scale.runs.records import Registry

    registry = Registry()
    try:
        for line in control.lines(registry, registry.get(run, now=time.time()), follow=follow):
            put(line)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    return Exit.OK
