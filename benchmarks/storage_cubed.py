"""Cubed over the same chunks: read, an identity, write; in an environment of its own. A script of `storage`.

Used as its documentation says for one machine: the ``processes`` executor, memory declared. Prints its own seconds; the
start of its processes is among them, as no pool of it stays.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def same(block: Any) -> Any:
    """Return what came."""
    return block


def main() -> None:
    """Copy an array and print ``{"seconds": ...}``."""
    import cubed

    source, target, work, processes = sys.argv[1:]
    options = {"max_workers": int(processes)}
    spec = cubed.Spec(work_dir=work, allowed_mem="1GB", executor_name="processes", executor_options=options)
    began = time.perf_counter()
    array = cubed.from_zarr(source, spec=spec)
    cubed.to_zarr(cubed.map_blocks(same, array, dtype=array.dtype), target)
    print(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
