"""Prove a cluster of SSH hosts before it is used: reachable, of the same versions, in time, open to each other.

One short command runs on each host. On the scheduler's it listens for a moment on the port that the scheduler would
have, and all others, and this machine, try to reach it. Nothing stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from daskml_scale.errors import ClusterError, DaskMLError, SpecError
from daskml_scale.spec.base import byte_count
from daskml_scale.spec.hosts import SshSpec

from .findings import SKEW_SECONDS, Finding, compare_versions, versions

COMMAND = "from daskml_scale.deploy.check_hosts import report; report()"
ANSWER_SECONDS = 60.0
"""For the command on a host, which imports this package."""
REACH_SECONDS = 5.0


def check_hosts(spec: SshSpec) -> Iterator[Finding]:
    """Yield what was found about the hosts of a definition."""
    from .local import listen_here
    from .ssh import check_known_hosts
    from .ssh_connection import library

    try:
        library()
        listen_here(spec)
        check_known_hosts(spec)
    except DaskMLError as error:
        where = f"{error.path}: " if isinstance(error, SpecError) and error.path else ""
        yield Finding("definition", False, f"{where}{getattr(error, 'message', error)}")
        return
    said, failed = asyncio.run(_ask_all(spec))
    for name, why in failed.items():
        yield Finding(name, False, why)
    if not said:
        return
    for name, found in said.items():
        yield Finding(name, True, f"answers; {found['memory'] / 2**30:.1f} GiB, cores: {found['cores']}")
    there = {name: found["versions"] for name, found in said.items()}
    first = there.pop(spec.scheduler_place[0].host, None) or there[next(iter(there))]
    yield from compare_versions(versions(), first, there)
    yield from _clocks(said)
    yield from _ports(spec, said)
    yield from _room(spec, said)


# On this machine


async def _ask_all(spec: SshSpec) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return host -> its report, and host -> why it has none."""
    from .ssh_connection import Access, access_of, addresses, network_name

    first, port = spec.scheduler_place
    listed = [first, *(host for item in spec.classes.values() for host in item.hosts)]
    accesses: dict[str, Access] = {host.host: access_of(spec, host) for host in listed}
    said: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}

    async def ask(name: str, order: dict[str, Any], until: asyncio.Event | None = None) -> None:
        try:
            said[name] = await _ask(accesses[name], order, until, lambda found: said.__setitem__(name, found))
        except ClusterError as error:
            failed[name] = str(error)

    done = asyncio.Event()
    listening = asyncio.ensure_future(ask(first.host, {"listen": port}, done))
    while first.host not in said and not listening.done():
        await asyncio.sleep(0.05)
    open_port = said.get(first.host, {}).get("listening")
    place = (await addresses(accesses.values())).get(first.host) or network_name(accesses[first.host])
    order = {"reach": [place, open_port]} if open_port else {}
    await asyncio.gather(*(ask(name, order) for name in accesses if name != first.host))
    if open_port:
        here = await asyncio.to_thread(_reached, place, open_port)
        said[first.host]["reached_from_here"] = here
    done.set()
    kept = said.get(first.host)
    await listening
    if kept is not None:
        said[first.host] = kept
    return said, failed


async def _ask(access: Any, order: dict[str, Any], until: asyncio.Event | None, tell: Any) -> dict[str, Any]:
    """Run `report` on a host and return what it said, once ``until`` is set when it is given."""
    from .ssh_connection import connect, next_message, not_installed

    connection = await connect(access)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            running = await connection.create_process(
                f"{shlex.quote(access.python)} -P -c {shlex.quote(COMMAND)}", encoding="utf-8"
            )
            before = time.time()
            with contextlib.suppress(OSError):  # it has ended already: its last words say why
                running.stdin.write(json.dumps(order) + "\n")
            passed: list[str] = []
            message = await next_message(running, "report", passed)
            if message is None:
                raise not_installed(access, (await running.stderr.read()).strip() or "".join(passed))
            found: dict[str, Any] = message["report"]
            found["skew"] = max(before - found["time"], found["time"] - time.time(), 0.0)
        tell(found)
        if until is not None:
            await until.wait()
        return found
    except TimeoutError:
        raise ClusterError(f"{access}: {access.python} did not answer within {ANSWER_SECONDS:g} s") from None
    finally:
        connection.abort()


