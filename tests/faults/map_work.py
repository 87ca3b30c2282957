"""The function that tests map: it follows the script that its process's environment names."""

from __future__ import annotations

import json
import os
from pathlib import Path

from daskml_scale.testing.faults import Script

SCRIPTS = "DASKML_FAULTS_SCRIPTS"
"""Environment variable: the file of scripts. Not an argument, which would be part of the items' fingerprints."""


def work(item: int) -> dict[str, int]:
    script = Script.from_dict(json.loads(Path(os.environ[SCRIPTS]).read_text())["map"])
    found: dict[str, int] = script.call("map", f"items/{item:08d}", lambda: {"item": item, "square": item * item})
    return found
