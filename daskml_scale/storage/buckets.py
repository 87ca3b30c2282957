"""Buckets: S3, Google Cloud Storage and Azure through obstore. The only module that imports it.

Chosen over s3fs: one wheel without dependencies instead of a pinned tree, whole objects in one request each
(s3fs looks and lists before it writes), the ETag of what was written without another request, and
conditional writes, which the lock needs.

Credentials come from the environment and from the usual files (through boto3, where it is installed) and stay
in this module: no URL, pickle, log or message carries them. Stores are opened anew in every process.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, BinaryIO

from daskml_scale.errors import ConflictError, DaskMLError, StoreError

from .backend import Backend, Stat
from .urls import bucket, resolve

CONCURRENCY = 8
"""Objects that one unit writes at a time (docs/reference/storage.md)."""
_SINGLE_PUT = 256 * 2**20
"""Objects up to this size are written in one request; larger ones in parts."""
LOST: dict[str, str] = {}
"""Stores whose lock this process lost -> what to say: it writes nothing there any more."""
_opened: dict[tuple[int, str], Any] = {}
_lock = threading.Lock()


def opened(root: str) -> Any:
    """Return the obstore store of a bucket, or of a folder in one, by its URL; one per process.

    Raises
    ------
    StoreError
        When obstore is not installed, or there are no credentials.
    """
    key = (os.getpid(), root)
    with _lock:
        if key not in _opened:
            _opened[key] = _open(root)
        return _opened[key]


def _open(root: str) -> Any:
    try:
        from obstore.store import from_url
    except ImportError:
        raise StoreError(f"{root} needs obstore: pip install 'daskml-scale[s3]', on the workers too") from None
    options: dict[str, Any] = {
        "client_options": {"timeout": "300s", "connect_timeout": "10s"},
        "retry_config": {
            "max_retries": 5,
            "backoff": {"base": 2, "init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=10)},
            "retry_timeout": timedelta(seconds=120),
        },
    }
    if root.startswith(("s3://", "s3a://")):
        options = _s3(options)
    with explained(root, "open"):
        return from_url(root, **options)


def _s3(options: dict[str, Any]) -> dict[str, Any]:
    found = os.environ
    endpoint = found.get("AWS_ENDPOINT_URL_S3") or found.get("AWS_ENDPOINT_URL") or ""
    config: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if endpoint.startswith("http://"):  # an explicit address without TLS, as of a server on this machine
        options["client_options"]["allow_http"] = True
    region = found.get("AWS_REGION") or found.get("AWS_DEFAULT_REGION")
    unsigned = found.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true")
    if not unsigned and "AWS_ACCESS_KEY_ID" not in found:
        provider = _from_files()
        if provider is not None:
            options["credential_provider"] = provider
            region = region or provider.config.get("region")
    return {**options, "config": {**config, "region": region or "us-east-1"}}


def _from_files() -> Any:
    """Return what finds credentials in the usual files, in a role, and so on; ``None`` without boto3 or any."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        return None
    try:
        return Boto3CredentialProvider()
    except ValueError:
        raise StoreError(
            "no credentials for s3://: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile by AWS_PROFILE, "
            "or set AWS_SKIP_SIGNATURE=true for a public bucket; every worker needs the same"
        ) from None


@contextmanager
def explained(url: str, verb: str) -> Iterator[None]:
    """Turn obstore's errors into ours: what, why and the remedy, without the server's whole answer.

    Raises
    ------
    StoreError
        For all but a missing object, which stays ``FileNotFoundError``, and refused conditional writes.
    """
    try:
        yield
    except Exception as error:
        code = re.search(r"<Code>(\w+)</Code>", str(error))
        why = code.group(1) if code else ""
        if isinstance(error, FileNotFoundError) and why != "NoSuchBucket":
            raise
        kind = type(error).__name__
        if kind in ("AlreadyExistsError", "PreconditionError") or isinstance(error, DaskMLError):
            raise
        if not type(error).__module__.startswith("obstore") and not isinstance(error, (OSError, ValueError)):
            raise
        raise StoreError(f"cannot {verb} {url}: {_reason(kind, why, str(error))}") from None


def _reason(kind: str, code: str, text: str) -> str:
    if code == "NoSuchBucket":
        return "there is no such bucket; create it, or choose another store"
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or " 403 " in text or " 401 " in text:
        return (
            f"the server refuses these credentials ({code or kind}); check AWS_ACCESS_KEY_ID or AWS_PROFILE and the "
            "bucket's policy: reading, writing, listing and deleting are needed"
        )
    status = re.search(r"status code: (\d{3}[^:<]*)", text)
    if status:
        return f"the server answered {status.group(1).strip()}{f' ({code})' if code else ''}"
    first = re.sub(r"https?://\S+", "the server", text.splitlines()[0])[:200]
    return f"{first}; check AWS_ENDPOINT_URL, the network, and the region"


