"""A worker of dask-cuda inside a process of ours: one device, whose data moves to the host when it fills.

dask-cuda's own nanny watches its memory there, and never starts it again: the process of ours ends with the worker, and
the cluster replaces it under a new name, as it does every other worker. Imported inside worker processes only.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from typing import Any

from distributed import Status, Worker

REMEDY = "install it with CUDA's bindings: pip install 'daskml-scale[gpu]', or leave device: out"
RETIRED = "daskml-retired"
"""What a worker gives its nanny as reason when the scheduler retired it."""


class RetiringWorker(Worker):  # type: ignore[misc]
    """Tells its nanny whether it was retired, so that the cluster knows not to replace it."""

    async def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close as ever."""
        if self.status == Status.closing_gracefully:
            kwargs["reason"] = RETIRED
        return await super().close(*args, **kwargs)


def arguments(options: Mapping[str, Any], device: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``dask_cuda.CUDAWorker`` for a worker. Pure.

    Parameters
    ----------
    options : mapping
        Arguments of ``distributed.Worker``.
    device : mapping
        ``memory`` and ``pool``, bytes as text or shares of the device; dask-cuda's defaults where left out.
    """
    kept = {key: value for key, value in options.items() if key not in ("scheduler_ip", "resources")}
    sizes = {"device_memory_limit": device.get("memory"), "rmm_pool_size": device.get("pool")}
    return {
        "dashboard_address": "127.0.0.1:0",  # dask-cuda's own is every address of the machine
        **kept,
        "scheduler": options["scheduler_ip"],
        "resources": ",".join(f"{name}={value:g}" for name, value in options.get("resources", {}).items()),
        "dashboard": False,
        "silence_logs": logging.WARNING,
        **{key: value for key, value in sizes.items() if value is not None},
    }


def worker(options: Mapping[str, Any], device: Mapping[str, Any]) -> CudaWorker | None:
    """Return the worker; ``None`` where dask-cuda does not work and nothing was asked of it.

    Raises
    ------
    RuntimeError
        Where it does not work and ``device`` asks for something.
    """
    try:
        from dask_cuda import CUDAWorker

        return CudaWorker(CUDAWorker(**arguments(options, device), worker_class=RetiringWorker))
    except Exception as error:
        what = f"dask-cuda does not work here ({type(error).__name__}: {error})"
        if device:
            raise RuntimeError(f"{what}; {REMEDY}") from error
        if not isinstance(error, ModuleNotFoundError) or error.name != "dask_cuda":
            logging.getLogger(__name__).warning("%s: the worker goes without it", what)
    return None


class CudaWorker:
    """What `child` needs of a server, of a ``CUDAWorker`` with one device.

    Attributes
    ----------
    retired : bool
        Whether the scheduler retired it.
    """

    def __init__(self, server: Any) -> None:
        self.server, self.retired = server, False
        (self.nanny,) = server.nannies
        self.nanny.handlers["close_gracefully"] = self._note

    def __await__(self) -> Generator[Any, Any, CudaWorker]:
        yield from self.server.__await__()
        self.nanny.instantiate = self._leave
        return self

    @property
    def address(self) -> str:
        """Address of the worker."""
        return str(self.nanny.worker_address)

    async def finished(self) -> None:
        """Wait until the worker is gone."""
        await self.server.finished()

    async def close(self, timeout: float = 5, **_: Any) -> None:
        """End the worker."""
        await self.server.close(timeout=timeout)

    def _note(self, reason: str = "") -> None:
        self.retired |= reason == RETIRED
        self.nanny.close_gracefully(reason=reason)

    async def _leave(self) -> Status:
        """Close the nanny instead of starting its worker again."""
        await self.nanny.close(reason="its cluster replaces it")
        return Status.closed
