"""Where the user's own files of this package lie: registry, logs, named clusters, certificates."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Return the directory of the registry and of the logs: ``$DASKML_SCALE_HOME``, else the user's data directory."""
    if chosen := os.environ.get("DASKML_SCALE_HOME"):
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_data_path

    return user_data_path("daskml-scale", appauthor=False)
