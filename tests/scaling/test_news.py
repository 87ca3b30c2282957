"""What is told of decisions: every change, every limit once, and nothing again that is the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.scaling.controller import Controller
from daskml_scale.scaling.demand import Demand, Shape, WorkerView
from daskml_scale.scaling.news import news
from daskml_scale.scaling.policy import Decision, Limits

REPEATABLE = settings(deadline=None, derandomize=True)
CPU = Shape("cpu", threads=1)
decisions = st.builds(
    lambda launch, backlog, caps: Decision("cpu", 1, 1 + launch, launch=launch, backlog_seconds=backlog, caps=caps),
    st.integers(0, 1),
    st.sampled_from([0.0, 5.0]),
    st.lists(st.sampled_from(["maximum", "rate", "budget"]), unique=True, max_size=2).map(tuple),
)


@REPEATABLE
@given(st.lists(decisions, max_size=30))
def test_a_limit_is_told_once_until_nothing_is_held_back(stream: list[Decision]) -> None:
    told: frozenset[str] = frozenset()
    heard: set[str] = set()
    for decision in stream:
        said, told = news(decision, told)
        assert said == (decision.changes or not set(decision.caps) <= heard)
        heard |= set(decision.caps)
        if not (decision.changes or decision.caps or decision.backlog_seconds):
            heard = set()


def test_work_of_unknown_duration_at_the_maximum_is_told_once() -> None:
    """Unknown seconds make a backlog of 0 s: that is not the end of the work."""
    controller = Controller([CPU], {"cpu": Limits(maximum=2)}, {"cpu": 1.0})
    have, told, said = [WorkerView("cpu-0", True), WorkerView("cpu-1", True)], frozenset[str](), 0
    for tick in range(60):
        demands = [Demand("stage", 1000, 1000, None)]
        (decision,) = controller.step(demands, {"cpu": have}, 0.5 * tick)
        assert decision.backlog_seconds == 0
        new, told = news(decision, told)
        said += new
    assert (said, told) == (1, {"maximum"})
    (decision,) = controller.step([], {"cpu": have}, 31.0)
    assert news(decision, told)[1] == frozenset()
