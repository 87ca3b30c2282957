"""Feature steps: ``steps.AsOf(...)`` in Python is ``as_of: {...}`` in YAML."""

from daskml_scale.spec.steps import AsOf, Cyclical, DateParts, Keep, Lookup, Ordinal, Trailing

__all__ = ["AsOf", "Cyclical", "DateParts", "Keep", "Lookup", "Ordinal", "Trailing"]
