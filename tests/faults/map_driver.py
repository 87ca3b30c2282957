"""A user's own program: ``python map_driver.py OUT CLUSTER ITEMS`` maps over a range; tests kill this process.

Its exit code is the one of the error, as the command line would have it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import sys

from map_work import work

import daskml_scale as dms
from daskml_scale.errors import DaskMLError


def main(out: str, cluster: str, items: str) -> int:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    with contextlib.ExitStack() as stack:
        if cluster != "none":
            stack.enter_context(stack.enter_context(dms.cluster(cluster)).get_client())
        try:
            dms.map(work, range(int(items)), out=out)
        except DaskMLError as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
