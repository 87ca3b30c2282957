"""Feature steps: ``steps.AsOf(...)`` in Python is ``as_of: {...}`` in YAML."""

from daskml_scale.spec.steps import AsOf, Cyclical, DateParts, Keep, Lookup, Ordinal, Trailing
from daskml_scale.spec.steps_categories import Count, Hashing, OneHot, TargetMean
from daskml_scale.spec.steps_history import Diff, ExponentialMean, ForwardFill, Lag, Rolling, Since
from daskml_scale.spec.steps_learned import Aggregate, Function, SklearnStep
from daskml_scale.spec.steps_numeric import (
    PCA,
    Bin,
    Cast,
    Clip,
    Compute,
    Impute,
    Interactions,
    Log,
    MinMax,
    Rename,
    Robust,
    Standardize,
)  # fmt: skip

__all__ = [
    "PCA", "Aggregate", "AsOf", "Bin", "Cast", "Clip", "Compute", "Count", "Cyclical", "DateParts", "Diff",
    "ExponentialMean", "ForwardFill", "Function", "Hashing", "Impute", "Interactions", "Keep", "Lag", "Log",
    "Lookup", "MinMax", "OneHot", "Ordinal", "Rename", "Robust", "Rolling", "Since", "SklearnStep", "Standardize",
    "TargetMean", "Trailing",
]  # fmt: skip
