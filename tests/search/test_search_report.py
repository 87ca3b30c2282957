"""Tables and plots of a finished search."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image
from scipy.stats import loguniform
from search_cases import XR, YR, X, Y
from sklearn.linear_model import Ridge, SGDClassifier
from sklearn.tree import DecisionTreeRegressor

from daskml_scale.errors import UsageError
from daskml_scale.search import AshaSearchCV, GridSearchCV, RandomizedSearchCV
from daskml_scale.stages.search.live import Live, shown
from daskml_scale.stages.search.report import importance


@pytest.fixture(scope="module")
def asha() -> Any:
    search = AshaSearchCV(SGDClassifier(random_state=0), {"alpha": loguniform(1e-5, 1)}, n_trials=9, max_resources=9,
                          min_resources=1, cv=2, random_state=0)  # fmt: skip
    return search.fit(X, Y)


@pytest.fixture(scope="module")
def drawn() -> Any:
    grid = [{"max_depth": [1, 2, 5]}, {"min_samples_leaf": [1, 40], "criterion": ["squared_error", "absolute_error"]}]
    return GridSearchCV(DecisionTreeRegressor(random_state=0), grid, cv=3).fit(XR, YR)


def test_results_are_the_trials_best_first(asha: Any, drawn: Any) -> None:
    for search in (asha, drawn):
        frame = search.results()
        assert len(frame) == len(search.cv_results_["params"])
        assert frame["trial"].iloc[0] == search.best_index_
        assert frame["mean_test_score"].iloc[0] == search.best_score_
        assert not any(np.ma.isMaskedArray(frame[name].to_numpy()) for name in frame)
    assert list(drawn.results()["rank_test_score"]) == sorted(drawn.cv_results_["rank_test_score"])
    with pytest.raises(UsageError, match="not fitted"):
        GridSearchCV(Ridge(), {}).results()


def test_importance_tells_what_matters_from_what_does_not() -> None:
    space = {"max_depth": list(range(1, 9)), "random_state": list(range(50))}
    search = RandomizedSearchCV(DecisionTreeRegressor(), space, n_iter=40, cv=2, random_state=0).fit(XR, YR)
    found = importance(search)
    assert found.index[0] == "max_depth"
    assert found.sum() == pytest.approx(1)
    with pytest.raises(UsageError, match="too few"):
        importance(GridSearchCV(Ridge(), {"alpha": [1.0]}).fit(XR, YR))


def test_plots_are_figures_and_pages(asha: Any, drawn: Any, tmp_path: Path) -> None:
    for search, names in ((asha, ("history", "rungs", "importance")), (drawn, ("history", "importance"))):
        for name in names:
            path = tmp_path / f"{name}.html"
            figure = getattr(search, f"plot_{name}")(to=path)
            assert figure.renderers
            assert "<html" in path.read_text()[:200].lower()
            getattr(search, f"plot_{name}")(to=tmp_path / f"{name}.png")
            picture = np.asarray(Image.open(tmp_path / f"{name}.png"))
            assert picture.shape == (2 * figure.height, 2 * figure.width, 3)
            inside = picture[100:-140, 200:-60].reshape(-1, 3)  # beside grey: what the figure's glyphs are painted with
            assert (np.ptp(inside.astype(int), axis=1) > 50).sum() > 200
    with pytest.raises(UsageError, match="has no rungs"):
        drawn.plot_rungs()
    with pytest.raises(UsageError, match=r"\.html or \.png"):
        asha.plot_history(to=tmp_path / "x.svg")


def test_a_notebook_shows_the_trials_with_all_text_escaped() -> None:
    search = GridSearchCV(Ridge(), {"solver": ["svd", "cholesky"]}, cv=2).fit(XR, YR)
    search.cv_results_["param_solver"][0] = "<b>"
    html = search._repr_mimebundle_()["text/html"]
    assert "2 trials" in html
    assert "&lt;b&gt;" in html
    assert "2 trials" not in GridSearchCV(Ridge(), {"solver": ["svd"]})._repr_mimebundle_()["text/html"]


def test_the_live_table_shows_the_furthest_and_best_trials_first() -> None:
    from rich.console import Console

    live = Live("Search", draw=lambda: None)
    live.rung(0, 0, 1, 0.9, {"alpha": 0.123456})
    live.rung(1, 1, 3, 0.5, {"alpha": 1})
    live.rung(2, 1, 3, float("nan"), {"kind": "x"})
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(live.table())
    lines = [line for line in console.export_text().splitlines() if "=" in line]
    assert ["alpha=1 " in lines[0], "kind=x" in lines[1], "alpha=0.1235" in lines[2]] == [True] * 3
    with shown("Search", wanted=True) as plain:  # no terminal here
        plain.fits(1, 2)
    assert plain.draw is None


FOLLOWED = """
import numpy as np, warnings
from sklearn.datasets import make_classification
from sklearn.linear_model import SGDClassifier
from daskml_scale.search import AshaSearchCV
X, y = make_classification(80, 5, random_state=0)
search = AshaSearchCV(SGDClassifier(random_state=0), {"alpha": [1e-4, 1e-3, 1e-2]}, n_trials=3, max_resources=3, cv=2,
                      verbose=1, random_state=0).fit(X, y)
"""


GRID = """
from daskml_scale.search import GridSearchCV
GridSearchCV(SGDClassifier(), {"alpha": [0.25, 0.5]}, cv=2, scoring=["accuracy", "f1"], refit="f1", verbose=1, out="out"
             ).fit(X, y)
"""


def test_a_terminal_follows_the_trials(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    code = [sys.executable, "-c", FOLLOWED + GRID]
    more = {"TERM": "xterm", "COLUMNS": "99", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(code, stdout=theirs, stderr=theirs, env={**os.environ, **more}, cwd=tmp_path)
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # at its end
        while part := os.read(ours, 4096):
            seen += part
    os.close(ours)
    assert process.wait(60) == 0, seen
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert "AshaSearchCV: 4 done" in text
    assert "alpha=0.0001" in text
    assert "GridSearchCV: 4 of 4 done" in text
    assert "alpha=0.25" in text


def test_a_notebook_follows_the_trials() -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(FOLLOWED)])
    NotebookClient(book, timeout=120, startup_timeout=120, kernel_name="python3").execute()
    (shown,) = [output.data for output in book.cells[0].outputs if "text/html" in output.get("data", {})]
    for kind in ("text/html", "text/plain"):
        assert "AshaSearchCV: 4 done" in shown[kind]
        assert "alpha=0.0001" in shown[kind]
