"""Which host a new worker goes to, without a host."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from daskml_scale.deploy.hosts import Slot, best, why
from daskml_scale.deploy.quarantine import PAUSES, Quarantine
from daskml_scale.spec.hosts import Host


def slots(sizes: list[int], rests: list[float] | None = None) -> list[Slot]:
    """Return the slots of hosts h0, h1, ... of these sizes; ``rests``: for how long each is left alone."""
    made = []
    for number, size in enumerate(sizes):
        rest = rests[number] if rests else 0.0
        link: Any = SimpleNamespace(access=f"h{number}", failure=f"h{number}: broken", rest=lambda rest=rest: rest)
        made += [Slot(Host(host=f"h{number}", slots=size), link, slot) for slot in range(size)]
    return made


def rests(listed: list[Slot]) -> dict[int, float]:
    return {id(one.link): one.link.rest() for one in listed}


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 40))
def test_hosts_fill_evenly_and_no_slot_is_given_twice(sizes: list[int], wanted: int):
    listed = slots(sizes)
    for number in range(wanted):
        slot = best(listed, rests(listed))
        assert (slot is None) == (number >= sum(sizes))
        if slot is not None:
            assert slot.user is None
            slot.user = f"cpu-{number}"
    used = Counter(one.host.host for one in listed if one.user)
    counts = [(used[f"h{number}"], size) for number, size in enumerate(sizes)]
    for taken, size in counts:
        for other, room in counts:
            assert other == room or (taken - 1) / size <= other / room  # its last one went to the emptiest then


def test_hosts_that_are_left_alone_get_nothing_and_say_why():
    listed = slots([1, 2, 1], [0.0, 12.4, 0.0])
    listed[0].user = "cpu-0"
    slot = best(listed, rests(listed))
    assert slot is not None
    assert slot.host.host == "h2"
    slot.user = "cpu-1"
    assert best(listed, rests(listed)) is None
    said = why(listed)
    assert "h0: 1 of 1 slots taken" in said
    assert "h1: broken (tried again in 12 s)" in said


def test_a_host_that_fails_again_and_again_is_left_alone_for_longer_until_it_works():
    found = Quarantine()
    assert found.rest(0.0) == 0.0
    assert [found.fail(now) for now in (0.0, 10.0, 20.0, 30.0, 40.0)] == [*PAUSES, PAUSES[-1]]
    assert (found.rest(50.0), found.rest(1000.0)) == (40.0 + PAUSES[-1] - 50.0, 0.0)
    found.absolve()
    assert found.fail(2000.0) == PAUSES[0]


def test_a_host_is_to_blame_when_two_processes_in_a_row_were_never_ready():
    found = Quarantine()
    assert [found.fault() for _ in range(4)] == [False, True, False, True]
    found.fault()
    found.absolve()
    assert not found.fault()
