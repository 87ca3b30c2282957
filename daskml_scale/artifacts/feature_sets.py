"""Feature sets by name: versions that say which matrix holds which features of which entity, known at which time.

``<store>/feature_sets/<name>.json`` lists the versions of a set. A version is a recipe and a meaning: more rows of
the same recipe are the same version, another recipe, entity or time is the next one. The matrix itself is not
copied. The functions on :class:`FeatureSet` are pure; only :class:`Catalogue` reads and writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from daskml_scale.errors import StoreError, UsageError
from daskml_scale.storage import files
from daskml_scale.storage.lock import hold

FORMAT = 1
FOLDER = "feature_sets"


@dataclass(frozen=True)
class FeatureVersion:
    """One version of a feature set.

    Attributes
    ----------
    number : int
        From 1.
    matrix : str
        URL of the feature matrix; relative to the store where it lies in it.
    entity : tuple of str
        Columns that name an entity.
    time : str
        Column that says when a row's features are known.
    features : tuple of str
    recipe : str
        Hash of the fitted recipe that makes them.
    within : str
        How old a row may be and still count; empty for any age.
    registered : float
        Seconds since 1970.
    """

    number: int
    matrix: str
    entity: tuple[str, ...]
    time: str
    features: tuple[str, ...]
    recipe: str
    within: str = ""
    registered: float = 0.0

    @property
    def meaning(self) -> tuple[Any, ...]:
        """What makes two versions the same."""
        return self.matrix, self.entity, self.time, self.features, self.recipe, self.within


@dataclass(frozen=True)
class FeatureSet:
    """All versions of one name, oldest first."""

    name: str
    versions: tuple[FeatureVersion, ...] = ()

    def get(self, number: int | None = None) -> FeatureVersion:
        """Return a version, the newest by default.

        Raises
        ------
        UsageError
            When there is none: says what there is.
        """
        for version in reversed(self.versions):
            if number is None or version.number == number:
                return version
        have = ", ".join(str(version.number) for version in self.versions) or "none"
        raise UsageError(f"feature set {self.name} has no version {number}; it has {have}")

    def added(self, version: FeatureVersion) -> FeatureSet:
        """Return the set with this as its newest version; the same one when nothing but its data changed."""
        if self.versions and self.versions[-1].meaning == version.meaning:
            return self
        number = max((known.number for known in self.versions), default=0) + 1
        return replace(self, versions=(*self.versions, replace(version, number=number)))

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, found: Any, url: str) -> FeatureSet:
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
            return cls(str(found["name"]), tuple(_version(version) for version in found["versions"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{url} is no feature set ({error}); restore the file") from error


def _version(found: Mapping[str, Any]) -> FeatureVersion:
    return FeatureVersion(**{**found, "entity": tuple(found["entity"]), "features": tuple(found["features"])})


@dataclass(frozen=True)
class Catalogue:
    """The feature sets of a store.

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
        return sorted(name.removesuffix(".json") for name in files.names(self.url) if name.endswith(".json"))

    def file(self, name: str) -> str:
        """Return the URL of what is known of a name."""
        return files.join(self.url, f"{name}.json")

    def get(self, name: str) -> FeatureSet:
        """Return a feature set.

        Raises
        ------
        UsageError
            When there is none of that name: says what there is.
        """
        found = files.read_json(self.file(name))
        if found is None:
            have = ", ".join(self.names()) or "none"
            raise UsageError(f"{self.store} has no feature set {name!r}; it has {have}")
        return FeatureSet.from_json(found, self.file(name))

    def register(self, name: str, version: FeatureVersion) -> FeatureVersion:
        """Make this the newest version of a name, and return it; one that is known already stays as it is."""
        with hold(self.url, f"register {name}"):
            found = files.read_json(self.file(name))
            before = FeatureSet(name) if found is None else FeatureSet.from_json(found, self.file(name))
            after = before.added(replace(version, matrix=self._relative(version.matrix)))
            if after is not before:
                files.write_json(self.file(name), after.to_json())
        return after.get()

    def _relative(self, url: str) -> str:
        return url.removeprefix(f"{self.store}/")

    def matrix(self, version: FeatureVersion) -> str:
        """Return the URL of a version's matrix."""
        absolute = "://" in version.matrix or version.matrix.startswith("/")
        return version.matrix if absolute else files.join(self.store, version.matrix)
