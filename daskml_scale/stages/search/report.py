"""A finished search as tables: trials as a DataFrame, the importance of parameters, HTML for a notebook. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from daskml_scale.errors import UsageError
from daskml_scale.html import table

if TYPE_CHECKING:
    import pandas as pd

ROWS_SHOWN = 10
_FIRST = ("rank_test_", "mean_test_", "std_test_")


def results(search: Any) -> pd.DataFrame:
    """Return the trials of a fitted search, best first: parameters, scores, how far each came, times.

    Raises
    ------
    UsageError
        When it is not fitted.
    """
    import pandas as pd

    columns = {name: _plain(values) for name, values in cv_results(search).items() if name != "params"}
    frame: Any = pd.DataFrame(columns)
    frame.insert(0, "trial", np.arange(len(frame)))
    ranks = [name for name in frame if name.startswith("rank_test_")]
    first = ["trial", *(name for start in _FIRST for name in frame if name.startswith(start))]
    reached = [name for name in ("n_resources", "rung", "bracket", "iter", "feasible") if name in frame]
    params = [name for name in frame if name.startswith("param_")]
    rest = [name for name in frame if name not in {*first, *reached, *params}]
    by = (["n_resources"] if reached and "n_resources" in frame else []) + ranks[:1]
    frame = frame.sort_values(by, ascending=[name != "n_resources" for name in by], kind="stable")
    found: pd.DataFrame = frame[[*first, *reached, *params, *rest]].reset_index(drop=True)
    return found


def cv_results(search: Any) -> Mapping[str, Any]:
    """Return ``cv_results_``.

    Raises
    ------
    UsageError
        When the search is not fitted.
    """
    found: Mapping[str, Any] | None = getattr(search, "cv_results_", None)
    if found is None:
        raise UsageError(f"this {type(search).__name__} is not fitted; call fit first")
    return found


def score_name(search: Any) -> str:
    """Return the key of the mean score that the search is judged by."""
    found = cv_results(search)
    if "mean_test_score" in found:
        return "mean_test_score"
    wanted = f"mean_test_{search.refit}"
    return wanted if wanted in found else next(name for name in found if name.startswith("mean_test_"))


def importance(search: Any) -> pd.Series:
    """Return how much of the scores' variation each parameter explains, the largest first; they sum to 1.

    A random forest is fitted to the scores of the trials that came furthest, after Hutter et al., "An Efficient
    Approach for Assessing Hyperparameter Importance", ICML 2014.
    """
    import pandas as pd
    from sklearn.ensemble import RandomForestRegressor

    found = cv_results(search)
    scores = np.asarray(found[score_name(search)], float)
    chosen = np.isfinite(scores)
    names = [name for name in found if name.startswith("param_")]
    columns = {}
    for name in names:
        values: Any = np.ma.asarray(found[name])
        values = values.astype(object).filled(None)
        numbers = pd.to_numeric(pd.Series(values), errors="coerce")
        texts = pd.factorize(np.array([repr(value) for value in values]), sort=True)[0]
        columns[name[6:]] = numbers.fillna(-1e9) if numbers.notna().sum() * 2 > len(values) else texts
    frame = pd.DataFrame(columns)[chosen]
    if len(frame) < 4 or frame.empty:
        raise UsageError(f"{int(chosen.sum())} scored trials are too few to tell the importance of parameters from")
    forest = RandomForestRegressor(200, random_state=0, min_samples_leaf=2).fit(frame, scores[chosen])
    return pd.Series(forest.feature_importances_, frame.columns, name="importance").sort_values(ascending=False)


def table_html(search: Any) -> str:
    """Return the best trials as an HTML table."""
    frame = results(search)
    shown = frame.iloc[:ROWS_SHOWN, : min(frame.shape[1], 12)]
    rows = [[_text(value) for value in row] for row in shown.itertuples(index=False, name=None)]
    more = f"; {len(frame) - len(shown)} more in results()" if len(frame) > len(shown) else ""
    return table(list(map(str, shown)), rows, title=f"{len(frame)} trials{more}")


def _plain(values: Any) -> Any:
    """Return a masked array as a plain one; ``None`` where a trial has no such parameter."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    if not np.ma.getmaskarray(values).any():
        return values.data
    filled: Any = values.astype(object)
    return filled.filled(None)


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, (float, np.floating)) else str(value)[:60]