def _clocks(said: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    name = max(said, key=lambda key: said[key]["skew"])
    skew = said[name]["skew"]
    if skew > SKEW_SECONDS:
        yield Finding(
            "clocks", False, f"the clock of {name} is {skew:.1f} s off", "set the clocks by NTP: ages would mislead"
        )
    else:
        yield Finding("clocks", True, f"within {SKEW_SECONDS:g} s of each other")


def _ports(spec: SshSpec, said: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    first, port = spec.scheduler_place
    found = said.get(first.host)
    if found is None:
        return
    if "cannot_listen" in found:
        yield Finding(
            "port", False, f"{first.host} cannot listen on {port} ({found['cannot_listen']})",
            "end what has it, or write scheduler: {host: ..., bind: 'tls://:0'} for any free port",
        )  # fmt: skip
        return
    closed = [name for name, one in said.items() if one.get("reached") is False]
    closed += ["this machine"] if not found.get("reached_from_here", True) else []
    wanted = f"port {port}" if port else "its ports"
    if closed:
        yield Finding(
            "port", False, f"{', '.join(closed)} cannot reach {first.host} on {wanted}",
            "open it in the firewall; workers use any port between each other",
        )  # fmt: skip
    else:
        yield Finding("port", True, f"all hosts and this machine reach {first.host} on {wanted}")


def _room(spec: SshSpec, said: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield of each host that is asked for more memory or devices than it has."""
    memory: dict[str, float] = {}
    devices: dict[str, float] = {}
    cuda = {host.host for item in spec.classes.values() if item.device for host in item.hosts}
    for item in spec.classes.values():
        for host in item.hosts:
            text = host.memory or item.memory
            size = 0 if text == "auto" else byte_count(text)
            memory[host.host] = memory.get(host.host, 0) + host.slots * size
            devices[host.host] = devices.get(host.host, 0) + host.slots * item.resources.get("GPU", 0)
    for name, found in said.items():
        if memory.get(name, 0) > found["memory"]:
            yield Finding(
                f"{name} memory", False,
                f"its slots ask for {memory[name] / 2**30:.1f} GiB and it has {found['memory'] / 2**30:.1f} GiB",
                "lower slots or memory",
            )  # fmt: skip
        if devices.get(name, 0) > found["gpus"]:
            yield Finding(
                f"{name} GPU", False, f"its slots ask for {devices[name]:g} GPUs and it shows {found['gpus']}",
                "lower slots, or install the driver there",
            )  # fmt: skip
        if name in cuda and not found["dask_cuda"]:
            yield Finding(
                f"{name} dask-cuda", False, "its class says device:, and dask-cuda is not installed there",
                "install it by pip install 'daskml-scale[gpu]', or leave device: out",
            )  # fmt: skip


# On the host


def report() -> None:
    """Say what this machine is, and try or offer a port; ends when the connection does."""
    from .gpus import dask_cuda, visible
    from .machine import cores, memory

    order = json.loads(sys.stdin.readline())
    found: dict[str, Any] = {"versions": versions(), "memory": memory(), "cores": cores(), "gpus": len(visible())}
    found["dask_cuda"] = dask_cuda()
    listener = None
    if "listen" in order:
        try:
            listener = socket.create_server(("", order["listen"]))
            found["listening"] = listener.getsockname()[1]
        except OSError as error:
            found["cannot_listen"] = error.strerror
    elif "reach" in order:
        found["reached"] = _reached(*order["reach"])
    sys.stdout.write(json.dumps({"report": {**found, "time": time.time()}}) + "\n")
    sys.stdout.flush()
    if listener is not None:
        sys.stdin.read()
        listener.close()


def _reached(host: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=REACH_SECONDS):
        return True
    return False
