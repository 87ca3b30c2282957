"""HTML for notebooks, every text escaped here and nowhere else; Bokeh's figures as files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape as escape
from pathlib import Path
from typing import Any

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


def save_figure(path: Path, figure: Any, title: str) -> None:
    """Write a Bokeh figure or layout as one ``.html`` that loads nothing, or as a ``.png``.

    Raises
    ------
    OSError
        When the file cannot be written.
    RuntimeError
        When a PNG is asked for, and there is no selenium, no chromium and chromedriver, or they do not start.
    """
    if path.suffix == ".html":
        from bokeh.embed import file_html
        from bokeh.resources import INLINE

        path.write_text(file_html(figure, INLINE, title), encoding="utf-8")
        return
    try:
        from bokeh.io.export import export_png
        from bokeh.io.webdriver import create_chromium_webdriver
        from selenium.common.exceptions import WebDriverException
    except ImportError as error:
        raise RuntimeError(f"{error}: pip install selenium") from None
    try:
        # Chromium has no sandbox for root, as whom containers run.
        driver = create_chromium_webdriver(["--no-sandbox"] if os.geteuid() == 0 else None)
        try:
            export_png(figure, filename=path, webdriver=driver)
        finally:
            driver.quit()
    except WebDriverException as error:
        raise RuntimeError(f"chromium does not start: {str(error).splitlines()[0]}") from None
