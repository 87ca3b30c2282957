"""Where a notebook's cell shows progress: a widget where ipywidgets is installed, else HTML that is drawn in its place.

Either way the output holds HTML and text beside it, so that a front end without widgets, a notebook that nobody trusts
and nbconvert have something to show, and its last state is HTML and text alone: it needs neither a kernel nor widgets.
All HTML that comes here was escaped where it was made. Nothing here knows what is shown, or when.
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

logger = logging.getLogger("daskml_scale.stages")

WIDTH = "28em"


class Drawing(NamedTuple):
    """What is shown at one moment.

    Attributes
    ----------
    html, text : str
        The same twice; the HTML is escaped.
    share : float
        Of the work that is done, 0 to 1.
    failed : bool
        Whether a part of it failed.
    """

    html: str
    text: str
    share: float = 0.0
    failed: bool = False

    @property
    def bundle(self) -> dict[str, str]:
        """As a front end without widgets shows it."""
        return {"text/html": self.html, "text/plain": self.text}


class Cell:
    """An output below a cell, drawn anew in its place.

    Parameters
    ----------
    widgets : bool
        Whether a widget may show it.
    """

    def __init__(self, widgets: bool = True) -> None:
        self.widgets = widgets
        self.handle: Any = None
        self.widget: _Widget | None = None

    def show(self, drawing: Drawing) -> None:
        """Show a drawing; the first one makes the output."""
        from IPython.display import display

        if self.handle is None:
            self.widget = _widget(drawing) if self.widgets else None
            view = {} if self.widget is None else self.widget.view()
            self.handle = display({**view, **drawing.bundle}, raw=True, display_id=True)
        elif self.widget is not None:
            self.widget.set(drawing)
        else:
            self.handle.update(drawing.bundle, raw=True)

    def end(self, drawing: Drawing) -> None:
        """Leave a last drawing behind, and no widget."""
        widget, self.widget = self.widget, None
        if self.handle is None:
            from IPython.display import display

            self.handle = display(drawing.bundle, raw=True, display_id=True)
        else:
            self.handle.update(drawing.bundle, raw=True)
        if widget is not None:
            widget.close()


class _Widget:
    """A bar of the whole and, below it, the HTML."""

    def __init__(self, drawing: Drawing) -> None:
        from ipywidgets import HTML, FloatProgress, VBox

        self.bar = FloatProgress(max=1.0, layout={"width": WIDTH})
        self.html = HTML()
        self.set(drawing)
        self.box = VBox([self.bar, self.html])

    def set(self, drawing: Drawing) -> None:
        """Change what differs; the front end is told no more than that."""
        self.bar.value = drawing.share
        self.bar.bar_style = "danger" if drawing.failed else ""
        self.html.value = drawing.html

    def view(self) -> dict[str, Any]:
        """Return what makes a front end show the widget."""
        return dict(self.box._repr_mimebundle_())

    def close(self) -> None:
        """Remove it, with its models, from kernel and front end."""
        parts = (self.box, self.bar, self.html)
        for one in (*parts, *(one.layout for one in parts), self.bar.style, self.html.style):
            one.close()


def _widget(drawing: Drawing) -> _Widget | None:
    try:
        return _Widget(drawing)
    except ImportError:
        return None
    except Exception as error:  # an ipywidgets that does not fit the kernel
        logger.info("Progress is shown without ipywidgets: %s: %s", type(error).__name__, error)
        return None
