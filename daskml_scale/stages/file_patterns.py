"""Files that match a pattern, each with the digest of its content: on this machine, in a bucket, in memory."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from daskml_scale.plan.units import FileId
from daskml_scale.storage import files

_THREADS = 8
"""Files that are hashed, or looked at, at a time."""


@dataclass(frozen=True, slots=True)
class Source(FileId):
    """A file that is read: its identity, and what tells whether it changed since it was looked at.

    Attributes
    ----------
    stamp : int
        Modification time, ns; or a hash of the ETag.
    """

    stamp: int = 0


def matching(pattern: str, known: dict[str, tuple[int, int, str]] | None = None) -> dict[str, FileId]:
    """Return the files that match a pattern, by their path below its fixed part, sorted.

    Parameters
    ----------
    pattern : str
        ``*`` and ``?`` match within a name, ``**`` any folders. A URL of a bucket is one, too.
    known : dict, optional
        As in `files.file_id`: what need not be hashed again.

    Raises
    ------
    StoreError
        When a file cannot be read.
    """
    return {name: FileId(one.url, one.digest, one.size) for name, one in sources(pattern, known).items()}


def sources(
    pattern: str, known: dict[str, tuple[int, int, str]] | None = None, *, quick: bool = False, large: int = 0
) -> Mapping[str, Source]:
    """Return the files that match a pattern, or the one that it names, by their path below its fixed part, sorted.

    Parameters
    ----------
    quick : bool
        Trust size and stamp, without hashing any file.
    large : int
        Files of this machine with more bytes are left without a digest where it is not known: a worker hashes them.

    Raises
    ------
    StoreError
        When a file cannot be read.
    """
    root = fixed_part(pattern)
    found = _paths(pattern, root)

    def identified(url: str) -> Source | None:
        seen = files.stat(url)
        if seen is None:
            return None  # it vanished since it was listed
        if quick and seen[1]:
            return Source(url, f"{seen[0]}-{seen[1]}", *seen)
        if 0 < large < seen[0] and files.is_local(url) and (known or {}).get(url, ())[:2] != seen:
            return Source(url, "", *seen)
        one = files.file_id(url, known)
        return Source(one.url, one.digest, one.size, seen[1])

    with ThreadPoolExecutor(_THREADS) as pool:
        each = list(pool.map(identified, found))
    names = [os.path.relpath(url, root) if files.is_local(url) else url[len(root) + 1 :] for url in found]
    return {name: one for name, one in zip(names, each, strict=True) if one is not None}


def first_of(pattern: str) -> Source | None:
    """Return the first file that matches a pattern, without hashing it; ``None`` when none does."""
    for url in _paths(pattern, fixed_part(pattern)):
        seen = files.stat(url)
        if seen is not None:
            return Source(url, f"{seen[0]}-{seen[1]}", seen[0], seen[1])
    return None


def is_pattern(text: str) -> bool:
    """Return whether a path or URL has wildcards; a local file of this very name is none."""
    return glob.has_magic(text) and not (files.is_local(text) and os.path.isfile(text))


def _paths(pattern: str, root: str) -> list[str]:
    if not is_pattern(pattern):
        return [pattern] if files.stat(pattern) is not None else []
    if files.is_local(pattern):
        path = str(files.local_path(pattern))
        return sorted(found for found in glob.glob(path, recursive=True) if os.path.isfile(found))
    rest = re.compile(_regular(pattern[len(root) + 1 :]))
    return [f"{root}/{key}" for key in sorted(files.below(root)) if rest.fullmatch(key)]


def _regular(pattern: str) -> str:
    """Return a pattern as a regular expression; ``**/`` matches any folders, also none."""
    words = {"*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*|\?|\[[^]]+\])", pattern)
    known = {"**/": "(?:.*/)?", **words}
    return "".join(
        known.get(part, part.replace("[!", "[^") if part.startswith("[") and part.endswith("]") else re.escape(part))
        for part in parts
    )


def fixed_part(pattern: str) -> str:
    """Return the folder of a pattern above its first wildcard."""
    if not is_pattern(pattern):
        return pattern.rpartition("/")[0] or os.sep
    parts = pattern.split("/")
    fixed = next((place for place, part in enumerate(parts[:-1]) if glob.has_magic(part)), len(parts) - 1)
    return "/".join(parts[:fixed]) or os.sep
