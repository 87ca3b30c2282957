"""One dispatch and the scheduler's backlog plugin: what is left goes there, what may be used comes back.

A report that cannot be delivered is dropped: noticing a lost scheduler is the dispatcher's job. On a
scheduler that does not have the plugin and cannot take it, only the number of slots is asked for.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from daskml_scale.plan.batching import share

from .client import slots

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.5
"""Shortest time between two reports of a stage."""
ANSWER_SECONDS = 5
"""Longest wait for the answer to one: a scheduler that just died may not block the driver for long."""
ENOUGH_TASKS = 100
"""Tasks over which the overhead of one is measured."""


class BacklogReporter:
    """Tells the scheduler what one stage of one driver has left.

    Parameters
    ----------
    client : distributed.Client
    stage : str
    resources : mapping, optional
        Dask resources that a task of the stage needs.
    weight : float
        Share of the cluster beside other stages, relative to theirs.

    Attributes
    ----------
    slots : int
        Tasks that the cluster runs at a time, at least 1; as of the last report.
    share : float
        Of the slots that belong to this stage.
    idle : list of str
        Addresses of workers with a free slot.
    passes_on : bool
        Whether the scheduler takes small results from workers and passes them on, see `results`.
    """

    def __init__(
        self, client: Any, stage: str, resources: Mapping[str, float] | None = None, weight: float = 1.0
    ) -> None:
        self.client, self.stage, self.resources, self.weight = client, stage, dict(resources or {}), weight
        self.slots, self.share = 1, 1.0
        self.idle: list[str] = []
        self.passes_on = False
        self._overhead: float | None = None
        self._counted: tuple[int, float] | None = None
        self._id = f"{stage}-{uuid.uuid4().hex[:8]}"
        self._sent: float | None = None
        self._listed = False
        self._plugin: bool | None = None

    def report(
        self,
        *,
        units_left: int,
        runnable: int,
        seconds_per_unit: float | None,
        in_flight: int,
        now: float,
        force: bool = False,
    ) -> bool:
        """Send a report unless the last one is younger than half a second; the first and last always go.

        Parameters
        ----------
        units_left : int
            Not committed yet, those in flight included; 0 takes the stage off the backlog.
        runnable : int
            Could run now if there were workers, those in flight included.
        seconds_per_unit : float or None
            Measured; ``None`` when unknown.
        in_flight : int
            Sent to the cluster.
        now : float
            Any steady clock, seconds.

        Returns
        -------
        bool
            Whether it was sent.
        """
        last = units_left <= 0
        if last and not self._listed:
            return False
        recent = self._listed and self._sent is not None and now - self._sent < REPORT_SECONDS
        if recent and not (force or last):
            return False
        self._sent, self._listed = now, not last
        return self._send(
            units_left=units_left, runnable=runnable, seconds_per_unit=seconds_per_unit, in_flight=in_flight
        )

    def close(self) -> None:
        """Drop the stage from the backlog. Calling it twice is fine."""
        if self._listed:
            self._listed = False
            self._send(closed=True)

    def _send(self, **values: Any) -> bool:
        if self.client.status != "running":
            return False
        message = {
            "client": self.client.id, "id": self._id, "stage": self.stage, "resources": self.resources,
            "weight": self.weight, **values,
        }  # fmt: skip
        try:
            if self._plugin is None:
                self._plugin = installed(self.client)
            if not self._plugin:
                self.slots = max(1, slots(self.client, self.resources))
                return False
            answer = self.client.sync(
                self.client.scheduler.daskml_report, message=message, callback_timeout=ANSWER_SECONDS
            )
        except Exception:
            logger.debug("could not report the backlog of %s", self.stage, exc_info=True)
            return False
        self.slots, self.idle = max(1, answer["slots"]), list(answer["idle"])
        self.share = share(self.weight, answer["others"])
        self.passes_on = bool(answer.get("passes_on"))
        if "cpu" in answer:
            self._count(answer["left"], answer["cpu"])
        return True

    def _count(self, left: int, cpu: float) -> None:
        since, before = self._counted or (left, cpu)
        if left - since >= ENOUGH_TASKS:
            self._overhead = (cpu - before) / (left - since)
            since, before = left, cpu
        self._counted = since, before

    def overhead(self) -> float | None:
        """Return the scheduler's seconds of CPU for each of the last tasks; ``None`` where that is no news.

        Over `ENOUGH_TASKS` of all drivers at least; what its event loop does besides is in it.
        """
        fresh, self._overhead = self._overhead, None
        return fresh


def installed(client: Any) -> bool:
    """Make sure that the scheduler has the backlog plugin; ``False`` when it cannot (no such package there)."""
    from .backlog import NAME, BacklogPlugin  # it imports distributed, which a plan can do without

    try:
        client.register_plugin(BacklogPlugin(), name=NAME)
    except Exception:
        logger.debug("the scheduler takes no backlog plugin", exc_info=True)
        return False
    return True
