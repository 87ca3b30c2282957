"""From the ``scaling`` section of a cluster definition to the limits of each class. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from daskml_scale.spec.base import seconds
from daskml_scale.spec.cluster import OwnSpec, Scaling

from .controller import Money
from .policy import Limits

WINDOW_SHARE = 1.5
"""The window of the largest need, in units of ``keep_idle``: 30 s at its default of 20 s."""


def limits_of(spec: OwnSpec, maxima: Mapping[str, int], *, on_this_machine: bool) -> dict[str, Limits]:
    """Return the limits of each class of a specification.

    Parameters
    ----------
    maxima : mapping
        Class -> most workers, ``auto`` resolved.
    on_this_machine : bool
        Workers without a price are then cheap (see `Limits.cheap`).
    """
    scaling = spec.scaling or Scaling()
    keep_idle = seconds(scaling.keep_idle)
    return {
        name: Limits(
            minimum=min(item.workers.min, maxima[name]),
            maximum=maxima[name],
            horizon=seconds(scaling.horizon),
            cheap=on_this_machine and item.price_per_hour == 0,
            window=WINDOW_SHARE * keep_idle,
            keep_idle=keep_idle,
            per_minute=scaling.per_minute,
        )
        for name, item in spec.classes.items()
    }


def money_of(spec: OwnSpec) -> Money:
    """Return the budget of a specification."""
    budget = (spec.scaling or Scaling()).budget
    return Money(budget.per_hour, budget.total)
