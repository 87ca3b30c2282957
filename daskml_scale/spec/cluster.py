"""Cluster definitions as models: worker classes, limits, scaling, dashboard."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .base import ByteSize, Duration, Spec, Version, Word

Count = Annotated[int, Field(ge=0)]
Price = Annotated[float, Field(ge=0)]


class Workers(Spec):
    """Fewest and most workers of a class; ``auto`` is every core."""

    min: Count = 0
    max: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"

    @model_validator(mode="after")
    def _ordered(self) -> Workers:
        if self.max != "auto" and self.min > self.max:
            raise PydanticCustomError(
                "workers", "min {low} is larger than max {high}", {"low": self.min, "high": self.max}
            )
        return self


class WorkerClass(Spec):
    """One class of equal workers.

    Attributes
    ----------
    threads : int
        Tasks that a worker runs at a time (its slots).
    memory : str
        Limit per worker; ``auto`` shares the machine's (or cgroup's) memory.
    resources : mapping
        Dask resources per worker, such as ``{GPU: 1}``.
    price_per_hour : float
        Per worker, any currency.
    startup : str
        First guess of the time from request to ready; measured afterwards.
    """

    workers: Workers = Field(default_factory=Workers)
    threads: Annotated[int, Field(gt=0)] = 1
    memory: ByteSize | Literal["auto"] = "auto"
    resources: dict[Word, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    price_per_hour: Price = 0.0
    startup: Duration = "2s"


class Budget(Spec):
    """Spending caps, in the currency of the prices."""

    per_hour: Annotated[float, Field(gt=0)] | None = None
    total: Annotated[float, Field(gt=0)] | None = None


class Scaling(Spec):
    """How the number of workers follows the backlog."""

    policy: Literal["backlog"] = "backlog"
    horizon: Duration = "30s"
    """Aim to finish the backlog within this time."""
    keep_idle: Duration = "20s"
    """Idle time before a worker may be retired; the largest need of 1.5 times this long is kept."""
    budget: Budget = Field(default_factory=Budget)


def _check_listen(text: Any) -> Any:
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    if not host or any(char.isspace() or char == ":" for char in host) or not (port.isascii() and port.isdigit()):
        raise ValueError(f"{text!r} is not an address; write host:port, such as 127.0.0.1:8787")
    if int(port[:9]) > 65535:
        raise ValueError(f"{text!r}: a port is a number from 0 (any free one) to 65535")
    return text


class Dashboard(Spec):
    """Where the Dask dashboard listens; a taken port means the next free one."""

    listen: Annotated[str, BeforeValidator(_check_listen)] = "127.0.0.1:8787"


class ClusterSpec(Spec):
    """A whole cluster file. Only the ``local`` backend exists yet."""

    version: Version
    name: Word
    backend: Literal["local"]
    classes: Annotated[dict[Word, WorkerClass], Field(min_length=1)]
    scaling: Scaling | None = None
    dashboard: Dashboard = Field(default_factory=Dashboard)
