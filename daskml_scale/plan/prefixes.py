"""Which fits of a search share work: candidates grouped along a trie of their pipeline steps. Pure.

A candidate is described by its chain: one key per shareable step, outermost first, each naming a step
and its parameters by value. Two candidates share as many steps as their chains begin with alike. A
group goes out as one unit of work: its prefix is fitted once and its leaves follow.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

GROUPS_PER_SLOT = 3
"""Groups wanted for each slot of a cluster, so that the last ones keep all of them busy."""


@dataclass(frozen=True, slots=True)
class Group:
    """Fits that one unit makes.

    Attributes
    ----------
    split : int
    candidates : tuple of int
        In the order of the search.
    """

    split: int
    candidates: tuple[int, ...]


def grouped(chains: Sequence[Sequence[Hashable]], fits: Sequence[tuple[int, int]], slots: int) -> list[Group]:
    """Return the fits as groups with a common prefix, in an order that lets slots keep to their own prefixes.

    Parameters
    ----------
    chains : sequence
        By candidate; an empty chain shares nothing.
    fits : sequence of (candidate, split)
    slots : int
        Fits that can run at a time.
    """
    if not any(chains):
        return [Group(split, (candidate,)) for candidate, split in fits]
    by_prefix: dict[Hashable, list[tuple[int, int]]] = {}
    for candidate, split in fits:
        chain = tuple(chains[candidate])
        key: Hashable = (split, chain) if chain else (split, (), candidate)
        by_prefix.setdefault(key, []).append((candidate, split))
    parts = _divided(list(by_prefix.values()), GROUPS_PER_SLOT * slots)
    roots: dict[Hashable, list[Group]] = {}
    for part in sorted(parts, key=lambda part: (part[0][1], _texts(chains[part[0][0]]), part[0][0])):
        candidate, split = part[0]
        first = tuple(chains[candidate][:1]) or candidate
        roots.setdefault((split, first), []).append(Group(split, tuple(each for each, _ in part)))
    return _interleaved(list(roots.values()), slots)


def _texts(chain: Sequence[Hashable]) -> tuple[str, ...]:
    return tuple(map(str, chain))


def _divided(parts: list[list[tuple[int, int]]], wanted: int) -> list[list[tuple[int, int]]]:
    """Halve the largest parts until there are enough of them, or only single fits."""
    parts = sorted(parts, key=len)
    while len(parts) < wanted and parts and len(parts[-1]) > 1:
        largest = parts.pop()
        middle = len(largest) // 2
        parts += [largest[:middle], largest[middle:]]
        parts.sort(key=len)
    return parts


def _interleaved(roots: list[list[Group]], slots: int) -> list[Group]:
    """Deal the roots out to as many streams as there are slots, heaviest first, and take from the streams in turn."""
    streams: list[list[Group]] = [[] for _ in range(max(1, min(slots, len(roots))))]
    for root in sorted(roots, key=lambda root: -sum(len(group.candidates) for group in root)):
        min(streams, key=lambda stream: sum(len(group.candidates) for group in stream)).extend(root)
    longest = max(map(len, streams), default=0)
    return [stream[turn] for turn in range(longest) for stream in streams if turn < len(stream)]
