"""Files that match a pattern, each with the digest of its content. Local paths only: buckets are listed by prefix."""

from __future__ import annotations

import glob
import os

from daskml_scale.plan.units import FileId
from daskml_scale.storage import files


def matching(pattern: str, known: dict[str, tuple[int, int, str]] | None = None) -> dict[str, FileId]:
    """Return the files that match a pattern, by their path below its fixed part, sorted.

    Parameters
    ----------
    pattern : str
        ``*`` and ``?`` match within a name, ``**`` any folders.
    known : dict, optional
        As in `files.file_id`: what need not be hashed again.

    Raises
    ------
    StoreError
        When a file cannot be read.
    """
    root = fixed_part(pattern)
    found = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
    return {os.path.relpath(path, root): files.file_id(path, known) for path in sorted(found)}


def fixed_part(pattern: str) -> str:
    """Return the folder of a pattern above its first wildcard."""
    parts = pattern.split(os.sep)
    fixed = next((place for place, part in enumerate(parts[:-1]) if glob.has_magic(part)), len(parts) - 1)
    return os.sep.join(parts[:fixed]) or os.sep
