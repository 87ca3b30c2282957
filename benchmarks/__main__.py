"""``python -m benchmarks [MODULE ...]``: run the benchmarks and print one table each."""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .common import Bench, as_json
from .machine import load, machine
from .tables import table

MODULES = ("clusters", "dispatch", "features", "inference", "ingest", "planning", "predict", "search", "storage")


def run(names: Sequence[str], size: str, repeat: int, only: str = "", into: Path | None = None) -> dict[str, Any]:
    """Run modules, print their tables, and return all results as JSON values; each is also written into a folder."""
    about = {"size": size, "repeat": repeat, **machine()}
    print(f"{size}, {repeat} rounds; {about['cores']} cores, {about['memory_gib']} GiB, Python {about['python']}")
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    print("Medians; `ours / peer` is formed within each round (lowest-highest), above 1 we are slower; worst first.")
    results = {}
    with tempfile.TemporaryDirectory(prefix="daskml-bench-") as folder, ExitStack() as stack:
        bench = Bench(size, repeat, Path(folder), stack, only)
        for name in names:
            module = importlib.import_module(f"benchmarks.{name}")
            before, started = load(), time.perf_counter()
            rows = module.measure(bench)
            seconds = round(time.perf_counter() - started, 1)
            results[name] = {"seconds": seconds, "load_before": before, "rows": as_json(rows)}
            title = str(module.__doc__).splitlines()[0]
            print(f"\n{name}: {title} ({seconds} s, load before {before})\n{table(rows)}", flush=True)
            if into is not None and rows:
                _write({**about, "modules": {name: results[name]}}, into / f"{name}.json")
    return {**about, "modules": results}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"{', '.join(MODULES)}; all by default")
    parser.add_argument("--size", choices=("toy", "small", "full"), default="small", help="toy is for the tests")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; default 3")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the works whose name holds this")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--folder", type=Path, help="write a file per module there, each as soon as it is measured")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.modules) - set(MODULES))
    if unknown or options.repeat < 1:
        parser.error(f"no module {unknown[0]}; there are {', '.join(MODULES)}" if unknown else "--repeat: at least 1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    results = run(options.modules or MODULES, options.size, options.repeat, options.only, options.folder)
    if not any(found["rows"] for found in results["modules"].values()):
        parser.error(f"--only {options.only!r}: no work's name holds it")
    if options.json:
        _write(results, options.json)


def _write(results: dict[str, Any], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
