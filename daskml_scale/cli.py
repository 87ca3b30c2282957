"""The command line: verbs that join what the other rooms do. No logic: decisions and pictures are elsewhere.

Results and ``--json`` go to stdout, progress and errors to stderr; how a command ends is the matter of
`cli_end`. Everything heavy is imported inside the verb that needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

import click

from daskml_scale.cli_clusters import clusters, holder
from daskml_scale.cli_end import PROGRAM, ended, print_names, print_result, put, say
from daskml_scale.cli_features import features
from daskml_scale.cli_history import cost_verb, gc_verb, provenance_verb, report_verb
from daskml_scale.cli_ledger import ledger
from daskml_scale.cli_models import models
from daskml_scale.cli_options import options, workflow_argument
from daskml_scale.cli_quarantine import quarantine
from daskml_scale.cli_runs import cancel_verb, list_verb, logs_verb, status_verb, top_verb, wait_verb
from daskml_scale.cli_scaling import scaling
from daskml_scale.cli_work import job_runner, rerun_verb, resume_verb, run_verb, runner, submit_verb
from daskml_scale.errors import Exit


class _Verbs(click.Group):
    """Verbs in the order in which they are defined, which is that of use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 failed, 2 wrong arguments or file, 3 conflict, 4 done with bad rows, 5 lost, "
    "6 cancelled, 130 interrupted.",
)
def verbs() -> None:
    """Features, search and prediction as Dask task graphs over chunked data. Every run resumes.

    \b
    Examples:
      daskml-scale run flights              run a workflow and watch it
      daskml-scale run flights --dry-run    show what would run, and why
      daskml-scale submit flights           run it detached from this terminal
      daskml-scale status                   how far the newest run is
    """


for _verb in (
    run_verb, submit_verb, resume_verb, rerun_verb, status_verb, top_verb, list_verb, wait_verb, logs_verb, cancel_verb,
    report_verb, cost_verb, provenance_verb, gc_verb,
):  # fmt: skip
    verbs.add_command(_verb)


@verbs.command()
@workflow_argument("file")
@options("set", "json")
def validate(file: str, settings: tuple[str, ...], as_json: bool) -> int:
    """Check a workflow file without running anything.

    FILE may also be a name.

    \b
    Examples:
      daskml-scale validate my.yaml
      daskml-scale validate my.yaml --set stages.model.where='x > 3'
    """
    from daskml_scale import api
    from daskml_scale.runs import show
    from daskml_scale.runs.words import plural

    spec = api.check(file, settings=settings)
    data = {"file": file, "workflow": spec.name, "stages": list(spec.stages)}
    line = f"ok: {file}: workflow {spec.name}, {plural(len(spec.stages), 'stage')}"
    print_result(data, as_json, lambda: show.text(line))
    return Exit.OK


@verbs.group(invoke_without_command=True)
@options("json")
@click.pass_context
def workflows(context: click.Context, as_json: bool) -> int | None:
    """List the workflows that have a name; show one, to begin a file of your own with.

    They lie in ./workflows and in the package; any other file is given by its path.

    \b
    Examples:
      daskml-scale workflows
      daskml-scale workflows show flights > my-flights.yaml
    """
    from daskml_scale.spec.find import list_workflows

    if context.invoked_subcommand:
        return None
    print_names(list_workflows(), as_json)
    return Exit.OK


@workflows.command("show")
@workflow_argument()
def show_workflow(workflow: str) -> int:
    """Print the file of a workflow as it stands, comments too.

    What Python beside it the file names is told on stderr: a copy elsewhere needs these files, too.

    \b
    Example:
      daskml-scale workflows show flights > my-flights.yaml
    """
    from daskml_scale.spec.find import find_workflow
    from daskml_scale.spec.yaml_text import read_text

    path = find_workflow(workflow)
    text = read_text(path)
    put(text.rstrip("\n"))
    for beside in sorted(path.parent.glob("*.py")):
        if f"{beside.stem}:" in text:
            say(f"it names functions of {beside}; put a copy beside yours")
    return Exit.OK


verbs.add_command(clusters)


@verbs.command()
@click.argument("what", type=click.Choice(["workflow", "cluster"]), default="workflow")
def schema(what: str) -> int:
    """Print the JSON Schema of workflow files, or of cluster files.

    Editors complete and check with it. A file that fits it may still be refused by validate, which knows more.

    \b
    Examples:
      daskml-scale schema > workflow.schema.json
      daskml-scale schema cluster > cluster.schema.json
    """
    import json

    from daskml_scale.spec import schema as schemas

    put(json.dumps(schemas.cluster_schema() if what == "cluster" else schemas.workflow_schema(), indent=1))
    return Exit.OK


@verbs.command()
@options("json")
def version(as_json: bool) -> int:
    """Show versions: daskml-scale, Python, Dask and the like.

    \b
    Example:
      daskml-scale version --json
    """
    from importlib.metadata import version as of

    from daskml_scale.runs import show

    packages = ("daskml-scale", "dask", "distributed", "zarr", "xarray", "scikit-learn")
    found = {name: of(name) for name in packages} | {"python": sys.version.split()[0]}
    print_result(found, as_json, lambda: show.pairs(list(found.items())))
    return Exit.OK


verbs.add_command(holder)
verbs.add_command(ledger)
verbs.add_command(models)
verbs.add_command(features)
verbs.add_command(scaling)
verbs.add_command(quarantine)


verbs.add_command(runner)
verbs.add_command(job_runner)


@verbs.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print what makes a shell complete verbs, options, workflows and the ids of runs.

    \b
    Examples:
      daskml-scale completion bash >> ~/.bashrc
      daskml-scale completion zsh >> ~/.zshrc
      daskml-scale completion fish > ~/.config/fish/completions/daskml-scale.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # click has these three
    put(found(verbs, {}, PROGRAM, "_DASKML_SCALE_COMPLETE").source())
    return Exit.OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; the entry point of ``daskml-scale``.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after the program's name; ``sys.argv`` by default.
    """
    # Idle OpenMP threads must not spin: on busy cores that makes a small fit 20 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ✓ shows a ?
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return int(verbs.main(args=words, prog_name=PROGRAM, standalone_mode=False) or Exit.OK)
    except (Exception, KeyboardInterrupt) as error:
        return ended(error, "--json" in words)