def stamp_of(etag: str | None) -> int:
    """Return the stamp of an ETag: 62 bits of its hash, never 0; 0 where the server gives none."""
    if not etag:
        return 0
    return int.from_bytes(hashlib.blake2b(etag.encode(), digest_size=8).digest()) >> 2 | 1


class _Ranges(io.RawIOBase):
    """An object as a file: each read is a request for a range."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url, self.place = url, 0
        root, self.path = bucket(url)
        self.store = opened(root)
        with explained(url, "read"):
            self.size = int(self.store.head(self.path)["size"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.size}[whence]
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: Any) -> int:
        stop = min(self.place + len(buffer), self.size)
        if stop <= self.place:
            return 0
        with explained(self.url, "read"):
            data = self.store.get_range(self.path, start=self.place, end=stop)
        count = len(data)
        buffer[:count] = bytes(data)
        self.place += count
        return count


def open_read(url: str) -> BinaryIO:
    """Open an object for reading bytes from any place in it; only what is read is fetched, 1 MiB at least.

    Raises
    ------
    FileNotFoundError
        When there is none.
    """
    return io.BufferedReader(_Ranges(url), 1 << 20)


class Buckets(Backend):
    """Whole objects in buckets. Every write is atomic and durable when the server acknowledged it."""

    concurrency = CONCURRENCY

    def write(self, url: str, data: bytes | memoryview, *, durable: bool = True) -> Stat:
        for store, why in list(LOST.items()):
            if url.startswith(f"{store}/"):
                raise ConflictError(why)
        root, path = bucket(url)
        with explained(url, "write"):
            try:
                put = opened(root).put(path, data, use_multipart=None if len(data) > _SINGLE_PUT else False)
            except FileNotFoundError as error:
                raise StoreError(f"cannot write {url}: {_reason('', 'NoSuchBucket', str(error))}") from None
        return len(data), stamp_of(put["e_tag"])

    def read(self, url: str) -> bytes | None:
        root, path = bucket(url)
        try:
            with explained(url, "read"):
                return bytes(opened(root).get(path).bytes())
        except FileNotFoundError:
            return None

    def stat(self, url: str) -> Stat | None:
        root, path = bucket(url)
        if not path:
            return None
        try:
            with explained(url, "read"):
                found = opened(root).head(path)
        except FileNotFoundError:
            return None
        return found["size"], stamp_of(found["e_tag"])

    def names(self, url: str) -> list[str]:
        root, path = bucket(url)
        try:
            with explained(url, "list"):
                found = opened(root).list_with_delimiter(path or None)
        except FileNotFoundError:
            return []
        paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return sorted({name for entry in paths if not (name := entry.rpartition("/")[2]).startswith(".")})

    def remove(self, url: str) -> None:
        root, path = bucket(url)
        store = opened(root)
        try:
            with explained(url, "remove"):
                paths = list(self.listing(url))
                store.delete([path, *(f"{path}/{key}" for key in paths)])
        except FileNotFoundError:
            return

    def remove_object(self, url: str, key: str) -> None:
        root, path = bucket("/".join(resolve(url, key)))
        try:
            with explained(f"{url}/{key}", "remove"):
                opened(root).delete(path)
        except FileNotFoundError:
            return

    def stats(self, url: str) -> Callable[[str], Stat | None]:
        # A listing tells a thousand objects per request, a look at each only one.
        listed: dict[str, Mapping[str, Stat]] = {}

        def stat(key: str) -> Stat | None:
            place, own = resolve(url, key)
            if place not in listed:
                listed[place] = self.listing(place)
            return listed[place].get(own)

        return stat

    def listing(self, url: str) -> dict[str, Stat]:
        """Return size and stamp of all objects below a URL, by the rest of their path."""
        root, path = bucket(url)
        found: dict[str, Stat] = {}
        skip = len(path) + 1 if path else 0
        try:
            with explained(url, "list"):
                for batch in opened(root).list(path or None, chunk_size=1000):
                    found.update((entry["path"][skip:], (entry["size"], stamp_of(entry["e_tag"]))) for entry in batch)
        except FileNotFoundError:
            return {}
        return found

    def identity(self, url: str, key: str, found: Stat) -> str:
        # The ETag stands for the bytes: nothing is read.
        if not found[1]:
            return super().identity(url, key, found)
        return hashlib.blake2b(f"etag {found[0]} {found[1]}".encode(), digest_size=20).hexdigest()
