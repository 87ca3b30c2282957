"""What the report of a run shows of its data: profiles of validated tables, and how predictions are distributed.

Both lie in the store, written by the stages ``validate`` and ``monitor``. Histograms are drawn as SVG in the page,
which loads nothing. A store that is gone, or holds neither, adds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from daskml_scale.errors import DaskMLError
from daskml_scale.html import Raw, escape, table
from daskml_scale.storage import files, stores

PROFILE, DRIFT = "profile", "drift"
_KINDS = {"validate": PROFILE, "monitor": DRIFT}
"""Stage kind -> the document that it leaves beside its ledger."""
MOST = 30
"""Columns, features and pairs of columns in a table of the page; all are in the documents."""
WIDTH, HEIGHT = 160, 28
_COLOURS = ("#8aa", "#c64")


def documents(store: str, stages: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return ``profile`` and ``drift``: name of the stage -> its document, where it left one.

    Parameters
    ----------
    store : str
        URL.
    stages : iterable of mapping
        ``name`` and ``kind`` of the stages of a run.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in _KINDS.values()}
    for stage in stages:
        document = _KINDS.get(stage["kind"])
        if document is None:
            continue
        try:
            content = stores.get_json(files.join(store, f"{stage['name']}.zarr"), document)
        except DaskMLError:
            continue
        if content is not None:
            found[document][stage["name"]] = content
    return found


def sections(found: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """Yield the HTML of what `documents` found: ``data`` of a report."""
    data = found.get("data", {})
    for stage, profile in data.get(PROFILE, {}).items():
        yield f"<h2>The table that {escape(stage)} looked at: {profile['rows']:,} rows</h2>"
        yield from _profile(profile)
    for stage, drift in data.get(DRIFT, {}).items():
        yield f"<h2>Distributions seen by {escape(stage)}, beside those of training</h2>"
        yield from _drift(drift)


def _profile(profile: Mapping[str, Any]) -> Iterable[str]:
    columns = list(profile["columns"].items())
    rows = [
        (name, each["kind"], f"{each['missing_share']:.2%}", _extent(each), _shape(each))
        for name, each in columns[:MOST]
    ]
    yield table(("column", "kind", "missing", "values", "distribution"), rows)
    if len(columns) > MOST:
        yield f"<p>{len(columns) - MOST:,} more columns are in the profile.</p>"
    pairs = list(_pairs(profile["correlations"]))
    if pairs:
        yield table(("columns that go together", "correlation"), [(pair, f"{value:+.3f}") for pair, value in pairs])


def _extent(column: Mapping[str, Any]) -> str:
    if column["kind"] == "category":
        return f"{column['distinct']:,} categories"
    if column["kind"] == "time":
        return f"{column['first']} to {column['last']}"
    if column.get("mean") is None:
        return "none"
    return f"{column['min']:.6g} to {column['max']:.6g}, mean {column['mean']:.6g}, deviation {column['std']:.4g}"


def _shape(column: Mapping[str, Any]) -> Raw | str:
    if column["kind"] == "category":
        return ", ".join(f"{label}: {count:,}" for label, count in column["top"][:5])
    if "histogram" not in column:
        return ""
    names = [f"from {edge:.4g}" for edge in column["histogram"]["edges"]]
    return bars([column["histogram"]["counts"]], names)


def _pairs(correlations: Mapping[str, Any]) -> Iterable[tuple[str, float]]:
    """Return the pairs of columns that go together most, strongest first."""
    names, values = correlations["columns"], correlations["values"]
    found = [
        (f"{names[one]}, {names[other]}", values[one][other])
        for one in range(len(values))
        for other in range(one)
        if values[one][other] is not None
    ]
    return sorted(found, key=lambda pair: (-abs(pair[1]), pair[0]))[:MOST]


def _drift(drift: Mapping[str, Any]) -> Iterable[str]:
    lines = [*((f"prediction {line['name']}", line) for line in drift["predictions"]),
             *((line["name"], line) for line in drift["features"])]  # fmt: skip
    rows = [(name, bars([line["expected"], line["actual"]], _bins(line["edges"]))) for name, line in lines[:MOST]]
    yield f"<p>{drift['rows']:,} rows predicted, {drift['rows_in_training']:,} of training. Left bars: training.</p>"
    yield table(("predictions and features", "share of each bin"), rows)


def _bins(edges: Sequence[float]) -> list[str]:
    texts = [f"{edge:.4g}" for edge in edges]
    return [f"{low} to {high}" for low, high in zip(["lowest", *texts], [*texts, "highest"], strict=True)]


def bars(series: Sequence[Sequence[int]], names: Sequence[str]) -> Raw:
    """Return bars as SVG: the share of every bin, the series side by side; the name of a bin is its tooltip."""
    width = WIDTH / max(1, max(map(len, series), default=1) * len(series))
    shares = [[count / max(1, sum(counts)) for count in counts] for counts in series]
    top = max((share for each in shares for share in each), default=0.0) or 1.0
    parts = []
    for number, each in enumerate(shares):
        for place, share in enumerate(each):
            x, y = (place * len(series) + number) * width, HEIGHT * (1 - share / top)
            name = escape(names[place]) if place < len(names) else ""
            parts.append(
                f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(width - 0.5, 0.5):.1f}' height='{HEIGHT - y:.1f}' "
                f"fill='{_COLOURS[number % 2]}'><title>{name}: {share:.1%}</title></rect>"
            )
    return Raw(f"<svg width='{WIDTH}' height='{HEIGHT}' role='img'>{''.join(parts)}</svg>")
