"""Icechunk repositories: opened ones, transactions, forks. The only module that imports icechunk.

One repository holds a whole store, and every change of it is a commit on the branch ``main``. Units write into forks;
the driver merges the forks of a group and commits them together with the ledger records (``transactions``). Two
forks that write one chunk would merge in silence, one half lost: alignment is ours. Icechunk takes its
credentials from the environment and the usual files.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from daskml_scale.errors import ConflictError, StoreError

from .backend import hash_bytes
from .urls import ICECHUNK, bucket

BRANCH = "main"
DATA, FILES, WAVE = "data", "files", "wave"
"""What a commit of ours holds: datasets; only small files; or finished units with their ledger records."""
CHUNKS_PER_MANIFEST = 20_000
"""Along each dimension; commits of a wave into 300,000 chunks take 8 ms instead of 170."""
_repositories: dict[tuple[int, str], Any] = {}
_sessions: dict[str, Any] = {}
"""Open transactions of this process, by root."""
_fork: ContextVar[tuple[str, Any] | None] = ContextVar("daskml_scale_fork", default=None)


def library() -> Any:
    """Return the icechunk package.

    Raises
    ------
    StoreError
        When it is not there, or too old to read what version 2 writes.
    """
    try:
        import icechunk
    except ImportError:
        raise StoreError(
            "icechunk+ stores need icechunk 2 and Python 3.12 or newer: pip install 'daskml-scale[icechunk]', "
            "on the workers too"
        ) from None
    if int(icechunk.__version__.split(".")[0]) < 2:
        raise StoreError(f"icechunk {icechunk.__version__} is installed and 2 is needed (Python 3.12 or newer)")
    if "ICECHUNK_LOG" not in os.environ:
        icechunk.set_logs_filter("error")  # a local repository warns of concurrent commits; ours has one committer
    return icechunk


def _storage(root: str) -> Any:
    icechunk, inner = library(), root[len(ICECHUNK) :]
    if inner.startswith("file://"):
        return icechunk.local_filesystem_storage(inner[len("file://") :])
    place, prefix = bucket(inner)
    scheme, _, name = place.partition("://")
    if scheme == "s3":
        found = os.environ
        endpoint = found.get("AWS_ENDPOINT_URL_S3") or found.get("AWS_ENDPOINT_URL")
        return icechunk.s3_storage(
            bucket=name, prefix=prefix or None, from_env=True, endpoint_url=endpoint,
            region=found.get("AWS_REGION") or found.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None),
            allow_http=bool(endpoint and endpoint.startswith("http://")), force_path_style=bool(endpoint),
        )  # fmt: skip
    if scheme == "gs":
        return icechunk.gcs_storage(bucket=name, prefix=prefix or None, from_env=True)
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    return icechunk.azure_storage(account=account, container=name, prefix=prefix, from_env=True)


@contextmanager
def explained(url: str, verb: str) -> Iterator[None]:
    """Turn icechunk's errors into ours.

    Raises
    ------
    ConflictError
        When somebody else committed meanwhile.
    StoreError
        For all other errors.
    """
    icechunk = library()
    try:
        yield
    except icechunk.ConflictError as error:
        raise ConflictError(
            f"somebody else committed to {url} while this run did: nothing of this commit was written; "
            "find the other writer, then run the same command again"
        ) from error
    except icechunk.IcechunkError as error:
        raise StoreError(f"cannot {verb} {url}: {str(error).splitlines()[0][:300]}") from error


def repository(root: str, *, create: bool = False) -> Any:
    """Return the opened repository of a root URL, ``None`` when there is none and none is to be made."""
    key = (os.getpid(), root)
    if key in _repositories:
        return _repositories[key]
    icechunk, storage = library(), _storage(root)
    with explained(root, "open"):
        if icechunk.Repository.exists(storage):
            _repositories[key] = icechunk.Repository.open(storage)
        elif create:
            _refuse_foreign(root)
            config = icechunk.RepositoryConfig(manifest=icechunk.ManifestConfig(splitting=_splitting(icechunk)))
            _repositories[key] = icechunk.Repository.create(storage, config, check_clean_root=False)
        else:
            return None
    return _repositories[key]


def _splitting(icechunk: Any) -> Any:
    """Return how an array's list of chunks is split: a commit then writes the parts that its wave touched, not all."""
    every = icechunk.ManifestSplitDimCondition.Any()
    return icechunk.ManifestSplittingConfig.from_dict(
        {icechunk.ManifestSplitCondition.AnyArray(): {every: CHUNKS_PER_MANIFEST}}
    )


