"""Which decisions are told: those that change something, and the first that a limit holds back. Pure.

A cluster decides twice a second; a log that repeats "at most 4 workers" each time hides what happened.
"""

from __future__ import annotations

from collections.abc import Collection

from .records import Decision


def news(decision: Decision, told: Collection[str]) -> tuple[bool, frozenset[str]]:
    """Return whether a decision is told, and the limits that need not be told again.

    Parameters
    ----------
    told : collection of str
        What the last call returned for the same class; empty at first. A limit is told anew only after the class had
        neither work nor a limit that held it back.
    """
    known = frozenset(told)
    caps = known.union(decision.caps)
    if decision.changes or caps != known:
        return True, caps
    if decision.caps or decision.backlog_seconds:
        return False, known
    return False, frozenset()
