"""One SSH connection to a host, or one sentence on why there is none and what to do. Needs ``asyncssh``."""

from __future__ import annotations

import asyncio
import socket
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
        given["client_keys"] = [str(Path(access.identity).expanduser())]
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
        return f"no such host ({error.strerror}); correct its name"
    if isinstance(error, OSError):
        return f"no connection ({error.strerror or error}); is its SSH server running?"
    return f"no connection ({error})"


def not_installed(access: Access, wrote: str) -> ClusterError:
    """Return the error of a host whose interpreter ended instead of answering, with its last words."""
    last = wrote.strip().splitlines()[-1:] or ["it wrote nothing"]
    return ClusterError(
        f"{access}: {access.python} does not run this package ({last[0]}); install the same version there, "
        "or correct ssh.python"
    )