def _refuse_foreign(root: str) -> None:
    """Refuse to make a repository in a folder that holds other things; a bucket's prefix is icechunk's to keep."""
    inner = root[len(ICECHUNK) :]
    if inner.startswith("file://"):
        folder = Path(inner[len("file://") :])
        held = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")] if folder.is_dir() else []
        if held:
            raise StoreError(f"{root} holds {held[0]} and is no Icechunk repository; choose another store")


def root_of(url: str) -> str:
    """Return the URL of the repository that holds a URL; empty when there is none at or above it."""
    for process, root in _repositories:
        if process == os.getpid() and (url == root or url.startswith(f"{root}/")):
            return root
    scheme, _, rest = url.partition("://")
    parts = rest.split("/")
    least = 2 if scheme == f"{ICECHUNK}file" else 1
    for count in range(len(parts), least - 1, -1):
        root = f"{scheme}://{'/'.join(parts[:count])}"
        if repository(root) is not None:
            return root
    return ""


def make(store: str) -> str:
    """Return the root of the repository of a store, making it at ``store`` when there is none at or above it."""
    root = root_of(store)
    if not root:
        repository(store, create=True)
        root = store
    return root


def zarr_store(url: str, *, write: bool = False) -> tuple[Any, str]:
    """Return a Zarr store and the path in it of what a URL names: in this unit's fork, this transaction, or as it is.

    Raises
    ------
    FileNotFoundError
        When there is no repository.
    StoreError
        When it is to be written outside of a transaction.
    """
    root = root_of(url)
    if not root:
        raise FileNotFoundError(url)
    path = url[len(root) + 1 :]
    forked_here = _fork.get()
    if forked_here is not None and forked_here[0] == root:
        return forked_here[1].store, path
    if root in _sessions:
        return _sessions[root].store, path
    if write:
        raise StoreError(f"{url} is written outside of a transaction")
    with explained(root, "read"):
        return repository(root).readonly_session(BRANCH).store, path


@contextmanager
def transaction(url: str, message: str, about: Mapping[str, Any]) -> Iterator[None]:
    """Commit what the block writes, or nothing; a transaction within another one is part of it."""
    root = root_of(url) or make(url.rpartition("/")[0])
    if root in _sessions or _fork.get() is not None:
        yield
        return
    with explained(root, "write"):
        session = _sessions[root] = repository(root).writable_session(BRANCH)
    try:
        yield
        with explained(root, "commit to"):
            if session.has_uncommitted_changes:
                session.commit(message, {"daskml_scale": {"kind": DATA, **about}})
    finally:
        del _sessions[root]


def fork(root: str) -> bytes:
    """Return a pickled fork of the newest commit."""
    with explained(root, "fork"):
        return pickle.dumps(repository(root).writable_session(BRANCH).fork())


@contextmanager
def forked(root: str, content: bytes) -> Iterator[Callable[[], bytes]]:
    """Read and write a fork while the block runs; give a function that returns what was written, pickled."""
    library()
    session = pickle.loads(content)
    token = _fork.set((root, session))
    try:
        yield lambda: pickle.dumps(session)
    finally:
        _fork.reset(token)


def merge(url: str, changes: Sequence[bytes]) -> None:
    """Merge forks into the open transaction."""
    root = root_of(url)
    with explained(root, "merge into"):
        _sessions[root].merge(*(pickle.loads(content) for content in changes))


def stamp_of(snapshot: str) -> int:
    """Return the stamp of objects written upon a commit."""
    return int(hash_bytes(snapshot.encode())[:15], 16) | 1
