"""What a URL names: its kind, its one normal form, the URLs beside it, and what may not stand in one. Pure.

A store is a local path, ``memory://NAME``, a bucket (``s3://``, ``gs://``, ``az://``, ``abfs://``) or an Icechunk
repository (``icechunk+file://``, ``icechunk+s3://`` and so on). A URL goes into specs, ledgers and logs,
so it never carries credentials.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from daskml_scale.errors import UsageError

OTHER_NAMES = {"s3a": "s3", "azure": "az", "adl": "az"}
"""Schemes that other tools write for one of ours."""
OBJECTS = ("s3", "gs", "az", "abfs", "abfss", *OTHER_NAMES)
"""Schemes of object stores: those of obstore."""
ICECHUNK = "icechunk+"
SCHEMES = "a local path, memory://NAME, s3://, gs://, az://, abfs://, icechunk+file:// or icechunk+s3://"


def scheme(url: str) -> str:
    """Return the scheme of a URL; empty for a local path."""
    found, mark, _ = url.partition("://")
    return found if mark else ""


def is_memory(url: str) -> bool:
    """Return whether the URL names the process-global memory store."""
    return url.startswith("memory://")


def is_object(url: str) -> bool:
    """Return whether the URL names something in a bucket."""
    return scheme(url) in OBJECTS


def is_icechunk(url: str) -> bool:
    """Return whether the URL names something in an Icechunk repository."""
    return url.startswith(ICECHUNK)


def is_local(url: str) -> bool:
    """Return whether the URL names a file or a folder of this machine."""
    return scheme(url) in ("", "file")


def local_path(url: str) -> Path:
    """Return the path of a local URL.

    Raises
    ------
    UsageError
        When it is no path of this machine.
    """
    if url.startswith("file://"):
        url = url[len("file://") :]
    if "://" in url:
        raise UsageError(f"{_shown(url)}: scheme {scheme(url)!r} is not supported here; use a local path")
    return Path(url)


def normal(url: str | os.PathLike[str]) -> str:
    """Return a URL in one form: local paths absolute, others without a trailing slash.

    Raises
    ------
    UsageError
        For an unknown scheme, a URL that names no store, or one that carries credentials.
    """
    text = os.fspath(url)
    if is_memory(text):
        if not text[len("memory://") :].strip("/"):
            raise UsageError(f"{text!r} names no store; write memory://NAME")
        return text.rstrip("/")
    if is_icechunk(text):
        return ICECHUNK + _inner(text)
    if is_object(text):
        return _bucket(text)
    if "://" in text and not text.startswith("file://"):
        raise UsageError(f"{_shown(text)}: scheme {scheme(text)!r} is not supported; use {SCHEMES}")
    return str(local_path(text).expanduser().absolute())


def zarr_url(out: str | os.PathLike[str]) -> str:
    """Return the URL, in one form, of a dataset that is to be written.

    Raises
    ------
    UsageError
        When its name does not end in ``.zarr``, or it is no URL of a store.
    """
    url = normal(out)
    if not url.endswith(".zarr"):
        raise UsageError(f"out={os.fspath(out)!r}: name it {os.fspath(out)}.zarr; its ledger is written beside it")
    return url


def _inner(text: str) -> str:
    inner = text[len(ICECHUNK) :]
    if is_object(inner):
        return _bucket(inner)
    if inner.startswith("file://") and inner[len("file://") :].strip("/"):
        return f"file://{Path(inner[len('file://') :]).expanduser().absolute()}"
    raise UsageError(f"{_shown(text)}: write icechunk+file:///folder, or icechunk+s3://bucket/folder")


def _bucket(text: str) -> str:
    try:
        parts = urlsplit(text)
        secret = parts.username is not None or parts.password is not None or parts.query or parts.fragment
    except ValueError as error:
        raise UsageError(f"{_shown(text)} is not a URL ({error})") from None
    if secret:
        raise UsageError(
            f"{_shown(text)}: a URL carries no credentials and no options (a user name, a password, or what follows "
            "'?' or '#'); give them by the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...) or by the usual files"
        )
    if not parts.netloc:
        raise UsageError(f"{_shown(text)} names no bucket; write {parts.scheme}://BUCKET/FOLDER")
    path = "/".join(part for part in parts.path.split("/") if part)
    if any(part in (".", "..") for part in path.split("/")):
        raise UsageError(f"{_shown(text)}: '.' and '..' are not folders of a bucket")
    kind = OTHER_NAMES.get(parts.scheme, parts.scheme)
    return f"{kind}://{parts.netloc}" + (f"/{path}" if path else "")


def _shown(url: str) -> str:
    """Return a URL as it may be shown: without what could be a password."""
    found, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return repr(f"{found}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0].partition('#')[0]}")


def bucket(url: str) -> tuple[str, str]:
    """Return the bucket's URL and the path in it."""
    found, _, rest = url.partition("://")
    name, _, path = rest.partition("/")
    return f"{found}://{name}", path


def join(url: str, *parts: str) -> str:
    """Append path parts to a URL."""
    return "/".join([url.rstrip("/"), *parts])


def resolve(url: str, key: str) -> tuple[str, str]:
    """Return dataset and key of an object; a key that begins with ``../`` lies in a dataset beside ``url``."""
    while key.startswith("../"):
        name, _, key = key[3:].partition("/")
        url = join(url.rstrip("/").rpartition("/")[0], name)
    return url, key


def dataset_of(ledger_url: str) -> str:
    """Return the URL of the dataset beside a ledger: ``x/a.ledger`` -> ``x/a.zarr``."""
    return f"{ledger_url.rstrip('/').removesuffix('.ledger')}.zarr"


def beside(url: str, suffix: str) -> str:
    """Return the URL beside a dataset: ``x/a.zarr``, ``ledger`` -> ``x/a.ledger``."""
    return f"{url.rstrip('/').removesuffix('.zarr')}.{suffix}"
