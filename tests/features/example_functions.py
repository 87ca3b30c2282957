"""Functions that recipes of the tests call."""

from __future__ import annotations

import numpy as np


def doubled(columns):
    return columns["size"] * 2


def two(columns):
    return {"first": columns["size"] + 1, "second": [len(text or "") for text in columns["place"]]}


def of_text(columns):
    return np.full(len(columns["size"]), "text")


def too_short(columns):
    return columns["size"][:1]
