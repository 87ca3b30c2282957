"""Feature steps: ``steps.AsOf(...)`` in Python is ``as_of: {...}`` in YAML."""

from daskml_scale.spec.steps import AsOf, Cyclical, DateParts, Keep, Lookup, Ordinal, Trailing
from daskml_scale.spec.steps_categories import Count, Hashing, OneHot, TargetMean
from daskml_scale.spec.steps_history import Diff, ExponentialMean, ForwardFill, Lag, Rolling, Since
from daskml_scale.spec.steps_numeric import (
    PCA,
    Bin,
    Clip,
    Compute,
    Impute,
    Interactions,
    Log,
    MinMax,
    Robust,
    Standardize,
)  # fmt: skip

__all__ = [
    "PCA", "AsOf", "Bin", "Clip", "Compute", "Count", "Cyclical", "DateParts", "Diff", "ExponentialMean", "ForwardFill",
    "Hashing", "Impute", "Interactions", "Keep", "Lag", "Log", "Lookup", "MinMax", "OneHot", "Ordinal", "Robust",
    "Rolling", "Since", "Standardize", "TargetMean", "Trailing",
]  # fmt: skip
