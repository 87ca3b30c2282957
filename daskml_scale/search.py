"""Public searches: ``from daskml_scale.search import GridSearchCV``. Imported when first used; no logic here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from daskml_scale.stages.search.estimators import GridSearchCV, RandomizedSearchCV

__all__ = ["GridSearchCV", "RandomizedSearchCV"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    from daskml_scale.stages.search import estimators

    return getattr(estimators, name)


def __dir__() -> list[str]:
    return sorted(__all__)
