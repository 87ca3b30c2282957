"""Small results travel with the message that says that their task is done.

Dask brings a result on request: driver, scheduler, worker, and all the way back, with as many threads woken on cores
that compute. So a worker sends a small result down its stream to the scheduler just before the task is reported done,
and the backlog plugin passes it on to the driver in the same order: when the future is done the result is there. The
worker keeps it as well, and a driver that missed it (the connection was new, the plugin is not there) asks as ever.
"""

from __future__ import annotations

import contextlib
from typing import Any

OPERATION = "daskml-result"
"""Of the message, on both streams."""
SMALL = 64 * 1024
"""Bytes up to which a result is sent ahead."""


def send_ahead(worker: Any, client: str, result: tuple[str, bytes]) -> None:
    """Send the result of the task that runs in this thread of a Dask worker to the driver with that id."""
    if client and len(result[1]) <= SMALL:
        message = {"op": OPERATION, "client": client, "key": worker.get_current_task(), "result": list(result)}
        worker.loop.add_callback(worker.batched_send, message)


def pass_on(scheduler: Any, client: str, key: str, result: Any) -> None:
    """Send a result from a worker's stream on to its driver, if that is still there."""
    comm = scheduler.client_comms.get(client)
    if comm is not None:
        with contextlib.suppress(OSError):  # it is on its way out
            comm.send({"op": OPERATION, "key": key, "result": result})


class Arrivals:
    """The results that were sent ahead to one client. Everything but `expect` is called on its event loop."""

    def __init__(self) -> None:
        self._results: dict[str, Any] = {}

    @classmethod
    def of(cls, client: Any) -> Arrivals:
        """Return those of a client; the first call makes it listen."""
        found: Arrivals = client._stream_handlers.setdefault(OPERATION, cls())
        return found

    def __call__(self, key: str, result: Any) -> None:
        """Take a message of the scheduler; nobody may wait for it any more."""
        if key in self._results:
            self._results[key] = tuple(result)

    def expect(self, key: str) -> None:
        """Keep the result of a task when it comes, until `fetch` is over."""
        self._results[key] = None

    async def fetch(self, future: Any) -> Any:
        """Wait until a task is done; return its result, or raise as ``Client.gather`` does."""
        try:
            await future._state.wait()
            result = self._results.get(future.key) if future.status == "finished" else None
            return await future.client.gather(future, asynchronous=True) if result is None else result
        finally:
            self._results.pop(future.key, None)
