"""The command line with scripted stages: ``python driver.py SCRIPTS.json run WORKFLOW ...``; tests kill this process.

SCRIPTS.json maps the names of stages to scripts. SIGUSR1 writes where every thread is.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from harness import DRIVER_MEMORY

from daskml_scale import cli
from daskml_scale.stages.registry import Builder
from daskml_scale.testing.faults import Counted, Script


def main(scripts: str, *words: str) -> int:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    if DRIVER_MEMORY in os.environ:
        # Linux does not enforce this limit; Dask believes it.
        size = int(os.environ[DRIVER_MEMORY]) << 20
        resource.setrlimit(resource.RLIMIT_RSS, (size, size))
    found = {stage: Script.from_dict(data) for stage, data in json.loads(Path(scripts).read_text()).items()}
    build = Builder.build

    def scripted(self: Builder, name: str) -> Any:
        stage = build(self, name)
        return Counted(stage, found[name]) if name in found else stage

    Builder.build = scripted  # type: ignore[method-assign]
    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
