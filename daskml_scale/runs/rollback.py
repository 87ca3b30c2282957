"""The runs that an Icechunk store knows, and the way back to the end of one of them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from rich.text import Text

from daskml_scale.storage import files
from daskml_scale.storage.transactions import rollback, runs

from .show import columns, moment


def runs_of(store: str) -> list[tuple[str, float]]:
    """Return (run, time of its last commit) of an Icechunk store, newest first.

    Raises
    ------
    UsageError
        When the store is no Icechunk repository.
    """
    return list(runs(files.normal(store)))


def rolled_back(store: str, run: str) -> list[str]:
    """Bring a store back to the end of a run; return the later runs that are left behind, newest first.

    Parameters
    ----------
    run : str
        Its id, or the beginning of it.

    Raises
    ------
    UsageError
        When the store is no Icechunk repository, or does not know the run.
    ConflictError
        When a run holds the store.
    """
    url = files.normal(store)
    known = [name for name, _ in runs(url)]
    chosen = run if run in known else next((name for name in known if name.startswith(run)), run)
    rollback(url, chosen)
    return known[: known.index(chosen)]


def table(known: Iterable[tuple[str, float]]) -> RenderableType:
    """Return the table of the runs of a store."""
    return columns(("run", "committed"), [(name, moment(at)) for name, at in known])


def said(store: str, run: str, left: Iterable[str]) -> RenderableType:
    """Return what a rollback did, in a sentence."""
    gone = ", ".join(left)
    behind = f"left behind: {gone}" if gone else "nothing came after it"
    return Text(f"{store} is as run {run} left it; {behind}.")
