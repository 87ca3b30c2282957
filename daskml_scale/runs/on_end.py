"""The command of a workflow that is called when a run has ended: a mail, a message, the next job.

It gets the run as JSON on its standard input and the main facts in its environment. It cannot change how the run
ended: what goes wrong with it is told, and no more. A run that is killed calls nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence

from .state import RunRecord

SECONDS = 60.0
"""Time that it has."""


def call(words: Sequence[str], run: RunRecord, tell: Callable[[str], None], seconds: float = SECONDS) -> None:
    """Call a command about a run that has ended.

    Parameters
    ----------
    words : sequence of str
        No shell reads them; nothing is called when there are none.
    tell : callable
        Receives one line when it did not work.
    """
    if not words or run.live:
        return
    facts = {
        "RUN": run.id, "WORKFLOW": run.workflow, "STATE": run.state, "EXIT_CODE": str(run.exit_code),
        "STORE": run.store, "MESSAGE": run.message,
    }  # fmt: skip
    try:
        done = subprocess.run(
            list(words), input=json.dumps(run.to_dict()), text=True, cwd=run.cwd, timeout=seconds, check=False,
            stdout=2, env={**os.environ, **{f"DASKML_{name}": text for name, text in facts.items()}},
        )  # fmt: skip
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        why = f"it took longer than {seconds:.0f} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        tell(f"on_end: {words[0]}: {why}")
        return
    if done.returncode:
        tell(f"on_end: {words[0]} ended with exit code {done.returncode}")
