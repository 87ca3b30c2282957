"""The numbers of the README: some goals that are kept, and every one that is missed, from the files that are published.

`python -m benchmarks.report` writes them between two marks of the README, together with the page, so that both tell the
same. Nothing here measures.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .results import Goal

README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- measured: written by python -m benchmarks.report -->"
END = "<!-- end of measured -->"
SHOWN = (
    "forest, faster than dask-ml ParallelPostFit",
    "forest, faster than Ray Data",
    "rolling and trailing, faster than pandas by Dask partitions",
    "fits of 100 ms, of joblib loky",
    "100,000 units of 1 us, faster than client.map",
    "100,000 units, nothing changed: seconds",
    "processes left 30 s after kill -9 of the driver",
)
"""Of the goals that are kept, those that tell most in few lines."""


def section(goals: Sequence[Goal], value: dict[Goal, str]) -> str:
    """Return what stands between the marks.

    Parameters
    ----------
    goals : sequence of Goal
    value : dict of Goal to str
        What was measured, as the page writes it.
    """
    kept, missed = ([goal for goal in goals if goal.held is held] for held in (True, False))
    if not kept and not missed:
        return "No measurement is published with this version.\n"
    shown = [goal for name in SHOWN for goal in kept if goal.goal == name]
    lines = ["| area | goal | wanted | measured | |", "|---|---|---|---|---|"]
    for told, word in ((missed, "missed"), (shown, "kept")):
        lines += [f"| {one.area} | {one.goal} | {one.wanted} | {value[one]} | {word} |" for one in told]
    counted = f"Of the goals that are measured {len(kept)} are kept and {len(missed)} missed."
    return (
        f"{counted} All missed ones, and some others (the sign tells which way is good):\n\n" + "\n".join(lines) + "\n"
    )


def written(text: str, told: str) -> str:
    """Return the README with what is told between its marks; as it is where it has none."""
    return re.sub(
        f"({re.escape(BEGIN)}\n).*?({re.escape(END)})",
        lambda found: f"{found[1]}\n{told}\n{found[2]}",
        text,
        flags=re.DOTALL,
    )
