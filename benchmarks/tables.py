"""Results as a table on the screen; `report` makes the pages."""

from __future__ import annotations

from collections.abc import Sequence

from .common import Counts, Row


def table(rows: Sequence[Row]) -> str:
    """Return rows as a table: seconds are medians, the ratio shows its spread."""
    lines = [("work", "peer", "ours", "peer's", "ours / peer", "limit", "counts")]
    for row in rows:
        peer = row.peer if row.scaled == 1 else f"{row.peer} (x{row.scaled:g} scaled)"
        counts = [f"{who} {counted(found)}" for who, found in row.counts.items() if found]
        spread = f"{row.ratio.median:.2f} ({row.ratio.min:.2f}-{row.ratio.max:.2f})"
        seconds = (brief(row.ours.median), brief(row.theirs.median))
        lines.append((row.work, peer, *seconds, spread, brief(row.limit), "; ".join(counts)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    works = {row.work: row.limit_is for row in rows}
    limits = [
        f"limit of {' | '.join(work for work, found in works.items() if found == meaning)}: {meaning}"
        for meaning in dict.fromkeys(works.values())
    ]
    return "\n".join([text[0], "-" * len(text[0]), *text[1:], *limits])


def counted(found: Counts) -> str:
    """Return counts as one cell."""
    return ", ".join(
        f"{value:,.0f} {name}" if value == round(value) else f"{value:.3g} {name}" for name, value in found.items()
    )


def brief(value: float) -> str:
    """Return seconds in the unit that suits them."""
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} us"
