"""Which host a new worker goes to: a free slot of its class on a host that works, the emptiest host first.

A host that fails is left alone for a while (`quarantine` says for how long); its slots count again afterwards. What
connects and starts is `link`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from daskml_scale.errors import ClusterError
from daskml_scale.spec.hosts import Host, SshSpec

from .link import HostLink
from .places import Place
from .ssh_connection import Access, access_of


@dataclass
class Slot:
    """Room for one worker of a class.

    Attributes
    ----------
    number : int
        From 0, among the slots of the class on this host; of a GPU class the number of the device.
    user : str or None
        The worker in it.
    """

    host: Host
    link: HostLink
    number: int
    user: str | None = None


class Hosts:
    """All hosts of a cluster, one connection each, however many classes they serve.

    Parameters
    ----------
    spec : SshSpec
    cluster : str
        Unique name.
    lease : float
        Seconds.
    place : Place
    """

    def __init__(self, spec: SshSpec, cluster: str, lease: float, place: Place) -> None:
        self.links: dict[Access, HostLink] = {}

        def link(host: Host) -> HostLink:
            access = access_of(spec, host)
            if access not in self.links:
                # Two names may lead to one machine: each has a keeper of its own.
                self.links[access] = HostLink(access, f"{cluster}-{len(self.links)}", lease, place)
            return self.links[access]

        self.scheduler = link(spec.scheduler_place[0])
        self.slots: Mapping[str, list[Slot]] = {
            name: [Slot(host, link(host), number) for host in item.hosts for number in range(host.slots)]
            for name, item in spec.classes.items()
        }

    async def take(self, worker_class: str, name: str) -> Slot:
        """Return a slot for a worker, its host connected; `give` it back.

        Raises
        ------
        ClusterError
            When there is none: says of each host why.
        """
        slots = self.slots[worker_class]
        while (slot := best(slots, {id(one.link): one.link.rest() for one in slots})) is not None:
            slot.user = name
            try:
                await slot.link.connect()
            except BaseException as error:
                slot.user = None
                if not isinstance(error, ClusterError):
                    raise
            else:
                return slot
        raise ClusterError(f"no slot of class {worker_class} is to be had: {why(slots)}")

    @staticmethod
    def give(slot: Slot) -> None:
        """Take a slot back."""
        slot.user = None

    async def close(self) -> None:
        """End what is left on every host, and the connections."""
        await asyncio.gather(*(link.close() for link in self.links.values()))


def best(slots: Iterable[Slot], rests: Mapping[int, float]) -> Slot | None:
    """Return a free slot on the host that is used least, of those that are not left alone. Pure.

    Parameters
    ----------
    rests : mapping
        ``id`` of a link -> seconds for which it is left alone.
    """
    listed = list(slots)
    free = [slot for slot in listed if slot.user is None and not rests[id(slot.link)]]
    if not free:
        return None

    def used(slot: Slot) -> float:
        same = [one for one in listed if one.link is slot.link]
        return sum(one.user is not None for one in same) / len(same)

    return min(free, key=used)


def why(slots: Iterable[Slot]) -> str:
    """Return of each host why it has no slot."""
    said: dict[str, str] = {}
    listed = list(slots)
    for slot in listed:
        link = slot.link
        same = [one for one in listed if one.link is link]
        taken = sum(one.user is not None for one in same)
        rest = link.rest()
        said[str(link.access)] = (
            f"{link.failure or 'its connection broke'} (tried again in {rest:.0f} s)"
            if rest
            else f"{link.access}: {taken} of {len(same)} slots taken"
        )
    return "; ".join(said.values())
