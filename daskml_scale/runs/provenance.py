"""Where a run's results come from: spec, settings, resolved spec, code, versions, seed, ids of its inputs.

Written beside the registry when a run is entered (``runs/<id>/provenance.json``); it holds the text of the
workflow, so a run that waits does what was submitted, whatever becomes of the file. `changes` says what is
different since, in words.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from daskml_scale.errors import StoreError
from daskml_scale.spec.workflow import Workflow
from daskml_scale.storage import files

NAME = "provenance.json"
PACKAGES = ("daskml-scale", "dask", "distributed", "zarr", "xarray", "numpy", "pandas", "scikit-learn")
GIT_SECONDS = 5.0
MOST_TOLD = 12
"""Differences that are told one by one."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def code_of(source: Path) -> dict[str, Any]:
    """Return the git commit of a workflow's folder, whether it was changed since (and a hash of how), and its Python.

    ``files`` are the Python files beside the workflow with their SHA-256; they are hashed with or without git.
    """
    folder = source.parent
    found: dict[str, Any] = {"files": {path.name: _sha256(path) for path in sorted(folder.glob("*.py"))}}
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
        dirty = _git(folder, "diff", "HEAD", "--", ".") + _git(
            folder, "ls-files", "-o", "--exclude-standard", "--", "."
        )
        found |= {"commit": commit.strip(), "dirty": hashlib.sha256(dirty.encode()).hexdigest()[:16] if dirty else ""}
    return found


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return "unreadable"


def _git(folder: Path, *words: str) -> str:
    """Return what git says of a folder; nothing where there is no git, or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, timeout=GIT_SECONDS, check=False,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def collected(
    workflow: Workflow, source: Path, text: str, settings: Sequence[str], store: str, cluster: str
) -> dict[str, Any]:
    """Return the provenance of a run that is about to be entered."""
    return {
        "version": 1, "workflow": workflow.name, "source": str(source), "spec": text, "settings": list(settings),
        "store": store, "cluster": cluster, "seed": workflow.seed,
        "resolved": workflow.model_dump(mode="json"), "code": code_of(source), "versions": versions(),
    }  # fmt: skip


def path_of(home: Path, run: str) -> Path:
    """Return where the provenance of a run lies; ``home`` is the folder of the registry."""
    return home / "runs" / run / NAME


def write(home: Path, run: str, found: Mapping[str, Any]) -> None:
    """Keep the provenance of a run.

    Raises
    ------
    StoreError
    """
    path = path_of(home, run)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(found, indent=1))
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: run {run} could not be started: {error.strerror or error}") from error


def read(home: Path, run: str) -> dict[str, Any]:
    """Return the provenance of a run; empty when it is gone, as for runs of older versions."""
    try:
        found = json.loads(path_of(home, run).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def whole(home: Path, run: str, store: str) -> dict[str, Any]:
    """Return the provenance of a run with the identities of its inputs, as its store knows them now.

    Raises
    ------
    StoreError
        When nothing was kept of it.
    """
    found = read(home, run)
    if not found:
        raise StoreError(f"{path_of(home, run)} is gone or of an older version; of run {run} nothing more is known")
    return {"run": run, **found, "inputs": inputs(store, found.get("resolved", {}).get("stages", {}))}


def inputs(store: str, stages: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return stage -> file or object -> identity, of the stages that read from outside the store."""
    known: dict[str, dict[str, str]] = {}
    for stage in stages:
        try:
            ids = files.read_json(files.join(store, f"{stage}.ledger", "ids.json"))
            found = {str(name): str(entry[2]) for name, entry in (ids or {}).items()}
        except (StoreError, ValueError, TypeError, IndexError, AttributeError):
            continue  # what cannot be read is not known
        outside = {name: identity for name, identity in found.items() if not name.startswith(f"{store}/")}
        if outside:
            known[stage] = outside
    return known


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what is different between two provenances that results may depend on, one line each."""
    if not before:
        return []
    lines = [f"workflow: {text}" for text in _differences(before.get("resolved", {}), now["resolved"], "")]
    one, other = before.get("code", {}), now["code"]
    if one.get("commit", "") != other.get("commit", ""):
        lines.append(f"code: commit {_short(one.get('commit'))} -> {_short(other.get('commit'))}")
    if one.get("dirty", "") != other.get("dirty", ""):
        lines.append("code: uncommitted changes are others than they were")
    lines += [f"code: {text}" for text in _differences(one.get("files", {}), other.get("files", {}), "", hidden=True)]
    lines += [f"version: {text}" for text in _differences(before.get("versions", {}), now["versions"], "")]
    more = len(lines) - MOST_TOLD
    return lines if more <= 1 else [*lines[:MOST_TOLD], f"and {more} more"]


def _short(commit: str | None) -> str:
    return commit[:10] if commit else "none"


def _differences(old: Any, new: Any, path: str, *, hidden: bool = False) -> Iterator[str]:
    """Yield ``a.b: 3 -> 4`` for what differs; with ``hidden`` only that it changed."""
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in new:
                yield f"{inner} is gone"
            elif key not in old:
                yield f"{inner} is new" if hidden else f"{inner} is new: {_shown(new[key])}"
            else:
                yield from _differences(old[key], new[key], inner, hidden=hidden)
    else:
        yield f"{path} changed" if hidden else f"{path}: {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
