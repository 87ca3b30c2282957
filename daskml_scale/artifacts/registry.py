"""Models by name: numbered versions that never change, and aliases (champion, candidate) that move between them.

``<store>/registry/<name>/0002/`` is a bundle, ``<store>/registry/<name>/registry.json`` says what is known of
every version and where the aliases point. A version is known by its content: the same bundle is never
registered twice. The functions on :class:`Shelf` are pure; only :class:`Registry` reads and writes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from daskml_scale.errors import StoreError, UsageError
from daskml_scale.storage import files
from daskml_scale.storage.lock import hold

from .manifest import MANIFEST, model_file, read_manifest

FORMAT = 1
FILE, FOLDER = "registry.json", "registry"
CHAMPION, CANDIDATE = "champion", "candidate"
_REFERENCE = re.compile(r"(?P<folder>.+)@(?P<alias>[a-z][a-z0-9_-]*|[0-9]+)")


@dataclass(frozen=True)
class Version:
    """One version of a model.

    Attributes
    ----------
    number : int
        From 1.
    sha256 : str
        Of the model file.
    manifest : str
        SHA-256 of ``bundle.json``: recipe, schema and training too.
    estimator : str
        Full name of its class.
    training : str
        Fingerprint of what it was trained on; empty where nobody said.
    metrics : mapping of name to float
        As measured before it was registered.
    registered : float
        Seconds since 1970.
    note : str
        Why it is the champion, or why not.
    """

    number: int
    sha256: str
    manifest: str
    estimator: str
    training: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    registered: float = 0.0
    note: str = ""

    @property
    def folder(self) -> str:
        return f"{self.number:04d}"


@dataclass(frozen=True)
class Shelf:
    """All that is known of one name.

    Attributes
    ----------
    name : str
    versions : tuple of Version
        Oldest first.
    aliases : mapping of alias to version number
    past : tuple of (alias, number)
        Where aliases pointed before, oldest first.
    """

    name: str
    versions: tuple[Version, ...] = ()
    aliases: Mapping[str, int] = field(default_factory=dict)
    past: tuple[tuple[str, int], ...] = ()

    def find(self, manifest: str) -> Version | None:
        """Return the version of this content."""
        return next((version for version in self.versions if version.manifest == manifest), None)

    def get(self, which: str | int) -> Version:
        """Return the version of a number or alias.

        Raises
        ------
        UsageError
            When there is none: says what there is.
        """
        text = str(which)
        number = int(text) if text.isdigit() else self.aliases.get(text, 0)
        for version in self.versions:
            if version.number == number:
                return version
        have = ", ".join([*map(str, (v.number for v in self.versions)), *self.aliases]) or "none"
        raise UsageError(f"{self.name} has no version {text!r}; it has {have}")

    def added(self, version: Version) -> Shelf:
        """Return the shelf with one version more, which is the candidate."""
        number = max((v.number for v in self.versions), default=0) + 1
        return replace(self, versions=(*self.versions, replace(version, number=number))).pointed(CANDIDATE, number)

    def pointed(self, alias: str, number: int) -> Shelf:
        """Return the shelf with an alias moved; where it pointed is remembered."""
        self.get(number)
        before = self.aliases.get(alias)
        if before == number:
            return self
        past = self.past if before is None else (*self.past, (alias, before))
        return replace(self, aliases={**self.aliases, alias: number}, past=past)

    def back(self, alias: str) -> Shelf:
        """Return the shelf with an alias where it pointed before.

        Raises
        ------
        UsageError
            When it never pointed elsewhere.
        """
        earlier = [at for at, (name, _) in enumerate(self.past) if name == alias]
        if not earlier:
            raise UsageError(f"{self.name}: {alias} has pointed nowhere else; promote a version instead")
        at = earlier[-1]
        number = self.past[at][1]
        return replace(self, aliases={**self.aliases, alias: number}, past=(*self.past[:at], *self.past[at + 1 :]))

    def rival(self, sha256: str) -> Version | None:
        """Return the champion that a model with this hash is to beat; of the champion itself, the one before it."""
        numbers = [number for alias, number in self.past if alias == CHAMPION]
        if CHAMPION in self.aliases:
            numbers.append(self.aliases[CHAMPION])
        found = [self.get(number) for number in numbers]
        return next((version for version in reversed(found) if version.sha256 != sha256), None)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, found: Any, url: str) -> Shelf:
        """Read what :meth:`to_json` gave.

        Raises
        ------
        StoreError
            When it is something else.
        """
        try:
            if found["format"] != FORMAT:
                raise StoreError(
                    f"{url} has format {found['format']!r}, expected {FORMAT}; use the version that wrote it"
                )
            versions = tuple(Version(**version) for version in found["versions"])
            past = tuple((str(alias), int(number)) for alias, number in found["past"])
            return cls(str(found["name"]), versions, {str(k): int(v) for k, v in found["aliases"].items()}, past)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{url} is no registry of models ({error}); restore the file") from error


@dataclass(frozen=True)
class Registry:
    """The registered models of a store.

    Attributes
    ----------
    store : str
        URL of the store's root.
    """

    store: str

    @property
    def url(self) -> str:
        return files.join(self.store, FOLDER)

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return [name for name in sorted(files.names(self.url)) if files.stat(self.file(name)) is not None]

    def file(self, name: str) -> str:
        """Return the URL of what is known of a name."""
        return files.join(self.url, f"{name}/{FILE}")

    def shelf(self, name: str) -> Shelf:
        """Return what is known of a name; an empty shelf when nothing is."""
        found = files.read_json(self.file(name))
        return Shelf(name) if found is None else Shelf.from_json(found, self.file(name))

    def bundle(self, name: str, which: str | int) -> str:
        """Return the folder of a version, by number or alias."""
        return files.join(self.url, f"{name}/{self.shelf(name).get(which).folder}")

    def register(
        self,
        name: str,
        bundle: str,
        *,
        now: float,
        metrics: Mapping[str, float] | None = None,
        champion: bool = False,
        note: str = "",
    ) -> tuple[Shelf, Version]:
        """Copy a bundle into the registry as the next version: the candidate, and the champion if so decided.

        Content that is registered already stays as it is known; only files that are gone are written again.
        ``registry.json`` is written last: a registration that was cut short has not happened.
        """
        manifest = read_manifest(bundle)
        content = {part: _bytes(bundle, part) for part in (model_file(manifest), MANIFEST)}
        identity = _sha256(content[MANIFEST])
        shelf = self.shelf(name)
        found = shelf.find(identity)
        if found is not None and self._whole(name, found, content):
            return shelf, found
        version = found or Version(
            0, str(manifest["sha256"]), identity, str(manifest["estimator"]),
            str(manifest["training"].get("fingerprint", "")), dict(metrics or {}), now, note,
        )  # fmt: skip
        grown = shelf if found else shelf.added(version)
        version = found or grown.versions[-1]
        if champion and not found:
            grown = grown.pointed(CHAMPION, version.number)
        for part, data in content.items():
            files.write_bytes(files.join(self.url, f"{name}/{version.folder}/{part}"), data)
        self.write(grown)
        return grown, version

    def _whole(self, name: str, version: Version, content: Mapping[str, bytes]) -> bool:
        places = {part: files.join(self.url, f"{name}/{version.folder}/{part}") for part in content}
        return all(files.read_bytes(places[part]) == data for part, data in content.items())

    def write(self, shelf: Shelf) -> None:
        """Write what is known of a name."""
        files.write_json(self.file(shelf.name), shelf.to_json())

    def promote(self, name: str, which: str | int, alias: str = CHAMPION) -> Shelf:
        """Point an alias at a version.

        Raises
        ------
        UsageError
            When there is no such version.
        ConflictError
            When another process changes the registry.
        """
        with hold(self.url, f"promote {name}"):
            shelf = self._known(name)
            moved = shelf.pointed(alias, shelf.get(which).number)
            self.write(moved)
        return moved

    def rollback(self, name: str, alias: str = CHAMPION) -> Shelf:
        """Point an alias where it pointed before. See :meth:`promote`."""
        with hold(self.url, f"roll back {name}"):
            moved = self._known(name).back(alias)
            self.write(moved)
        return moved

    def _known(self, name: str) -> Shelf:
        shelf = self.shelf(name)
        if not shelf.versions:
            have = ", ".join(self.names()) or "none"
            raise UsageError(f"{self.store} has no registered model {name!r}; it has {have}")
        return shelf


def resolved(path: str) -> str:
    """Return the folder of a bundle from ``STORE/registry/NAME@champion``, ``...@3``, or the folder itself."""
    match = _REFERENCE.fullmatch(path)
    if match is None:
        return path
    parts = match["folder"].rstrip("/").split("/")
    if len(parts) < 3 or parts[-2] != FOLDER:
        return path
    return Registry("/".join(parts[:-2])).bundle(parts[-1], match["alias"])


def _bytes(bundle: str, part: str) -> bytes:
    data = files.read_bytes(files.join(bundle, part))
    if data is None:
        raise StoreError(f"{files.join(bundle, part)} is missing; train or save the model again")
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
