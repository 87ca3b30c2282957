"""HTML for notebooks: every text is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape as escape

_STYLE = "border-collapse:collapse;font-size:90%;margin:.3em 0"
_CELL = "padding:.15em .7em;text-align:{align};border-bottom:1px solid rgba(128,128,128,.3)"


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> str:
    """Return an HTML table; numbers are set right, all text is escaped.

    Parameters
    ----------
    header : sequence of str
    rows : iterable of sequences, one per row, as long as ``header``
    title : str, optional
        Caption above the table.
    """

    def cell(tag: str, value: object) -> str:
        align = "right" if isinstance(value, (int, float)) and not isinstance(value, bool) else "left"
        text = f"{value:,}" if align == "right" and isinstance(value, int) else f"{value}"
        return f"<{tag} style='{_CELL.format(align=align)}'>{escape(text)}</{tag}>"

    head = "".join(cell("th", name) for name in header)
    body = "".join("<tr>" + "".join(cell("td", value) for value in row) + "</tr>" for row in rows)
    caption = f"<div><strong>{escape(title)}</strong></div>" if title else ""
    return f"<div>{caption}<table style='{_STYLE}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
