"""Whether an estimator can be saved so that it can be loaded: checked before a byte is written.

What is refused here would fail later and elsewhere: an unfitted estimator at the first prediction, a
lambda or a class of ``__main__`` in the worker that loads it. Nothing here writes.
"""

from __future__ import annotations

from typing import Any

from daskml_scale.errors import UntrustedError, UsageError

from . import trust
from .canonical import canonical


def check_fitted(estimator: Any) -> None:
    """Refuse what is no estimator, or is not fitted.

    Raises
    ------
    UsageError
        Saying which of the two it is.
    """
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    name = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
    if isinstance(estimator, type) or not callable(getattr(estimator, "fit", None)):
        what = f"the class {name}" if isinstance(estimator, type) else f"an object of type {name}, without fit"
        raise UsageError(f"save_model takes a fitted estimator, not {what}")
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise UsageError(
            f"this {name} is not fitted; call fit before saving it (a class without attributes that end in _ "
            "says so itself: define __sklearn_is_fitted__)"
        ) from None
    except (TypeError, AttributeError):
        raise UsageError(f"{name} is not a scikit-learn estimator; derive it from sklearn.base.BaseEstimator") from None


def dump(estimator: Any) -> bytes:
    """Return the canonical model file of an estimator.

    Raises
    ------
    UsageError
        When skops cannot save it.
    """
    name = type(estimator).__name__
    try:
        return canonical(trust.dumps(estimator))
    except RecursionError:
        reason = "it holds itself, as with a bound method or scikit-learn's metadata requests"
    except (TypeError, ValueError, AttributeError) as error:
        reason = str(error)
    fitted = "; save its best_estimator_ instead" if hasattr(estimator, "best_estimator_") else ""
    raise UsageError(
        f"{name} cannot be saved without pickle ({reason}){fitted}; "
        "use estimators of scikit-learn, or classes whose attributes are numbers, text, lists, dicts and arrays"
    )


def check_trusted(data: bytes, trusted: trust.Trusted, name: str) -> None:
    """Refuse a model that readers who trust only these types could not load.

    Raises
    ------
    UntrustedError
        Naming the types and the remedy.
    """
    found = trust.untrusted(data, trusted)
    if found:
        raise UntrustedError(
            f"{name}: the model holds types outside scikit-learn: {', '.join(found)}; "
            f"if you know what they do, add trusted: [{', '.join(found)}] to the stage that names the estimator"
        )


def check_loads(data: bytes, estimator: Any) -> tuple[str, ...]:
    """Load a model file that was just made, and return the types in it that a reader must name as trusted.

    Raises
    ------
    UsageError
        When it names what cannot be imported: a lambda, a function or class inside a function, or of ``__main__``.
    """
    name, own = type(estimator).__name__, tuple(trust.untrusted(data))
    remedy = "define it at the top of a module that workers can import"
    for found in own:
        if found.startswith("__main__."):
            raise UsageError(f"{name} cannot be saved: it holds {found}, which no other process can load; {remedy}")
        if not trust.importable(found):
            raise UsageError(f"{name} cannot be saved: it holds {found}, which cannot be imported by name; {remedy}")
    try:
        trust.load(data, own, name)
    except UntrustedError as error:
        raise UsageError(f"{name} cannot be saved: {error}") from error
    except Exception as error:
        raise UsageError(
            f"{name} cannot be saved: its file does not load again ({type(error).__name__}: {error}); "
            "simplify the attributes of its classes"
        ) from error
    return own
