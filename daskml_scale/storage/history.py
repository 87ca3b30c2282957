"""The commits of an Icechunk repository: which objects each changed, and the way back to an earlier run.

Identities come from here without reading data. A unit's record bears the commit that its objects were written upon;
commits of units after it are the ledger's own, so only what other commits changed since needs a look. An object
that no ledger knows is identified by the last commit that changed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from daskml_scale.errors import UsageError

from .backend import ABSENT, Known, hash_bytes
from .repositories import BRANCH, DATA, explained, repository, root_of, stamp_of
from .urls import resolve


@dataclass(frozen=True)
class Commit:
    """One commit.

    Attributes
    ----------
    id, parent : str
        Snapshot ids; the first commit has no parent.
    at : float
        Seconds since the epoch, by the clock of whoever committed.
    about : mapping
        What our commits carry: ``kind``, ``run``, ``stage``; empty for those of others.
    """

    id: str
    parent: str
    at: float
    message: str
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def strange(self) -> bool:
        """Whether it may have changed stored objects without a ledger record saying so."""
        return bool(self.about.get("kind", DATA) == DATA)


def commits(url: str) -> list[Commit]:
    """Return the commits of the repository that holds a URL, newest first."""
    root = root_of(url)
    if not root:
        return []
    with explained(root, "read"):
        return [
            Commit(
                info.id, info.parent_id or "", info.written_at.timestamp(), info.message,
                (info.metadata or {}).get("daskml_scale", {}),
            )
            for info in repository(root).ancestry(branch=BRANCH)
        ]  # fmt: skip


@dataclass(frozen=True)
class _Changes:
    """What one commit changed in a dataset.

    Attributes
    ----------
    arrays : set of str
        Names of arrays that were made, moved or removed: all their objects changed.
    objects : mapping of array name to a set of grid positions
    """

    arrays: set[str]
    objects: dict[str, set[tuple[int, ...]]]

    def hold(self, key: str, *, written: bool = False) -> bool:
        """Return whether an object (``late/c/3/0``) changed; ``written`` asks for objects themselves only."""
        name, _, place = key.rpartition("/c")
        if name in self.arrays and not written:
            return True
        return tuple(map(int, filter(None, place.split("/")))) in self.objects.get(name, ())


class _History:
    """The commits of a dataset's repository, newest first, and what each changed there; each is asked for once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.commits = commits(url)
        self.places = {stamp_of(commit.id): number for number, commit in enumerate(self.commits)}
        self.strange = [number for number, commit in enumerate(self.commits) if commit.strange and commit.parent]
        self._changes: dict[int, _Changes] = {}

    def changes(self, number: int) -> _Changes:
        if number not in self._changes:
            self._changes[number] = self._compared(self.commits[number])
        return self._changes[number]

    def _compared(self, commit: Commit) -> _Changes:
        root = root_of(self.url)
        prefix = f"{self.url[len(root) :]}/"
        with explained(root, "compare"):
            found = repository(root).diff(from_snapshot_id=commit.parent, to_snapshot_id=commit.id)
        moved = [path for pair in found.moved_nodes for path in pair]
        whole = [*found.new_arrays, *found.deleted_arrays, *moved]
        objects = {
            path[len(prefix) :]: {tuple(place) for place in places}
            for path, places in found.updated_chunks.items()
            if path.startswith(prefix)
        }
        return _Changes({path[len(prefix) :] for path in whole if path.startswith(prefix)}, objects)

    def altered(self, key: str, known: Known) -> int | None:
        """Return the newest commit that changed an object behind its ledger's back, ``None`` when there is none.

        A record of an object that is not stored bears no commit: any that wrote it counts.
        """
        absent = known[0] == ABSENT
        since = len(self.commits) if absent else self.places.get(known[2], len(self.commits))
        for number in self.strange:
            if number < since and self.changes(number).hold(key, written=absent):
                return number
        return None


def intact(url: str, read: Callable[[str], bytes | None]) -> Callable[[str, Known], bool]:
    """Return a function that tells whether an object still is what a ledger says; see ``Backend.intact``."""
    histories: dict[str, _History] = {}

    def same(key: str, known: Known) -> bool:
        place, own = resolve(url, key)
        if place not in histories:
            histories[place] = _History(place)
        history = histories[place]
        if known[2] in history.places and history.altered(own, known) is None:
            return True
        data = read(key)
        return (ABSENT if data is None else hash_bytes(data)) == known[0]

    return same


def ids(url: str, keys: Iterable[str], known: Mapping[str, Known]) -> dict[str, Known]:
    """Return (identity, 0, stamp of the newest commit) of objects; see ``Backend.ids``.

    A known one that no commit changed since keeps its identity; for others the last commit that changed it
    stands for its content.
    """
    history = _History(url)
    now = stamp_of(history.commits[0].id) if history.commits else 0
    found: dict[str, Known] = {}
    left = []
    for key in keys:
        before = known.get(key)
        number = None if before is None else history.altered(key, before)
        if before is None:
            left.append(key)
        else:
            found[key] = before if number is None else (_named(history.commits[number]), 0, now)
    for number, commit in enumerate(history.commits):
        if not left or not commit.parent:
            break
        what = history.changes(number)
        found.update((key, (_named(commit), 0, now)) for key in left if what.hold(key))
        left = [key for key in left if key not in found]
    return {**found, **dict.fromkeys(left, (ABSENT, 0, now))}


def _named(commit: Commit) -> str:
    return hash_bytes(f"icechunk {commit.id}".encode())


def last_of(url: str, run: str) -> Commit:
    """Return the last commit of a run.

    Raises
    ------
    UsageError
        When the repository knows no such run: names those that it knows.
    """
    listed = commits(url)
    last, follows = None, False
    for commit in reversed(listed):
        # Small files without a run (its summary) belong to the run before them.
        follows = commit.about.get("run") == run or (follows and "run" not in commit.about and not commit.strange)
        last = commit if follows else last
    if last is not None:
        return last
    runs = list(dict.fromkeys(commit.about["run"] for commit in listed if commit.about.get("run")))
    raise UsageError(f"{url} has no commit of run {run!r}; its runs, newest first: {', '.join(runs) or 'none'}")


def reset(url: str, commit: Commit) -> None:
    """Make a commit the newest one; later ones are no longer reached, and stay until garbage is collected."""
    root = root_of(url)
    with explained(root, "roll back"):
        tip = repository(root).lookup_branch(BRANCH)
        repository(root).reset_branch(BRANCH, commit.id, from_snapshot_id=tip)
