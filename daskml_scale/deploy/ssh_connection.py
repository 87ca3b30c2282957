"""One SSH connection to a host, or one sentence on why there is none and what to do. Needs ``asyncssh``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskml_scale.errors import ClusterError, UsageError
from daskml_scale.spec.hosts import Host, SshSpec

CONNECT_SECONDS = 10.0
"""For everything until the host let us in."""
ALIVE_SECONDS = 15.0
"""Between two questions to a connection that says nothing; the third without an answer ends it."""


@dataclass(frozen=True)
class Access:
    """How one host is reached.

    Attributes
    ----------
    known_hosts : Path
    user, port, identity : optional
        As ``~/.ssh/config`` says when left out.
    python : str
        The interpreter there.
    """

    host: str
    known_hosts: Path
    python: str
    user: str | None = None
    port: int | None = None
    identity: str | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


def access_of(spec: SshSpec, host: Host) -> Access:
    """Return how a host of a definition is reached."""
    return Access(host.host, Path(spec.ssh.known_hosts).expanduser(), **spec.options_of(host))


def library() -> Any:
    """Return asyncssh.

    Raises
    ------
    UsageError
        When it is not installed.
    """
    try:
        import asyncssh
    except ImportError:
        raise UsageError(
            "clusters of SSH hosts need asyncssh, which is not installed: pip install 'daskml-scale[ssh]'"
        ) from None
    return asyncssh


async def connect(access: Access) -> Any:
    """Return an open ``asyncssh.SSHClientConnection``.

    Raises
    ------
    ClusterError
        Naming host, cause and remedy.
    """
    ssh = library()
    given: dict[str, Any] = {"username": access.user, "port": access.port}
    if access.identity:
        key = Path(access.identity).expanduser()
        if not key.is_file():
            raise ClusterError(f"{access}: the key file {key} does not exist; correct ssh.identity")
        given["client_keys"] = [str(key)]
    options = {key: value for key, value in given.items() if value is not None}
    try:
        return await asyncio.wait_for(
            ssh.connect(access.host, known_hosts=str(access.known_hosts), keepalive_interval=ALIVE_SECONDS, **options),
            CONNECT_SECONDS,
        )
    except (OSError, TimeoutError, ValueError, ssh.Error, ssh.KeyImportError) as error:
        raise ClusterError(f"{access}: {_cause(ssh, access, error)}") from error


def _cause(ssh: Any, access: Access, error: Exception) -> str:
    where, scan = access.known_hosts, f"ssh-keyscan -p {access.port or 22} {access.host}"
    if isinstance(error, ssh.HostKeyNotVerifiable):
        return (
            f"its host key is not the one in {where}, or not in there; compare it with the host's own "
            f"(ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub there), then: {scan} >> {where}"
        )
    if isinstance(error, ssh.PermissionDenied):
        who = f"user {access.user}" if access.user else "this user"
        return f"it does not let {who} in ({error.reason}); give ssh.user and ssh.identity, or load the key (ssh-add)"
    if isinstance(error, (ssh.KeyImportError, ssh.KeyEncryptionError)):
        return f"the key {access.identity or 'of the user'} cannot be read ({error}); load it by ssh-add"
    if isinstance(error, TimeoutError):
        return f"it did not answer within {CONNECT_SECONDS:g} s; is it up, and is its SSH port open to this machine?"
    if isinstance(error, socket.gaierror):
        return f"no such host ({error.strerror}); correct its name, or that of its jump host"
    if isinstance(error, OSError):
        return f"no connection ({error.strerror or error}); is its SSH server running?"
    return f"no connection ({error})"


def network_name(access: Access) -> str:
    """Return the name or address by which the network knows a host: ``HostName`` of ``~/.ssh/config``, or its own."""
    try:  # the empty config is asyncssh's word for the usual files
        options = library().SSHClientConnectionOptions(host=access.host, config=(), client_keys=None, known_hosts=None)
    except (OSError, ValueError):  # connecting says so
        return access.host
    return str(options.host)


async def addresses(accesses: Iterable[Access]) -> dict[str, str]:
    """Return host -> the address by which others reach it; none where the name is one of this machine's own.

    A name of this machine may stand for 127.0.1.1, where no other machine reaches it.
    """
    loop = asyncio.get_running_loop()
    names = {access.host: network_name(access) for access in accesses}

    async def resolve(name: str) -> str:
        try:
            return str((await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM))[0][4][0])
        except OSError:
            return ""  # connecting says so, with a remedy

    found = dict(zip(names, await asyncio.gather(*map(resolve, names.values())), strict=True))
    inside = {name for name, address in found.items() if address.startswith("127.") or address == "::1"}
    return {
        name: address
        for name, address in found.items()
        if address and (name not in inside or len(inside) == len(names))
    }


async def next_message(process: Any, key: str, passed: list[str], value: str = "") -> dict[str, Any] | None:
    """Return the next JSON object with a key (of that value), ``None`` at the end.

    ``passed`` gets the other lines: what a login script writes, or a host that runs no command.
    """
    while line := await process.stdout.readline():
        text = line.decode(errors="replace") if isinstance(line, bytes) else line
        with contextlib.suppress(ValueError):
            message = json.loads(text)
            if isinstance(message, dict) and message.get(key, "") and value in ("", message[key]):
                return message
        passed.append(text)
    return None


def not_installed(access: Access, wrote: str) -> ClusterError:
    """Return the error of a host whose interpreter ended instead of answering, with its last words."""
    last = wrote.strip().splitlines()[-1:] or ["it wrote nothing"]
    if "-P" in wrote and "nknown option" in wrote:
        last = ["it is older than Python 3.11"]
    return ClusterError(
        f"{access}: {access.python} does not run this package ({last[0]}); install the same version there, "
        "or correct ssh.python"
    )
