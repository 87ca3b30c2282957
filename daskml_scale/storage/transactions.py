"""All or nothing, where the store can: what is written within a transaction is seen at once, or never.

In an Icechunk repository a transaction is one commit. Everywhere else the order of writes does the same work (data,
then its ledger record), and a transaction is just the block that it surrounds.

A *wave* is the group of finished units that is committed together: the driver opens a pass, units write into forks
of the repository, and for every group the forks are merged and committed with the ledger records of their units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from daskml_scale.errors import UsageError
from daskml_scale.plan.units import Outcome, Unit

from .lock import hold
from .noticing import Noticed, WithNoticed, noticing
from .open_arrays import new_pass, pinned
from .urls import is_icechunk


@contextmanager
def transaction(url: str, message: str, **about: Any) -> Iterator[None]:
    """Commit at the end of the block what is written into the store of ``url`` within it; nothing after an error.

    Parameters
    ----------
    url : str
        Of the store, or of anything in it.
    message : str
        Of the commit.
    **about
        Small JSON values kept with the commit: ``run``, ``stage``, counts.

    Raises
    ------
    ConflictError
        When somebody else committed meanwhile.
    """
    if not is_icechunk(url):
        yield
        return
    from . import repositories

    with repositories.transaction(url, message, about):
        yield


@dataclass(frozen=True)
class InPass:
    """A kernel as it runs on a worker within a pass: metadata is trusted, writes go into a fork.

    Attributes
    ----------
    kernel : callable
    token : str
        Of the pass.
    fork : bytes
        Pickled fork of an Icechunk repository; empty for other stores.
    root : str
        URL of that repository.
    notice : bool
        Identify what is read, see `noticing`.
    """

    kernel: Callable[[Unit, Any], Any]
    token: str
    fork: bytes = b""
    root: str = ""
    notice: bool = False

    def __call__(self, unit: Unit, worker: Any) -> Any:
        if not self.notice:
            return self._called(unit, worker)
        with noticing() as found:
            return WithNoticed.of(self._called(unit, worker), found)

    def _called(self, unit: Unit, worker: Any) -> Any:
        with pinned(self.token):
            if not self.fork:
                return self.kernel(unit, worker)
            from . import repositories

            with repositories.forked(self.root, self.fork) as changes:
                value = self.kernel(unit, replace(worker, overlap=None))  # all of it belongs to this fork
                return Forked(value, changes())


@dataclass(frozen=True)
class Forked:
    """What a kernel returned, and what it wrote into its fork."""

    value: Any
    changes: bytes


class Pass:
    """One pass of a stage over a store, on the driver.

    Parameters
    ----------
    url : str
        Dataset that the units write, or would write.
    noticed : dict, optional
        Receives the identities of what the units read.
    **about
        Small JSON values kept with every commit.
    """

    def __init__(self, url: str, noticed: Noticed | None = None, **about: Any) -> None:
        self.url, self.noticed, self.about, self.token = url, noticed, about, new_pass()

    def kernel(self, kernel: Callable[[Unit, Any], Any]) -> InPass:
        """Return the kernel as it is to be sent to workers."""
        notice = self.noticed is not None
        if not is_icechunk(self.url):
            return InPass(kernel, self.token, notice=notice)
        from . import repositories

        root = repositories.root_of(self.url)
        return InPass(kernel, self.token, repositories.fork(root), root, notice)

    @contextmanager
    def commit(self, outcomes: Sequence[Outcome]) -> Iterator[Sequence[Outcome]]:
        """Commit a group: its data with all that the block writes (ledger, quarantine); give the plain outcomes.

        Where nothing was forked these are the given ones, and the order of writes is all there is to it.
        """
        if self.noticed is not None:
            outcomes = [self._without_noticed(outcome) for outcome in outcomes]
        if not is_icechunk(self.url):
            yield outcomes
            return
        from . import repositories

        changes, plain = [], []
        for outcome in outcomes:
            if isinstance(outcome.value, Forked):
                changes.append(outcome.value.changes)
                outcome = replace(outcome, value=outcome.value.value)
            plain.append(outcome)
        with transaction(self.url, f"{len(plain)} units", **self.about, kind=repositories.WAVE, units=len(plain)):
            repositories.merge(self.url, changes)
            yield plain

    def _without_noticed(self, outcome: Outcome) -> Outcome:
        """Take what a unit noticed out of its outcome."""
        if not isinstance(outcome.value, WithNoticed):
            return outcome
        assert self.noticed is not None
        self.noticed.update(outcome.value.noticed)
        return replace(outcome, value=outcome.value.value)


def runs(store: str) -> list[tuple[str, float]]:
    """Return the runs that a repository knows, newest first, each with the time of its last commit (seconds).

    Raises
    ------
    UsageError
        When the store is no Icechunk repository.
    """
    _needs_icechunk(store)
    from .history import commits

    found: dict[str, float] = {}
    for commit in commits(store):
        if commit.about.get("run"):
            found.setdefault(commit.about["run"], commit.at)
    return list(found.items())


def rollback(store: str, run: str) -> None:
    """Bring a store back to the end of an earlier run: data, ledgers, models and small files, in one step.

    Later commits are no longer reached; Icechunk keeps them until its garbage is collected.

    Raises
    ------
    UsageError
        When the store is no Icechunk repository, or knows no such run.
    ConflictError
        When a run holds the store.
    """
    _needs_icechunk(store)
    from .history import last_of, reset

    with hold(store, f"rollback to {run}"):
        reset(store, last_of(store, run))


def _needs_icechunk(store: str) -> None:
    if not is_icechunk(store):
        raise UsageError(f"{store}: only Icechunk repositories can be rolled back; write into icechunk+file://FOLDER")
