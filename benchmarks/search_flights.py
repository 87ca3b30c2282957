"""ASHA against a full random search over gradient boosting on the real flights: fit seconds, AUC and regret.

``python -m benchmarks.search_flights --seeds 10 --json found.jsonl`` appends a line per seed and skips the seeds that
are there already. A seed takes minutes, on all rows a quarter of an hour; with ``--out FOLDER`` both searches keep
their fits there, and what was stopped goes on where it was. Several may share the file: each takes its part of the
seeds by ``--first``. Trained on the flights before October 2013, judged on those of October, with the features, the
estimator and the space of ``workflows/flights.yaml``. Both have the same 64 settings and fit in one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.api import check
from daskml_scale.search import AshaSearchCV, GridSearchCV
from daskml_scale.spec.workflow import SearchSpec
from daskml_scale.stages.estimator import build_estimator
from daskml_scale.stages.search.spaces import drawn

from .by_hand import matrix
from .common import Counts, Work, least
from .flights import WORKFLOW, frames

TREES, FACTOR, DEEPEST = 200, 4, 16


@cache
def rows(count: int | None = None) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Return features, target and the one split; ``count`` rows spread over the year, or all."""
    import pandas as pd

    flights, weather, planes = frames()
    X = matrix(flights, weather, planes)
    known = flights.arr_delay.notna().to_numpy()
    times = flights.sched.dt.tz_convert("UTC")
    before, until = (times < pd.Timestamp(day, tz="UTC") for day in ("2013-10-01", "2013-11-01"))
    chosen = np.flatnonzero(known & until.to_numpy())
    chosen = chosen if count is None else chosen[:: max(1, len(chosen) // count)]
    train = before.to_numpy()[chosen]
    y = (flights.arr_delay.to_numpy()[chosen] > 15).astype(int)
    return np.ascontiguousarray(X[chosen]), y, [(np.flatnonzero(train), np.flatnonzero(~train))]


def one_seed(
    seed: int, configurations: int, trees: int, count: int | None = None, out: Path | None = None
) -> dict[str, float]:
    """Run both searches; return what they cost and found.

    Parameters
    ----------
    out : Path, optional
        Both keep their fits below it; CPU seconds are those of this process only.
    """
    from threadpoolctl import threadpool_limits

    X, y, cv = rows(count)
    searched = check(WORKFLOW, estimators=False).stages["search"]
    if not isinstance(searched, SearchSpec):
        raise TypeError(f"{WORKFLOW}: search is not what this benchmark is about")
    model, space = build_estimator(searched.estimator, {"max_iter": trees}, 0), searched.space
    common: dict[str, Any] = {"scoring": searched.scoring, "cv": cv, "refit": False}
    asha = AshaSearchCV(
        model, space, n_trials=configurations, resource="max_iter", factor=FACTOR, random_state=seed,
        min_resources=max(1, trees // DEEPEST), out=out and out / f"asha-{seed}", **common,
    )  # fmt: skip
    settings = [{name: [value] for name, value in each.items()} for each in drawn(space, configurations, seed)]
    full = GridSearchCV(model, settings, out=out and out / f"full-{seed}", **common)
    clock = [time.process_time()]
    for each in (asha, full):
        with threadpool_limits(1):
            each.fit(X, y)
        clock.append(time.process_time())
    spent = [float(np.sum(each.cv_results_["mean_fit_time"])) for each in (asha, full)]
    return {
        "seed": seed, "configurations": configurations, "asha seconds": spent[0], "full seconds": spent[1],
        "share": spent[0] / spent[1], "trees share": sum(_trees(asha)) / (configurations * trees),
        "asha CPU s": clock[1] - clock[0], "full CPU s": clock[2] - clock[1],
        "asha AUC": float(asha.best_score_), "full AUC": float(full.best_score_),
        "regret": float(full.best_score_ - asha.best_score_),
    }  # fmt: skip


def _trees(asha: Any) -> list[int]:
    return [int(count) for count in asha.cv_results_["n_resources"]]


def named(configurations: int, seeds: int) -> str:
    """Return the name of the row of `search`."""
    return f"ASHA on flights, {configurations} configurations of gradient boosting, {seeds} seeds: fit seconds"


def work(configurations: int, seeds: int, trees: int, count: int | None) -> Work:
    """Return the row of `search`: all seeds of one, then all of the other, as they were measured seed by seed."""
    found: list[dict[str, float]] = []

    def ours(folder: Path) -> Counts:
        found[:] = [one_seed(seed, configurations, trees, count) for seed in range(seeds)]
        return _told(found, "asha") | {
            "worst regret": round(max(each["regret"] for each in found), 6),
            "mean regret": round(statistics.mean(each["regret"] for each in found), 6),
        }

    def every(folder: Path) -> Counts:
        if not found:
            ours(folder)
        return _told(found, "full")

    from sklearn.ensemble import HistGradientBoostingClassifier

    X, y, _ = rows(count)
    one = least(lambda: HistGradientBoostingClassifier(max_iter=trees).fit(X, y), 1)
    return Work(named(configurations, seeds), ours, {"full random search": every}, one, "one fit with all trees")


def _told(found: Sequence[dict[str, float]], who: str) -> dict[str, float]:
    return {
        "seconds": sum(each[f"{who} seconds"] for each in found),
        "CPU s": sum(each[f"{who} CPU s"] for each in found),
        "AUC": statistics.mean(each[f"{who} AUC"] for each in found),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run the seeds that are missing, print all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_flights", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--configurations", type=int, default=64)
    parser.add_argument("--trees", type=int, default=TREES)
    parser.add_argument("--rows", type=int, default=None, help="fewer rows, spread over the year")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep finished fits there")
    parser.add_argument("--json", type=Path, metavar="FILE", required=True)
    options = parser.parse_args(arguments)
    for seed in range(options.first, options.seeds):
        if seed not in _known(options.json):
            found = one_seed(seed, options.configurations, options.trees, options.rows, options.out)
            with options.json.open("a") as file:
                file.write(json.dumps(found) + "\n")
                file.flush()
                os.fsync(file.fileno())
            print(json.dumps(found), flush=True)
    known = list(_known(options.json).values())
    shares, trees, regrets = ([each[name] for each in known] for name in ("share", "trees share", "regret"))
    print(f"{len(known)} seeds: share of fit seconds {statistics.median(shares):.3f} (goal 0.25), of trees "
          f"{statistics.median(trees):.3f}; regret mean {statistics.mean(regrets):.5f}, median "
          f"{statistics.median(regrets):.5f}, worst {max(regrets):.5f} (goal 0.001)")  # fmt: skip


def _known(path: Path) -> dict[int, dict[str, float]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {int(each["seed"]): each for each in map(json.loads, lines)}


if __name__ == "__main__":
    main()
