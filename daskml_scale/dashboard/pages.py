"""The pages ``/workflow`` and ``/individual-workflow``: one HTML document that asks ``/workflow.json`` once a second.

They are Bokeh applications, because Dask's navigation and JupyterLab's listing know no others, but nothing of Bokeh
runs in the browser: three browsers cost the scheduler one JSON document a second, and none when nobody looks. What the
page shows is drawn by ``page.js`` from data alone, as text and never as markup. It decides and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from daskml_scale.dashboard import private

if TYPE_CHECKING:
    from bokeh.document import Document


@lru_cache(maxsize=16)
def _template(part: str, *, navigation: bool) -> Any:
    home = files("daskml_scale.dashboard")
    style, script = ((home / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    main = f"<main id='daskml' data-part='{part}'></main>"
    without = "<noscript>This page needs JavaScript; the same is in workflow.json.</noscript>"
    body = f"{{% raw %}}<style>{style}</style>{main}{without}<script>{script}</script>{{% endraw %}}"
    return private.template(body, navigation=navigation)


def _page(part: str, *, navigation: bool) -> private.Page:
    def fill(scheduler: Any, variables: Mapping[str, Any], doc: Document) -> None:
        doc.title = "Dask: Workflow"
        doc.template = _template(part, navigation=navigation)
        if navigation:
            doc.template_variables.update(variables)

    return fill


PAGES: dict[str, Callable[[Any, Mapping[str, Any], Any], None]] = {
    f"/{private.NAV}": _page("", navigation=True),
    f"/{private.JUPYTER}": _page("", navigation=False),
    **{f"/{private.JUPYTER}-{part}": _page(part, navigation=False) for part in private.PARTS},
}
