"""Estimators of scikit-learn in a skops file; ``trust`` says which types it may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import trust


def audit(data: bytes, manifest: Mapping[str, Any], trusted: trust.Trusted, source: str) -> None:
    """See `trust.audit`."""
    trust.audit(data, trusted, source)


def load(data: bytes, manifest: Mapping[str, Any], trusted: trust.Trusted, source: str) -> Any:
    """See `trust.load`."""
    return trust.load(data, trusted, source)
