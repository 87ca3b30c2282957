"""Where the work of a call from Python is done: what may be given for ``client=`` and ``cluster=``.

A definition (a name, a path, a mapping, a ``ClusterSpec``) is for ``deploy``; a client is used as it is;
a cluster object lends a client for the time of the call. Anything else is refused before work begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

from daskml_scale.engine.client import current_client
from daskml_scale.errors import UsageError
from daskml_scale.spec.cluster import ExistingSpec, OwnSpec
from daskml_scale.storage import files

Definition = str | Mapping[str, Any] | OwnSpec | ExistingSpec


def resolve(client: Any | None, cluster: Any | None, stack: ExitStack) -> tuple[Any | None, Definition | None]:
    """Return the client to use, or the definition that was asked for; neither when nothing was said.

    Parameters
    ----------
    client, cluster : object or None
        As given by the caller. Without both the process's default client is used, if there is one.
    stack : ExitStack
        Closes a client that is made here.

    Raises
    ------
    UsageError
    """
    if client is not None and cluster is not None:
        raise UsageError("client= and cluster= both say where to work; give one of them")
    if client is not None:
        return client_of(client, "client", stack), None
    if cluster is None:
        return current_client(), None
    if isinstance(cluster, os.PathLike):
        return None, os.fspath(cluster)
    if isinstance(cluster, (str, Mapping, OwnSpec, ExistingSpec)):
        return None, cluster
    return client_of(cluster, "cluster", stack), None


def client_of(given: Any, argument: str, stack: ExitStack) -> Any:
    """Return the client that a client or a cluster object stands for.

    Parameters
    ----------
    argument : str
        What the caller calls it, for the message.
    stack : ExitStack
        Closes a client that was made here.

    Raises
    ------
    UsageError
        When it is neither, is closed, or belongs to an event loop.
    """
    what = f"{argument} is a {type(given).__name__}"
    if hasattr(given, "get_client") and not hasattr(given, "submit"):
        if getattr(given, "asynchronous", False):
            raise UsageError(f"{what} of an event loop; make it with asynchronous=False")
        given = _lent(given, stack)
    if not all(hasattr(given, name) for name in ("submit", "scheduler_info", "register_plugin")):
        raise UsageError(
            f"{what}; give a distributed Client, a cluster object, or for cluster= the name of a definition"
        )
    if given.asynchronous:
        raise UsageError(f"{what} of an event loop; make it with asynchronous=False")
    if given.status != "running":
        raise UsageError(f"{what} that is {given.status}; connect a new one")
    return given


def _lent(cluster: Any, stack: ExitStack) -> Any:
    """Return a client of a cluster: the caller's own, which stays open, or one for the time of the stack."""
    import distributed

    try:
        own = distributed.Client.current()
    except ValueError:
        own = None
    client = cluster.get_client()
    return client if client is own else stack.enter_context(client)


def check_reach(urls: Iterable[str], client: Any | None, remedy: str) -> None:
    """Refuse ``memory://`` where other processes would have to read or write it.

    Parameters
    ----------
    client : distributed.Client or None
        Without one another process is meant.

    Raises
    ------
    UsageError
    """
    inside = client is not None and str(client.scheduler.address).startswith("inproc://")
    for url in urls:
        if files.is_memory(url) and not inside:
            raise UsageError(f"{url} lives in this process and workers cannot reach it; use a local path or {remedy}")
