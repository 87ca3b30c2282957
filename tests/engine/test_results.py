"""Small results travel with the message that their task is done; what does not is asked for. Counted, never timed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from daskml_scale.engine.dispatch import dispatch
from daskml_scale.engine.results import OPERATION, SMALL, Arrivals, pass_on
from daskml_scale.plan.units import Unit

SIZE = 2 * SMALL


@pytest.fixture
def asked(client: Any) -> Iterator[list[str]]:
    """The keys of results that the driver asks for."""
    found: list[str] = []
    gather = client.gather
    client.gather = lambda future, **options: found.append(future.key) or gather(future, **options)
    yield found
    del client.gather


def run(kernel: Any, number: int, client: Any) -> list[Any]:
    units = [Unit(f"{index:03d}", index) for index in range(number)]
    return [
        outcome.value if outcome.ok else outcome.error
        for group in dispatch(kernel, None, units, name="results", client=client)
        for outcome in group
    ]


def test_nobody_asks_for_small_results(client: Any, asked: list[str]):
    assert sorted(run(lambda unit, worker: unit.payload, 200, client)) == list(range(200))
    assert asked == []
    assert Arrivals.of(client)._results == {}


def test_large_results_are_asked_for(client: Any, asked: list[str]):
    assert [len(value) for value in run(lambda unit, worker: bytes(SIZE), 3, client)] == [SIZE] * 3
    assert len(asked) >= 1


def test_what_a_task_raises_is_asked_for(client: Any, asked: list[str]):
    class Unknown:
        """Cannot be made on a worker."""

        def __reduce__(self) -> Any:
            return int, ("no number",)

    found = [o for g in dispatch(Broken(), Unknown(), [Unit("0", 0)], name="results", client=client) for o in g]
    assert [outcome.ok for outcome in found] == [False]
    assert "no number" in found[0].error
    assert len(asked) == 1


class Broken:
    def __call__(self, unit: Unit, worker: Any) -> int:
        return 1


def test_a_scheduler_that_passes_nothing_on_is_asked(client: Any, asked: list[str], monkeypatch: pytest.MonkeyPatch):
    from daskml_scale.engine.reporter import BacklogReporter

    send = BacklogReporter._send

    def older(self: BacklogReporter, **values: Any) -> bool:
        sent = send(self, **values)
        self.passes_on = False
        return sent

    monkeypatch.setattr(BacklogReporter, "_send", older)
    assert sorted(run(lambda unit, worker: unit.payload, 20, client)) == list(range(20))
    assert asked


def test_results_for_drivers_that_are_gone_go_nowhere(client: Any):
    def gone(dask_scheduler: Any) -> bool:
        pass_on(dask_scheduler, "nobody", "key", ["worker", b""])
        return OPERATION in dask_scheduler.stream_handlers

    run(lambda unit, worker: unit.payload, 1, client)
    assert client.run_on_scheduler(gone)
    arrivals = Arrivals.of(client)
    arrivals("late", ["worker", b""])
    assert arrivals._results == {}
