"""Properties of asynchronous halving, under any order of reports."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.plan.asha import Halving, Job, Ladder, brackets, one_ladder, rungs

LADDERS = st.builds(
    lambda trials, least, times, factor: one_ladder(trials, least, least * times, factor),
    st.integers(1, 40), st.integers(1, 5), st.integers(1, 100), st.sampled_from([2, 3, 4, 2.5]),
)  # fmt: skip


def played(halving: Halving, slots: int, seed: int, scores: dict[int, float]) -> list[Job]:
    """Run a search with jobs that end in a random order; return them as they were sent."""
    rng = random.Random(seed)
    sent: list[Job] = []
    running: list[Job] = []
    while True:
        while len(running) < slots and (job := halving.next_job()) is not None:
            sent.append(job)
            running.append(job)
        if not running:
            return sent
        done = running.pop(rng.randrange(len(running)))
        halving.report(done.trial, done.rung, scores.get(done.trial, float(done.trial)))


@settings(max_examples=150, deadline=None)
@given(LADDERS, st.integers(1, 10), st.integers(), st.sampled_from(["promotion", "stopping"]))
def test_every_trial_climbs_rung_by_rung_and_no_segment_runs_twice(ladders, slots, seed, mode) -> None:
    halving = Halving(ladders, mode)
    sent = played(halving, slots, seed, {})
    assert len({(job.trial, job.rung) for job in sent}) == len(sent)
    assert {job.trial for job in sent if job.rung == 0} == set(range(ladders[0].trials))
    for job in sent:
        assert job.stop == ladders[0].rungs[job.rung]
        assert job.start == (ladders[0].rungs[job.rung - 1] if job.rung else 0)
        if job.rung:
            assert any(other.trial == job.trial and other.rung == job.rung - 1 for other in sent)


@settings(max_examples=150, deadline=None)
@given(LADDERS, st.integers(1, 10), st.integers())
def test_at_most_one_in_factor_is_promoted_but_for_late_comers_and_the_best_always_is(ladders, slots, seed) -> None:
    ladder = ladders[0]
    halving = Halving(ladders)
    rng = random.Random(seed)
    scores = {trial: rng.random() for trial in range(ladder.trials)}
    played(halving, slots, seed, scores)
    for rung in range(len(ladder.rungs) - 1):
        here, above = halving.scores[0][rung], halving.scores[0][rung + 1]
        assert set(above) <= set(here)
        best = sorted(here, key=lambda trial: (-here[trial], trial))[: int(len(here) / ladder.factor + 1e-9)]
        assert set(best) <= set(above)  # whoever is among the best in the end went up


@settings(max_examples=100, deadline=None)
@given(LADDERS, st.integers(1, 10), st.integers(), st.integers(0, 60))
def test_none_is_promoted_before_the_first_trials_started_and_then_the_best_are(ladders, slots, seed, first) -> None:
    ladder = ladders[0]
    halving = Halving(ladders, first=first)
    rng = random.Random(seed)
    sent = played(halving, slots, seed, {trial: rng.random() for trial in range(ladder.trials)})
    early = sent[: min(first, ladder.trials)]
    assert [job.trial for job in early] == list(range(len(early)))
    assert {job.trial for job in sent if job.rung == 0} == set(range(ladder.trials))
    if first >= ladder.trials and slots == 1 and len(ladder.rungs) > 1:  # then no report of the first rung is missing
        promoted = [job for job in sent if job.rung == 1]
        assert len(promoted) == max(1, int(ladder.trials / ladder.factor + 1e-9))


def test_with_one_slot_and_scores_that_fall_it_is_synchronous_halving() -> None:
    halving = Halving(one_ladder(9, 1, 9, 3))
    sent = played(halving, 1, 0, {trial: -trial for trial in range(9)})
    assert sorted(job.trial for job in sent if job.rung == 1) == [0, 1, 2]
    assert [job.trial for job in sent if job.rung == 2] == [0]
    assert [job.trial for job in sent][:4] == [0, 1, 2, 0]  # a promotion comes before a new trial


@given(LADDERS, st.integers(1, 10), st.integers(), st.sampled_from(["promotion", "stopping"]))
def test_some_trial_always_comes_to_the_last_rung(ladders, slots, seed, mode) -> None:
    halving = Halving(ladders, mode)
    played(halving, slots, seed, {})
    assert halving.scores[0][-1]


@given(LADDERS, st.integers(1, 10), st.integers(), st.integers(1, 5), st.sampled_from(["promotion", "stopping"]))
def test_some_trial_comes_to_the_last_rung_though_the_space_has_no_more(ladders, slots, seed, there, mode) -> None:
    class Few(Halving):
        def next_job(self) -> Job | None:
            while (job := super().next_job()) is not None and job.trial >= there:
                self.no_more_trials(job)
            return job

    halving = Few(ladders, mode)
    sent = played(halving, slots, seed, {})
    assert halving.scores[0][-1]
    assert {job.trial for job in sent} == set(range(min(there, ladders[0].trials)))


def test_a_trial_without_a_score_is_never_promoted() -> None:
    halving = Halving(one_ladder(6, 1, 4, 2))
    sent = played(halving, 2, 0, dict.fromkeys(range(6), math.nan))
    assert all(job.rung == 0 for job in sent)
    assert len(sent) == 6


@settings(max_examples=100, deadline=None)
@given(LADDERS, st.integers(1, 6), st.integers(), st.integers(0, 60), st.sampled_from(["promotion", "stopping"]))
def test_a_search_that_replays_its_records_runs_none_of_them_again(ladders, slots, seed, cut, mode) -> None:
    first = Halving(ladders, mode)
    done = played(first, slots, seed, {})[:cut]
    second = Halving(ladders, mode)
    for job in sorted(done, key=lambda job: job.rung):
        second.report(job.trial, job.rung, float(job.trial))
    for job in done:
        second.forget_going_on(job.trial, job.rung)
    # Trials that were sent and never reported start again with the numbers that they had.
    rest = played(second, slots, seed, {})
    assert not {(job.trial, job.rung) for job in rest} & {(job.trial, job.rung) for job in done}


@given(st.integers(1, 50), st.integers(1, 2000), st.sampled_from([2, 3, 4, 1.5]))
def test_rungs_grow_from_the_least_to_exactly_the_most(least, times, factor) -> None:
    found = rungs(least, least * times, factor)
    assert found[-1] == least * times
    assert found[0] >= least
    assert all(a < b for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(("least", "most", "factor"), [(0, 5, 3), (6, 5, 3), (1, 5, 1)])
def test_impossible_rungs_are_refused(least, most, factor) -> None:
    with pytest.raises(ValueError, match="1 <= min <= max"):
        rungs(least, most, factor)


def test_the_brackets_of_hyperband_are_those_of_the_paper() -> None:
    found = brackets(1, 81, 3)
    assert [ladder.trials for ladder in found] == [81, 34, 15, 8, 5]
    assert [ladder.rungs for ladder in found] == [(1, 3, 9, 27, 81), (3, 9, 27, 81), (9, 27, 81), (27, 81), (81,)]
    halving = Halving(found)
    assert halving.trials == 143
    assert [halving.bracket_of(trial) for trial in (0, 80, 81, 142)] == [0, 0, 1, 4]
    assert Ladder((1, 2), 3).factor == 3.0
