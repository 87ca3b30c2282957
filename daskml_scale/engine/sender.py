"""A kernel on a cluster: how a batch of units becomes a Dask task there. Decides nothing."""

from __future__ import annotations

import hashlib
from typing import Any

from daskml_scale.plan.units import Unit

from . import parcel
from .batches import Batch
from .lookahead import dumped
from .suspects import run_suspects
from .task import Kernel, Limits, OnPayload, run_batch

INLINE_BYTES = 64 * 1024
"""Kernels above this size are placed on the workers once instead of inside each task."""


class Sender:
    """What all tasks of one dispatch have in common.

    Parameters
    ----------
    kernel, shared, resources
        See `dispatch.dispatch`.
    """

    def __init__(self, kernel: Kernel, shared: Any, resources: dict[str, float]) -> None:
        self.blob = parcel.packed((kernel, shared))
        self.digest = hashlib.blake2b(self.blob, digest_size=16).hexdigest()
        self.payload_only, self.resources = isinstance(kernel, OnPayload), resources

    def use(self, client: Any) -> None:
        """Send to the cluster of a client from now on."""
        self.client = client
        self.limit = _result_limit()
        self.forget()

    def forget(self) -> None:
        """Take that the workers that hold the kernel may be gone: it is placed again."""
        self._placed: Any = None

    def place(self) -> None:
        """Place a large kernel on the workers, unless it is there."""
        if len(self.blob) > INLINE_BYTES and self._placed is None:
            self._placed = self.client.scatter(self.blob, broadcast=True, hash=False)

    def content(self, units: list[Unit]) -> bytes:
        """Return units as a task takes them, see `task`; raises as `lookahead.dumped` does."""
        keys = range(len(units)) if self.payload_only else [unit.key for unit in units]
        return dumped((keys, [unit.payload for unit in units], [unit.weight for unit in units]), units)

    def submit(self, key: str, content: bytes, batch: Batch, seconds: float, ahead: bool) -> Any:
        """Send a batch and return its future.

        Parameters
        ----------
        key : str
            Of the task.
        seconds : float
            After which it starts no further unit.
        ahead : bool
            Whether a small result may be sent ahead, see `results`.
        """
        return self.client.submit(
            run_suspects if batch.suspect else run_batch,
            self.blob if self._placed is None else self._placed,
            self.digest,
            content,
            Limits(seconds, self.limit),
            *([self.client.id] if ahead and not batch.suspect else []),
            key=key,
            pure=False,
            resources=self.resources or None,
            workers=[batch.at] if batch.at else None,
            allow_other_workers=bool(batch.at),
            priority=1 if batch.suspect or batch.at else 0,
        )


def _result_limit() -> int:
    from distributed.system import MEMORY_LIMIT

    return int(MEMORY_LIMIT) // 4
