"""Plots of simulated runs and of drift as a file: a page of HTML that needs no network, or a PNG drawn by a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daskml_scale.errors import UsageError
from daskml_scale.html import save_figure

WIDTH, HEIGHT = 720, 260
WORST = 11
"""Features of a plot of drift: those that differ most."""
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB")
"""Paul Tol's bright scheme, told apart by people who see fewer colours."""


def scaling_plot(
    path: Path, rows: Sequence[Mapping[str, Any]], timelines: Mapping[int, Sequence[tuple[float, int, int, int]]]
) -> None:
    """Write time and cost by the maximum of workers, and the workers of each simulated run over time.

    Parameters
    ----------
    path : Path
        Ends in ``.html`` or ``.png``.
    rows : sequence of mapping
        With ``maximum``, ``seconds``, ``worker_hours``.
    timelines : mapping of maximum to (time, workers, ready, busy slots)

    Raises
    ------
    UsageError
        For another ending, a folder that is not there, or a PNG where no browser is installed.
    """
    from bokeh.layouts import column
    from bokeh.models import Range1d
    from bokeh.plotting import figure

    _check(path)
    maxima = [row["maximum"] for row in rows]
    size: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "toolbar_location": None}
    time = figure(title="time until the end", x_axis_type="log", x_axis_label="most workers", **size)
    time.line(maxima, [row["seconds"] for row in rows], color=COLOURS[0], line_width=2)
    time.scatter(maxima, [row["seconds"] for row in rows], color=COLOURS[0], size=7)
    time.yaxis.axis_label = "seconds"
    paid = figure(title="paid for", x_axis_type="log", x_axis_label="most workers", x_range=time.x_range, **size)
    paid.line(maxima, [row["worker_hours"] for row in rows], color=COLOURS[1], line_width=2)
    paid.scatter(maxima, [row["worker_hours"] for row in rows], color=COLOURS[1], size=7)
    paid.yaxis.axis_label = "worker-hours"
    over = figure(title="workers over time", x_axis_label="seconds", y_axis_label="workers", **size)
    for number, (maximum, line) in enumerate(timelines.items()):
        colour = COLOURS[number % len(COLOURS)]
        times = [point[0] for point in line]
        over.step(times, [point[1] for point in line], mode="after", color=colour, legend_label=f"at most {maximum:,}")
    for plot in (time, paid):
        plot.y_range = Range1d(0, 1.1 * max((_tops(plot)), default=1.0))
    _write(path, column(time, paid, over), "scaling")


def drift_plot(path: Path, found: Mapping[str, Any]) -> None:
    """Write how predictions and features were distributed in training, and in the rows predicted: the worst features.

    Parameters
    ----------
    path : Path
        Ends in ``.html`` or ``.png``.
    found : mapping
        As ``dms.drift`` returns it.

    Raises
    ------
    UsageError
        As of :func:`scaling_plot`.
    """
    from bokeh.layouts import gridplot

    _check(path)
    lines = [*found["predictions"], *found["features"][:WORST]]
    plots = [
        _bins(line, f"{'predictions: ' * (place < len(found['predictions']))}") for place, line in enumerate(lines)
    ]
    _write(path, gridplot(plots, ncols=2, toolbar_location=None), "drift")


def _bins(line: Mapping[str, Any], what: str) -> Any:
    """Return a figure of the shares of the bins of training, side by side with those of the rows predicted."""
    from bokeh.models import HoverTool
    from bokeh.plotting import figure

    edges = [f"{edge:.4g}" for edge in line["edges"]]
    names = [f"{low} to {high}" for low, high in zip(["lowest", *edges], [*edges, "highest"], strict=True)]
    title = f"{what}{line['name']}: PSI {line['psi']:.3f}, KS {line['ks']:.3f}"
    missing = f"missing {line['missing']:.1%}, in training {line['missing_in_training']:.1%}"
    plot = figure(title=title, width=WIDTH // 2, height=HEIGHT, x_axis_label=f"bins of training; {missing}")
    for place, (key, label) in enumerate((("expected", "training"), ("actual", "predicted"))):
        total = max(1, sum(line[key]))
        shares = [count / total for count in line[key]]
        source = {"x": [at + 0.4 * place for at in range(len(shares))], "share": shares, "bin": names[: len(shares)]}
        plot.vbar(x="x", top="share", width=0.4, color=COLOURS[place], legend_label=label, source=source)
    plot.xaxis.major_label_text_font_size = "0px"
    plot.xaxis.major_tick_line_color = plot.xaxis.minor_tick_line_color = None
    plot.y_range.start = 0
    plot.add_tools(HoverTool(tooltips=[("bin", "@bin"), ("share", "@share{0.0%}")]))
    return plot


def _check(path: Path) -> None:
    if path.suffix not in (".html", ".png"):
        raise UsageError(f"--plot {path}: a plot is written as .html or .png")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: there is no folder {path.parent}")


def _tops(plot: Any) -> list[float]:
    return [max(renderer.data_source.data["y"]) for renderer in plot.renderers]


def _write(path: Path, page: Any, title: str) -> None:
    try:
        save_figure(path, page, title)
    except OSError as error:
        raise UsageError(f"--plot {path}: it cannot be written ({error.strerror or error})") from error
    except RuntimeError as error:
        raise UsageError(
            f"--plot {path}: a PNG is drawn by a browser through selenium ({error}); write .html"
        ) from error
