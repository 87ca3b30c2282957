"""HTML for notebooks, every text escaped here and nowhere else; Bokeh's figures as files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from html import escape as escape
from pathlib import Path
from typing import Any

_STYLE = "border-collapse:collapse;font-size:90%;margin:.3em 0"
_CELL = "padding:.15em .7em;text-align:{align};border-bottom:1px solid rgba(128,128,128,.3)"


class Raw(str):
    """HTML that is set as it is: it was made here, and what came from elsewhere in it was escaped."""


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
        content = value if isinstance(value, Raw) else escape(text)
        return f"<{tag} style='{_CELL.format(align=align)}'>{content}</{tag}>"

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
    from bokeh.io.export import export_png

    with _browser() as driver:
        export_png(figure, filename=path, webdriver=driver)


def save_page(path: Path, page: str, width: int = 1100) -> None:
    """Write a picture of a whole page, as wide as told and as high as it is (16,000 pixels at most).

    Raises
    ------
    OSError, RuntimeError
        As of `save_figure`.
    """
    with _browser() as driver, tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.html"
        source.write_text(page, encoding="utf-8")
        driver.set_window_size(width, 900)
        driver.get(source.as_uri())
        height = int(driver.execute_script("return document.documentElement.scrollHeight"))
        driver.set_window_size(width, min(height + 200, 16_000))
        path.write_bytes(driver.get_screenshot_as_png())


@contextmanager
def _browser() -> Iterator[Any]:
    """Start a browser without a window."""
    try:
        from bokeh.io.webdriver import create_chromium_webdriver
        from selenium.common.exceptions import WebDriverException
    except ImportError as error:
        raise RuntimeError(f"{error}: pip install selenium") from None
    try:
        # Chromium has no sandbox for root, as whom containers run.
        driver = create_chromium_webdriver(["--no-sandbox"] if os.geteuid() == 0 else None)
        try:
            yield driver
        finally:
            driver.quit()
    except WebDriverException as error:
        raise RuntimeError(f"chromium does not start: {str(error).splitlines()[0]}") from None
