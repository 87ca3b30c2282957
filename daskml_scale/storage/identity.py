"""What lies in a dataset without its data: schema, and an identity of every stored object.

Whether an object is the one that a unit wrote is told by its size and stamp (the mtime of a file, the ETag in a
bucket), and where these differ by its bytes; in Icechunk by the commits since. Presence tells nothing: an
object that holds only fill values is not stored at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, overload

from daskml_scale.errors import StoreError
from daskml_scale.plan.grids import sizes_of
from daskml_scale.plan.objects import extents, object_identity
from daskml_scale.plan.records import Record, digest
from daskml_scale.plan.table import stored_objects
from daskml_scale.plan.units import Snapshot, Variable

from . import arrays, files
from .backend import ABSENT, Known, Stat, hash_bytes
from .urls import join, resolve

CHANGED = "changed"
"""In place of the digest of an object that is not as it was when the plan looked."""
MARK = "daskml_scale"
"""Dataset attribute that says the dataset is ours to change."""


def exists(url: str) -> bool:
    """Return whether a Zarr group lies at the URL."""
    return files.backend(url).read_object(url, "zarr.json") is not None


def object_id(url: str, key: str) -> Known:
    """Return (digest of the encoded bytes, size, stamp) of a stored object; ``-`` when it is not stored."""
    backend = files.backend(url)
    data = backend.read_object(url, key)
    if data is None:
        return ABSENT, 0, 0
    return hash_bytes(data), *(backend.stats(url)(key) or (len(data), 0))


def looks(url: str, keys: Sequence[str]) -> Iterator[Stat | None]:
    """Yield size and stamp of stored objects, ``None`` for those that are not stored; a bucket is listed once."""
    stats = files.backend(url).stats(url)
    return map(stats, keys)


def checker(url: str) -> Callable[[str, Known], bool]:
    """Return a function (key, known) that tells whether a stored object still is what the ledger says."""
    return files.backend(url).intact(url)


def unchanged(url: str, key: str, known: Known) -> bool:
    """Return whether a stored object still is what the ledger says: size and stamp are trusted, else its bytes."""
    return checker(url)(key, known)


def snapshot(
    url: str,
    records: Mapping[str, Record] | None = None,
    known: dict[str, tuple[int, int, str]] | None = None,
    *,
    lazy: bool = False,
) -> Snapshot | None:
    """Return schema and object ids of a dataset, or ``None`` when there is none.

    Parameters
    ----------
    url : str
    records : mapping of unit to Record, optional
        The ledger of the stage that wrote it: objects of unchanged size and stamp take their digest
        from there, others are hashed, or known by their ETag.
    known : dict of URL to (size, stamp, identity), optional
        What an earlier look found at objects that no ledger knows; updated.
    lazy : bool
        Look at the objects of a local dataset only when their ids are asked for, see `Identities`.

    Raises
    ------
    StoreError
        When it holds no arrays, or a newer version wrote it.
    PlanError
        When two of its variables disagree about the size of a dimension.
    """
    if not exists(url):
        return None
    group = arrays.open_group(url)
    attrs = dict(group.attrs)
    mark = attrs.pop(MARK, None)
    with arrays.readable(url):
        variables = {name: arrays.variable_of(array) for name, array in sorted(group.arrays())}
    if not variables:
        raise StoreError(f"{url} holds no arrays")
    sizes_of(variables, f"{url}: ")
    dim = attrs.get("row_dim") or max(variables.values(), key=lambda v: len(v.dims)).dims[0]
    complete = mark is None or bool(mark.get("layout"))
    wanted = {name: variable for name, variable in variables.items() if complete and variable.dims}
    written = dict(stored_objects(records or {}))
    ids: Mapping[str, tuple[str, ...]]
    if lazy and files.is_local(url):
        ids = Identities(url, wanted, written, known)
    else:
        ids = _ids(url, wanted, written, known)
    rows = next((v.shape[0] for v in variables.values() if v.dims[:1] == (dim,)), 0)
    return Snapshot(url, dim, rows, variables, attrs, ids)


class Identities(Mapping[str, tuple[str, ...]]):
    """Ids of the stored objects of each variable, found out when they are asked for: by a plan, at once.

    Of a dataset that no ledger knows every object must be hashed: a stage that reads two of fifty variables hashes
    those. It pickles as a plain dictionary of what was asked for.
    """

    def __init__(
        self,
        url: str,
        variables: Mapping[str, Variable],
        written: dict[str, Known],
        known: dict[str, tuple[int, int, str]] | None,
    ) -> None:
        self._url, self._variables, self._written, self._known = url, variables, written, known
        self._found: dict[str, tuple[str, ...]] = {}
        self._later: dict[str, Sequence[str]] = {}

    def __getitem__(self, name: str) -> tuple[str, ...]:
        if name not in self._found:
            one = {name: self._variables[name]}
            self._found |= _ids(self._url, one, self._written, self._known)
        return self._found[name]

    def later(self, name: str) -> Sequence[str]:
        """Return the same ids; of objects that nothing is known of, only when they are asked for."""
        if name in self._found or self._known is None:
            return self[name]
        if name not in self._later:
            found = Later.of(self._url, name, self._variables[name], self._written, self._known)
            if isinstance(found, tuple):
                self._found[name] = found
                return found
            self._later[name] = found
        return self._later[name]

    def __contains__(self, name: object) -> bool:
        return name in self._variables

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return dict, (dict(self._found),)

    def __dask_tokenize__(self) -> dict[str, tuple[str, ...]]:
        return dict(self)


class Later(Sequence[str]):
    """Ids of the stored objects of a variable that are found out one by one, when they are asked for.

    A unit that reads an object anyway hashes it (see `noticing`), and ``known`` then says what it is. Size and stamp
    must be those of the time of the plan: of an object that changed since nobody can say what the unit read.
    """

    @classmethod
    def of(
        cls,
        url: str,
        name: str,
        variable: Variable,
        written: Mapping[str, Known],
        known: dict[str, tuple[int, int, str]],
    ) -> Sequence[str]:
        """Look at the objects; a tuple of ids where all are known."""
        keys = keys_of(name, variable)
        looked = list(looks(url, keys))
        before = (written.get(key) or _remembered(known, url, key) for key in keys)
        stored = [
            ABSENT if seen is None else one[0] if one is not None and one[1:] == seen and seen[1] else None
            for seen, one in zip(looked, before, strict=True)
        ]
        if None in stored:
            return cls(url, keys, looked, variable, known)
        return tuple(map(object_identity, repeat(_meaning(variable)), extents(variable), map(str, stored)))

    def __init__(
        self,
        url: str,
        keys: list[str],
        looked: list[Stat | None],
        variable: Variable,
        known: dict[str, tuple[int, int, str]],
    ) -> None:
        self._url, self._keys, self._looked, self._known = url, keys, looked, known
        self._meaning, self._extents = _meaning(variable), list(extents(variable))
        self._found: dict[int, str] = {}

    def _find(self, places: range) -> list[str]:
        unknown = [place for place in places if place not in self._found]
        if unknown:
            keys = [self._keys[place] for place in unknown]
            before = {key: one for key in keys if (one := _remembered(self._known, self._url, key)) is not None}
            now = files.ids(self._url, keys, before)
            self._known.update((join(self._url, key), (*one[1:], one[0])) for key, one in now.items() if one[2])
            for place, key in zip(unknown, keys, strict=True):
                stored = now[key][0] if now[key][1:] == (self._looked[place] or (0, 0)) else CHANGED
                self._found[place] = object_identity(self._meaning, self._extents[place], stored)
        return [self._found[place] for place in places]

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...
    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        if isinstance(place, slice):
            return tuple(self._find(range(len(self._keys))[place]))
        return self._find(range(place, place + 1))[0]

    def __len__(self) -> int:
        return len(self._keys)


def _remembered(known: Mapping[str, tuple[int, int, str]], url: str, key: str) -> Known | None:
    found = known.get(join(url, key))
    return None if found is None else (found[2], *found[:2])


def _meaning(variable: Variable) -> str:
    return digest(variable.dtype, dict(variable.attrs), str(variable.fill))


def _ids(
    url: str,
    variables: Mapping[str, Variable],
    written: dict[str, Known],
    known: dict[str, tuple[int, int, str]] | None,
) -> dict[str, tuple[str, ...]]:
    keys = {name: keys_of(name, variable) for name, variable in variables.items()}
    if known is not None:
        prefix = len(url) + 1
        earlier = {key[prefix:]: (seen[2], *seen[:2]) for key, seen in known.items() if key.startswith(f"{url}/")}
        written = earlier | written
    found = files.ids(url, [key for each in keys.values() for key in each], written)
    if known is not None:
        fresh = ((key, seen) for key, seen in found.items() if seen[2] and written.get(key) != seen)
        known.update((join(url, key), (*seen[1:], seen[0])) for key, seen in fresh)
    ids = {}
    for name, variable in variables.items():
        meaning = _meaning(variable)
        stored = [found[key][0] for key in keys[name]]
        ids[name] = tuple(map(object_identity, repeat(meaning), extents(variable), stored))
    return ids


def keys_of(name: str, variable: Variable) -> list[str]:
    """Return the keys of all stored objects of a variable, in C order of their grid."""
    counts = variable.objects
    if len(counts) == 1:
        return [f"{name}/c/{index}" for index in range(counts[0])]
    keys = [f"{name}/c"]
    for count in counts:
        keys = [f"{key}/{index}" for key in keys for index in range(count)]
    return keys


def place_of(url: str, key: str) -> str:
    """Return the URL of a stored object."""
    return join(*resolve(url, key))
