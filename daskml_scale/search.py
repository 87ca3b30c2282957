"""Public searches: ``from daskml_scale.search import GridSearchCV``. Imported when first used; no logic here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daskml_scale.stages.search.adaptive import AshaSearchCV, HyperbandSearchCV
    from daskml_scale.stages.search.estimators import (
        GridSearchCV,
        HalvingGridSearchCV,
        HalvingRandomSearchCV,
        RandomizedSearchCV,
    )
    from daskml_scale.stages.search.optuna_search import OptunaSearchCV

__all__ = [
    "AshaSearchCV",
    "GridSearchCV",
    "HalvingGridSearchCV",
    "HalvingRandomSearchCV",
    "HyperbandSearchCV",
    "OptunaSearchCV",
    "RandomizedSearchCV",
]
_ELSEWHERE = {"AshaSearchCV": "adaptive", "HyperbandSearchCV": "adaptive", "OptunaSearchCV": "optuna_search"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    from daskml_scale import _connect

    _connect()
    return getattr(import_module(f"daskml_scale.stages.search.{_ELSEWHERE.get(name, 'estimators')}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
