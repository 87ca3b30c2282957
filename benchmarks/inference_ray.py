"""Ray Data over the same chunks: an actor pool, in an environment of its own. A script of `inference`.

Prints its own seconds: Ray starts before the clock, as our cluster does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> None:
    """Predict all chunks and print ``{"seconds": ..., "CPU s": ...}``."""
    import ray
    from threadpoolctl import threadpool_limits

    from benchmarks import inference_bare as bare

    url, out, path, rows, chunk, actors = sys.argv[1:]
    size, pool = int(chunk), int(actors)

    class Predict:
        def __init__(self) -> None:
            self.limit = threadpool_limits(1)
            self.model, self.arrays = bare.loaded(path), bare.opened(url, out)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            for start in batch["start"]:
                bare.one(self.arrays, self.model, "predict_proba", int(start), size)
            return {"start": batch["start"]}

    # Workers inherit the environment; a runtime environment of Ray needs more than its core is installed with.
    os.environ["PYTHONPATH"] = ":".join(filter(None, sys.path))
    ray.init(num_cpus=pool + 2, include_dashboard=False, log_to_driver=False)
    starts = [{"start": start} for start in range(0, int(rows), size)]
    began, used = time.perf_counter(), cpu()
    data = ray.data.from_items(starts, override_num_blocks=len(starts))
    done = data.map_batches(Predict, batch_size=1, concurrency=pool).count()
    seconds, used = time.perf_counter() - began, cpu() - used
    assert done == len(starts), done
    print(json.dumps({"seconds": seconds, "CPU s": used}))


def cpu() -> float:
    """Return the CPU seconds so far of this process and all below it, Ray's own among them."""
    process = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


if __name__ == "__main__":
    main()
