"""How far predicted rows are from the rows of training: PSI, KS, missing values; what is too far. Pure.

Both are counts in the same bins. The population stability index takes the rarest bins together and adds
half a row to each, so an empty bin is no infinity. The Kolmogorov-Smirnov distance is taken at the edges of
the bins: a lower bound, at most one bin's share (5 %) below the true one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PSI_BINS = 10
MEASURES = ("psi", "ks", "missing", "prediction")


@dataclass(frozen=True)
class Limits:
    """Above which value a measure is told, and above which it fails; ``None`` is never.

    Attributes
    ----------
    psi, ks : (warn, fail)
        Of each feature.
    missing : (warn, fail)
        Rise of a feature's share of missing values.
    prediction : (warn, fail)
        PSI of the predictions.
    """

    psi: tuple[float | None, float | None] = (0.25, None)
    ks: tuple[float | None, float | None] = (None, None)
    missing: tuple[float | None, float | None] = (0.05, None)
    prediction: tuple[float | None, float | None] = (0.25, None)


def psi(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Return the population stability index of counts in the same bins: 0 when alike, above 0.25 much apart."""
    one, two = np.asarray(expected, "float64"), np.asarray(actual, "float64")
    there = one + two > 0
    wanted, found = _merged(one[there], two[there])
    if not wanted.sum() or not found.sum():
        return 0.0
    p = (wanted + 0.5) / (wanted + 0.5).sum()
    q = (found + 0.5) / (found + 0.5).sum()
    return float(np.sum((q - p) * np.log(q / p)))


def _merged(expected: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Merge neighbours until there are few bins, the rarest pair in training first."""
    one, two = expected.tolist(), actual.tolist()
    while len(one) > PSI_BINS:
        at = min(range(len(one) - 1), key=lambda place: one[place] + one[place + 1])
        for counts in (one, two):
            counts[at : at + 2] = [counts[at] + counts[at + 1]]
    return np.asarray(one), np.asarray(two)


def ks(expected: Sequence[int], actual: Sequence[int]) -> float:
    """Return the largest distance of the two distribution functions at the edges of the bins, 0 to 1."""
    wanted, found = np.asarray(expected, "float64"), np.asarray(actual, "float64")
    if not wanted.sum() or not found.sum():
        return 0.0
    return float(np.abs(np.cumsum(wanted) / wanted.sum() - np.cumsum(found) / found.sum()).max())


def compared(entry: Mapping[str, Any], counts: Sequence[int], rows: int) -> dict[str, Any]:
    """Return one line of the report: a column of the profile against what was seen.

    Parameters
    ----------
    entry : mapping
        ``name``, ``edges``, ``counts``, ``missing`` of training.
    counts : sequence of int
        Missing first, then one per bin.
    rows : int
        Rows seen.
    """
    trained = entry["missing"] + sum(entry["counts"])
    seen = sum(counts)
    return {
        "name": entry["name"],
        "psi": psi(entry["counts"], counts[1:]),
        "ks": ks(entry["counts"], counts[1:]),
        "missing": counts[0] / seen if seen else 0.0,
        "missing_in_training": entry["missing"] / trained if trained else 0.0,
        "edges": list(entry["edges"]),
        "expected": list(entry["counts"]),
        "actual": list(counts[1:]),
    }


def report(profile: Mapping[str, Any], method: str, seen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole comparison: ``features`` and ``predictions``, most different first, and ``slices``.

    Slices are compared with all rows of training: they say where predictions differ, and are not judged.
    """
    whole = _lines(profile, method, seen)
    slices = {
        column: [
            {"value": value, "rows": part["rows"], **_short(_lines(profile, method, part))}
            for value, part in values.items()
        ]
        for column, values in seen.get("slices", {}).items()
    }
    return {"rows": seen["rows"], "rows_in_training": profile["rows"], "method": method, **whole, "slices": slices}


def _lines(profile: Mapping[str, Any], method: str, seen: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    rows, outputs = seen["rows"], profile["outputs"].get(method, ())
    features = [
        compared(entry, counts, rows) for entry, counts in zip(profile["features"], seen["features"], strict=False)
    ]
    predictions = [compared(entry, counts, rows) for entry, counts in zip(outputs, seen["outputs"], strict=False)]
    return {"features": sorted(features, key=lambda line: -line["psi"]), "predictions": predictions}


def _short(lines: Mapping[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    kept = ("name", "psi", "ks", "missing")
    return {kind: [{key: line[key] for key in kept} for line in found] for kind, found in lines.items()}


def judged(found: Mapping[str, Any], limits: Limits) -> tuple[list[str], list[str]]:
    """Return what is above its limits, as text: to be told, and failed."""
    told: list[str] = []
    failed: list[str] = []
    for line in found["features"]:
        rise = line["missing"] - line["missing_in_training"]
        _judge(f"{line['name']}: PSI", line["psi"], limits.psi, told, failed)
        _judge(f"{line['name']}: KS", line["ks"], limits.ks, told, failed)
        _judge(f"{line['name']}: share of missing values rose by", rise, limits.missing, told, failed)
    for line in found["predictions"]:
        name = f"predictions ({line['name']})" if len(found["predictions"]) > 1 else "predictions"
        _judge(f"{name}: PSI", line["psi"], limits.prediction, told, failed)
    return told, failed


def _judge(
    what: str, value: float, limit: tuple[float | None, float | None], told: list[str], failed: list[str]
) -> None:
    warn, fail = limit
    if fail is not None and value > fail:
        failed.append(f"{what} {value:.3f}, more than {fail:g}")
    elif warn is not None and value > warn:
        told.append(f"{what} {value:.3f}, more than {warn:g}")
