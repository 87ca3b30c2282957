"""What a fold of events from other processes may hold: limits, and values forced into them.

A driver of another version, or a hostile client, publishes to the same topic. Nothing here raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from daskml_scale.events import Event

MAX_STAGES = 500
MAX_EDGES = 2000
MAX_NOTES = 200
"""Scaling decisions, and as many warnings, kept per run."""
MAX_RUNS = 20
MAX_TEXT = 500
MAX_NAME = 200
MAX_REASONS = 16

_LONG = frozenset({"message", "reason", "store"})

T = TypeVar("T")
E = TypeVar("E", bound=Event)


def text(value: Any, limit: int = MAX_TEXT) -> str:
    """Return the text, cut to ``limit`` characters."""
    found = str(value)
    return found if len(found) <= limit else found[: limit - 1] + "…"


def name(value: Any) -> str:
    """Return the text of a name: run, stage, kind, state."""
    return text(value, MAX_NAME)


def count(value: Any) -> int:
    """Return a count; 0 for what is none."""
    try:
        return min(max(0, int(value)), 2**53)
    except (TypeError, ValueError, OverflowError):
        return 0


def seconds(value: Any) -> float:
    """Return a finite time or duration; 0 for what is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if 0 <= number < 1e15 else 0.0


def tally(value: Any) -> dict[str, int]:
    """Return a short mapping of names to counts."""
    pairs = list(value.items())[:MAX_REASONS] if isinstance(value, Mapping) else []
    return {name(key): count(number) for key, number in pairs}


def keep(notes: tuple[T, ...], note: T) -> tuple[T, ...]:
    """Return the notes with one more, the oldest dropped."""
    return (*notes, note)[-MAX_NOTES:]


def known(cls: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the text and number fields of ``cls`` found in ``data``, each forced into its type."""
    convert = {"str": name, "int": count, "float": seconds}
    return {
        item.name: (text if item.name in _LONG else convert[str(item.type)])(data[item.name])
        for item in fields(cls)
        if item.name in data and str(item.type) in convert
    }


def clean(event: E) -> E:
    """Return the event with every text cut (a message may quote a traceback) and every number sane."""
    return replace(event, **known(type(event), {item.name: getattr(event, item.name) for item in fields(event)}))
