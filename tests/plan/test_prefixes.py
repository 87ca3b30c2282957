"""Groups of fits that share a prefix: each fit exactly once, and only with fits of the same prefix and split."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daskml_scale.plan.prefixes import grouped

CHAINS = st.lists(st.lists(st.sampled_from("abc"), max_size=3), min_size=1, max_size=20)


@given(CHAINS, st.integers(1, 5), st.integers(1, 8))
def test_every_fit_is_in_one_group_with_its_own_prefix(chains, splits, slots) -> None:
    fits = [(candidate, split) for candidate in range(len(chains)) for split in range(splits)]
    groups = grouped(chains, fits, slots)
    assert sorted((candidate, group.split) for group in groups for candidate in group.candidates) == fits
    for group in groups:
        assert len({tuple(chains[candidate]) for candidate in group.candidates}) == 1
        assert len(group.candidates) == 1 or chains[group.candidates[0]]


def test_candidates_that_share_nothing_stay_in_order() -> None:
    fits = [(candidate, split) for candidate in range(3) for split in range(2)]
    groups = grouped([[], [], []], fits, 1)
    assert [(*group.candidates, group.split) for group in groups] == fits


def test_groups_are_as_large_as_the_slots_allow() -> None:
    chains = [["scale", "pca 2"]] * 4 + [["scale", "pca 3"]] * 4
    fits = [(candidate, split) for candidate in range(8) for split in range(3)]
    assert {len(group.candidates) for group in grouped(chains, fits, 2)} == {4}
    assert {len(group.candidates) for group in grouped(chains, fits, 4)} == {2}
    assert len(grouped(chains, fits, 100)) == 24


def test_two_slots_begin_with_different_roots() -> None:
    fits = [(candidate, split) for candidate in range(4) for split in range(2)]
    groups = grouped([["a", "b"], ["a", "b"], ["a", "c"], ["a", "c"]], fits, 2)
    assert groups[0].split != groups[1].split
    assert [group.split for group in groups[::2]] == [groups[0].split] * (len(groups) // 2)
