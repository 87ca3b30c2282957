"""The order in which the stages of a workflow run. Pure.

Edges and their errors are ``spec.references``'; this module only sorts.
"""

from __future__ import annotations

import heapq

from daskml_scale.spec.references import check_references, edges
from daskml_scale.spec.workflow import Workflow


def order(workflow: Workflow) -> tuple[str, ...]:
    """Return the stages so that each comes after what it needs, otherwise in file order.

    Raises
    ------
    SpecError
        If a reference is wrong or stages wait for each other.
    """
    check_references(workflow)
    needs = {name: set(wanted) for name, wanted in edges(workflow).items()}
    place = {name: position for position, name in enumerate(needs)}
    users: dict[str, list[str]] = {name: [] for name in needs}
    for name, wanted in needs.items():
        for other in wanted:
            users[other].append(name)
    ready = [(place[name], name) for name, wanted in needs.items() if not wanted]
    ordered = []
    while ready:
        _, name = heapq.heappop(ready)
        ordered.append(name)
        for user in users[name]:
            needs[user].discard(name)
            if not needs[user]:
                heapq.heappush(ready, (place[user], user))
    return tuple(ordered)


def users(workflow: Workflow, stage: str) -> tuple[str, ...]:
    """Return the stages that need a stage, directly or through others, in the order in which they run."""
    needs, found = edges(workflow), {stage}
    for name in order(workflow):
        if found.intersection(needs[name]):
            found.add(name)
    return tuple(name for name in order(workflow) if name in found and name != stage)
