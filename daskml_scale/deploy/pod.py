"""What runs in a Pod of a cluster of ours: the same scheduler or worker as everywhere (`child`), told by a Secret.

``python -P -m daskml_scale.deploy.pod`` reads its `Setup` from the file ``DASKML_SETUP``, which holds certificates and
is a pickle: who may write the Secret decides what runs in the Pod anyway. SIGTERM closes it in good order. Memory is
the kubelet's to watch. It talks to no Kubernetes API and has no token.
"""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import signal
import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from .child import LOST, Setup, run
from .pods import DASHBOARD_PORT, PORT


def fitted(setup: Setup, environ: dict[str, str]) -> Setup:
    """Return a setup with what only its Pod knows: address, name, and folder."""
    address, folder = environ["DASKML_ADDRESS"], environ["DASKML_DIRECTORY"]
    # Pods that are processes of one machine have no localhost of their own; port-forward goes to it in real ones.
    shared = ip_address(address).is_loopback
    options: dict[str, Any] = dict(setup.options)
    if setup.role == "scheduler":
        options["host"] = address if shared else [address, "127.0.0.1"]
        options["port"] = PORT
        options["dashboard_address"] = f"{address if shared else '127.0.0.1'}:{DASHBOARD_PORT}"
    else:
        options.update(
            host=address,
            name=environ["DASKML_NAME"],
            scheduler_ip=environ["DASKML_SCHEDULER"],
            local_directory=folder,
            dashboard_address=f"{address if shared else '127.0.0.1'}:0",
        )
    config = {**setup.config, "temporary-directory": folder}
    return replace(setup, driver=os.getppid(), directory=folder, options=options, config=config)


def main() -> int:
    """Run until it is closed; the exit code says why it ended, see `child`."""
    setup = fitted(pickle.loads(Path(os.environ["DASKML_SETUP"]).read_bytes()), dict(os.environ))
    lifeline, leave = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(leave, b"x"))
    try:
        return asyncio.run(run(setup, lifeline, io.StringIO()))
    except KeyboardInterrupt:
        return LOST
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return LOST


if __name__ == "__main__":
    sys.exit(main())
