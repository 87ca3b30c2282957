"""ASHA against a full random search over gradient boosting on the real flights: fit seconds, AUC and regret.

``python -m benchmarks.search_flights --seeds 10 --json found.jsonl --out FOLDER`` appends a line per seed and skips the
seeds that are there already; what was stopped goes on where it was. Trained on the flights before October 2013, judged
on those of October, with the features, the estimator and the space of ``workflows/flights.yaml``.

A seed is 64 of `POOL` settings, drawn by scikit-learn's ``ParameterSampler`` for both searches. All seeds share one
``out=``: a fit that an earlier seed made is taken from there with the seconds that it took then, so that ten seeds cost
little more than the pool once. Seeds are therefore not independent of each other; ours and the peer see the same ones.

What grows is trees, from an eleventh of them: why is in docs/reference/search.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.api import check
from daskml_scale.errors import DaskMLError
from daskml_scale.search import AshaSearchCV, RandomizedSearchCV
from daskml_scale.spec.workflow import SearchSpec
from daskml_scale.stages.estimator import build_estimator
from daskml_scale.stages.search.spaces import drawn

from .by_hand import matrix
from .common import Counts, Row, Spread, Work, as_json, least, two_workers
from .flights import WORKFLOW, frames
from .machine import machine

TREES, FACTOR, DEEPEST, POOL = 200, 3.33, 11, 96


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


def one_seed(seed: int, configurations: int, trees: int, count: int | None, out: Path, client: Any) -> dict[str, float]:
    """Run both searches; return what they cost and found. Both keep their fits below ``out``."""
    X, y, cv = rows(count)
    searched = check(WORKFLOW, estimators=False).stages["search"]
    if not isinstance(searched, SearchSpec):
        raise TypeError(f"{WORKFLOW}: search is not what this benchmark is about")
    model = build_estimator(searched.estimator, {"max_iter": trees}, 0)
    pool = [
        {name: [value] for name, value in each.items()} for each in drawn(searched.space, max(POOL, configurations), 0)
    ]
    common: dict[str, Any] = {
        "scoring": searched.scoring, "cv": cv, "refit": False, "random_state": seed, "client": client
    }  # fmt: skip
    asha = AshaSearchCV(
        model, pool, n_trials=configurations, resource="max_iter", min_resources=max(1, trees // DEEPEST),
        factor=FACTOR, out=out / "asha", **common,
    ).fit(X, y)  # fmt: skip
    full = RandomizedSearchCV(model, pool, n_iter=configurations, out=out / "full", **common).fit(X, y)
    if not _same(asha.cv_results_["params"], full.cv_results_["params"]):
        raise DaskMLError(f"seed {seed}: the two searches did not try the same settings")
    spent = [float(np.sum(each.cv_results_["mean_fit_time"])) for each in (asha, full)]
    grown = int(np.sum(asha.cv_results_["n_resources"]))
    return {
        "seed": seed, "configurations": configurations, "asha seconds": spent[0], "full seconds": spent[1],
        "share": spent[0] / spent[1], "trees share": grown / (configurations * trees),
        "asha AUC": float(asha.best_score_), "full AUC": float(full.best_score_),
        "regret": float(full.best_score_ - asha.best_score_),
    }  # fmt: skip


def _same(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> bool:
    first, second = (
        {tuple(sorted((name, value) for name, value in each.items() if name != "max_iter")) for each in settings}
        for settings in (ours, theirs)
    )
    return first == second


def named(configurations: int, seeds: int) -> str:
    """Return the name of the row of `search`."""
    return f"ASHA on flights, {configurations} configurations of gradient boosting, {seeds} seeds: fit seconds"


def work(configurations: int, seeds: int, trees: int, count: int | None, client: Any) -> Work:
    """Return the row of `search`: all seeds of one, then all of the other, as they were measured seed by seed."""
    found: list[dict[str, float]] = []

    def ours(folder: Path) -> Counts:
        found[:] = [one_seed(seed, configurations, trees, count, folder, client) for seed in range(seeds)]
        return _told(found, "asha") | _regrets(found)

    def every(folder: Path) -> Counts:
        if not found:
            ours(folder)
        return _told(found, "full")

    from sklearn.ensemble import HistGradientBoostingClassifier

    X, y, _ = rows(count)
    one = least(lambda: HistGradientBoostingClassifier(max_iter=trees).fit(X, y), 1)
    return Work(named(configurations, seeds), ours, {"full random search": every}, one, "one fit with all trees")


def _regrets(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {
        "worst regret": round(max(each["regret"] for each in found), 6),
        "mean regret": round(statistics.mean(each["regret"] for each in found), 6),
        "share of trees": round(statistics.mean(each["trees share"] for each in found), 4),
    }


def _told(found: Sequence[dict[str, float]], who: str) -> dict[str, float]:
    return {
        "seconds": sum(each[f"{who} seconds"] for each in found),
        "AUC": statistics.mean(each[f"{who} AUC"] for each in found),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, run the seeds that are missing, print all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_flights", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--configurations", type=int, default=64)
    parser.add_argument("--trees", type=int, default=TREES)
    parser.add_argument("--rows", type=int, default=None, help="fewer rows, spread over the year")
    parser.add_argument("--out", type=Path, metavar="FOLDER", required=True, help="keep finished fits there")
    parser.add_argument("--json", type=Path, metavar="FILE", required=True)
    parser.add_argument("--result", type=Path, metavar="FILE", help="write all seeds as a row for benchmarks.report")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        client = stack.enter_context(two_workers())
        for seed in range(options.seeds):
            if seed not in _known(options.json):
                found = one_seed(seed, options.configurations, options.trees, options.rows, options.out, client)
                with options.json.open("a") as file:
                    file.write(json.dumps(found) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                print(json.dumps(found), flush=True)
    known = list(_known(options.json).values())
    shares, parts, regrets = ([each[name] for each in known] for name in ("share", "trees share", "regret"))
    print(f"{len(known)} seeds: share of fit seconds {statistics.median(shares):.3f} (goal 0.25), of trees "
          f"{statistics.median(parts):.3f}; regret mean {statistics.mean(regrets):.5f}, median "
          f"{statistics.median(regrets):.5f}, worst {max(regrets):.5f} (goal 0.001)")  # fmt: skip
    if options.result:
        row = as_json([_row(known, options.configurations)])
        about = {"size": "full", "repeat": len(known), **machine()}
        options.result.write_text(json.dumps({**about, "modules": {"search": {"rows": row}}}, indent=1) + "\n")


def _row(seeds: Sequence[dict[str, float]], configurations: int) -> Row:
    """Return all seeds as one row; a round is a seed, its seconds those of its fits."""
    ours, theirs = ([each[f"{who} seconds"] for each in seeds] for who in ("asha", "full"))
    best = min(theirs) / configurations
    return Row(
        named(configurations, len(seeds)), "full random search", Spread.of(ours), Spread.of(theirs),
        Spread.of([each["share"] for each in seeds]), best, "one fit with all trees, in the mean", 1.0,
        {"ours": _regrets(seeds), "peer": {}},
    )  # fmt: skip


def _known(path: Path) -> dict[int, dict[str, float]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {int(each["seed"]): each for each in map(json.loads, lines)}


if __name__ == "__main__":
    main()
