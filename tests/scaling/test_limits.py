"""Limits from a cluster definition."""

from __future__ import annotations

from typing import Any

from daskml_scale.scaling.limits import limits_of
from daskml_scale.spec.cluster import ClusterSpec


def spec(**scaling: Any) -> ClusterSpec:
    return ClusterSpec.model_validate(
        {
            "version": 1,
            "name": "two",
            "backend": "local",
            "classes": {"free": {"workers": {"min": 3, "max": 9}}, "paid": {"price_per_hour": 1.5}},
            "scaling": scaling,
        }
    )


def test_defaults_are_a_horizon_of_thirty_seconds_and_a_class_never_needs_more_than_fits():
    limits = limits_of(spec(), {"free": 2, "paid": 7}, on_this_machine=True)["free"]
    assert (limits.minimum, limits.maximum, limits.horizon, limits.window, limits.keep_idle) == (2, 2, 30, 30, 20)


def test_only_free_workers_of_this_machine_are_cheap():
    here = limits_of(spec(), {"free": 9, "paid": 9}, on_this_machine=True)
    assert (here["free"].cheap, here["paid"].cheap) == (True, False)
    assert not limits_of(spec(), {"free": 9, "paid": 9}, on_this_machine=False)["free"].cheap


def test_the_definition_decides():
    limits = limits_of(spec(horizon="2m", keep_idle="1s"), {"free": 9, "paid": 9}, on_this_machine=True)["paid"]
    assert (limits.horizon, limits.keep_idle, limits.window) == (120, 1, 1.5)
