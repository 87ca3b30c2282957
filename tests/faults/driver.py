"""Runs a workflow with counted (and slowed, and killing) stages; the tests kill this process.

python driver.py WORKFLOW STORE EXECUTIONS CLUSTER [STAGE DELAY [UNIT ATTEMPTS]]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from daskml_scale import api
from daskml_scale.stages.registry import Builder
from daskml_scale.testing.faults import Counted


def main(workflow: str, store: str, folder: str, cluster: str, *script: str) -> None:
    slow, delay = (script[0], float(script[1])) if script else ("", 0.0)
    kills = ((script[2], int(script[3])),) if len(script) > 2 else ()
    build = Builder.build

    def counted(self: Builder, name: str) -> Any:
        mine = name == slow
        return Counted(build(self, name), folder, delay if mine else 0.0, kills if mine else ())

    Builder.build = counted  # type: ignore[method-assign]
    summary = api.run(Path(workflow), store=store, cluster=cluster)
    sys.stdout.write(json.dumps(summary.to_dict()))


if __name__ == "__main__":
    main(*sys.argv[1:])
