"""Cubed over the same chunks: read, an identity, write; in an environment of its own. A script of `storage`.

Used as its documentation says for one machine: the ``processes`` executor, memory declared. Prints its own seconds and
the CPU seconds of itself and its processes, interpreters' starts and imports of the workers included, as it has no pool
that stays.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any


def same(block: Any) -> Any:
    """Return what came."""
    return block


def main() -> None:
    """Copy an array and print ``{"seconds": ..., "CPU s": ...}``."""
    import cubed

    source, target, work, processes = sys.argv[1:]
    options = {"max_workers": int(processes)}
    spec = cubed.Spec(work_dir=work, allowed_mem="1GB", executor_name="processes", executor_options=options)
    began, used = time.perf_counter(), spent()
    array = cubed.from_zarr(source, spec=spec)
    cubed.to_zarr(cubed.map_blocks(same, array, dtype=array.dtype), target)
    print(json.dumps({"seconds": time.perf_counter() - began, "CPU s": spent() - used}))


def spent() -> float:
    """Return the CPU seconds so far of this process and of those that it started and that ended."""
    found = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in found)


if __name__ == "__main__":
    main()
