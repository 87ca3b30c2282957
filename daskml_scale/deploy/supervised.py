"""A process that runs `child`, wherever it is: what is known of it, and how it is waited for and closed.

All state changes happen on the event loop. A subclass starts the process, reports its answer and its end, and says
how it is asked to close and how it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping

from distributed.core import Status
from distributed.deploy.spec import ProcessInterface

from daskml_scale.errors import ClusterError

from .child import CLOSED, Setup

START_SECONDS = 120.0
"""A process that has not answered by then has failed to start."""
GRACE_SECONDS = 5.0
"""Time that a process has to close by itself."""


class Supervised(ProcessInterface):  # type: ignore[misc]
    """A process of `child`, wherever it runs, and what is known of it.

    Attributes
    ----------
    name : str
    address : str or None
        Known once it answered.
    failure : str
        Why it did not start.
    code : int or None
        Exit code, negative for a signal; ``None`` while it runs.
    """

    start_seconds = START_SECONDS

    def __init__(self, setup: Setup, name: str, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(name=name)
        self.setup, self.name, self.environ = setup, name, dict(environ or {})
        self.failure = ""
        self.code: int | None = None
        self._answered = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def ready(self) -> bool:
        """Whether it answered that it runs, and has not ended."""
        return bool(self.address) and self.code is None

    @property
    def dismissed(self) -> bool:
        """Whether it closed in good order: asked to, or retired by the scheduler."""
        return self.code == CLOSED

    @property
    def begun(self) -> bool:
        """Whether there is, or soon will be, a process to end."""
        return bool(self.status != Status.created)

    def _on_answer(self, line: bytes) -> None:
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            self.address, self.failure = message.get("address"), message.get("error", "")
        if self.address:
            self._answered.set()

    def _on_end(self, code: int) -> None:
        self.code = code
        if not self.address and not self.failure:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            self.failure = f"the process {how} before it was ready; {self.last_words()}"
        self.status = Status.closed
        self._answered.set()
        self._ended.set()
        self._event_finished.set()
        self.on_end()

    def on_end(self) -> None:
        """Do something when the process is gone."""

    def last_words(self) -> str:
        """Return where it may have said why it ended."""
        return "what it wrote to stderr says why"

    async def wait_ready(self) -> None:
        """Wait until the process runs.

        Raises
        ------
        ClusterError
            If it ended or did not answer in time.
        """
        try:
            await asyncio.wait_for(self._answered.wait(), self.start_seconds)
        except TimeoutError:
            self.failure = f"it did not answer within {self.start_seconds:g} s"
            self.kill()
        if self.failure:
            raise ClusterError(f"{self.name}: {self.failure}")

    async def close(self) -> None:
        """Ask the process to close, end it when it does not, return when it is gone."""
        if self.begun and self.code is None:
            self.status = Status.closing
            if not self.address or not self._ask():
                self.kill()
            try:
                await asyncio.wait_for(self._ended.wait(), GRACE_SECONDS)
            except TimeoutError:
                self.kill()
                await self._ended.wait()
        if self.status != Status.failed:
            await super().close()

    def _ask(self) -> bool:
        """Ask it to close; return whether the request was sent."""
        return False

    def kill(self) -> None:
        """End the process and everything it started, now."""
