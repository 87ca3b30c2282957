"""Preload of schedulers that we start: ``distributed.scheduler.preload: [daskml_scale.dashboard.preload]``.

A scheduler imports its preloads before it builds its dashboard, so the page is part of it from the
beginning. Elsewhere use ``install(client)``. Import this module for its effect only on a scheduler:
it imports Bokeh.
"""

from __future__ import annotations

from typing import Any

from daskml_scale.dashboard import private
from daskml_scale.dashboard.pages import PAGES
from daskml_scale.dashboard.plugin import WorkflowPlugin, install
from daskml_scale.dashboard.state import NAME

__all__ = ["dask_setup", "install"]

private.announce(lambda: PAGES)


async def dask_setup(scheduler: Any) -> None:
    """Add the plugin (the preload hook)."""
    scheduler.add_plugin(WorkflowPlugin(), name=NAME, idempotent=True)  # started with the scheduler's other plugins
