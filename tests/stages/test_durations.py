"""Durations: measured by one run, the first estimate of the next."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import pytest

from daskml_scale.plan.records import select
from daskml_scale.plan.units import Outcome, Parts, Unit
from daskml_scale.stages.base import StageBase
from daskml_scale.stages.durations import KEPT, Durations, remember, remembered
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import files


def outcome(seconds: float, weight: float, error: str = "") -> Outcome:
    return Outcome(Unit("a", None, weight), seconds=seconds, error=error)


def test_the_mean_over_weight_is_remembered_by_kind_code_and_parameters(tmp_path):
    url = str(tmp_path)
    durations = Durations(url, "map")
    assert durations.estimate(Parts(code="1")) is None
    durations.add(Parts(code="1"), [outcome(1.0, 10.0), outcome(3.0, 10.0), outcome(9.0, 1.0, "failed")])
    durations.add(Parts(code="1"), [outcome(2.0, 20.0)])
    durations.add(Parts(code="2", parameters="x"), [outcome(5.0, 1.0)])
    durations.add(Parts(code="3"), [])
    durations.keep()
    again = Durations(url, "map")
    assert again.estimate(Parts(code="1")) == pytest.approx(0.15)
    assert again.estimate(Parts(code="2", parameters="x")) == 5.0
    assert again.estimate(Parts(code="2")) is None
    assert again.estimate(Parts(code="3")) is None
    assert Durations(url, "ingest").estimate(Parts(code="1")) is None


def test_small_changes_write_nothing_and_old_entries_go(tmp_path):
    url = str(tmp_path)
    remember(url, ("a",), 1.0)
    before = files.read_bytes(f"{url}/durations.json")
    remember(url, ("a",), 1.05)
    assert files.read_bytes(f"{url}/durations.json") == before
    remember(url, ("a",), 2.0)
    assert remembered(url, ("a",)) == 2.0
    for number in range(KEPT):
        remember(url, (number,), 1.0)
    assert remembered(url, ("a",)) is None
    assert remembered(url, (KEPT - 1,)) == 1.0


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"x": "y"}'])
def test_a_damaged_file_is_as_none(tmp_path, content):
    (tmp_path / "durations.json").write_bytes(content)
    assert remembered(str(tmp_path), ("a",)) is None
    remember(str(tmp_path), ("a",), 1.0)
    assert remembered(str(tmp_path), ("a",)) == 1.0


@dataclass(frozen=True)
class Sleeping(StageBase):
    count: int = 30
    kind: str = "sleeping"

    def plan(self, inputs: Any, records: Any) -> Any:
        units = [(Unit(f"{number:04d}", number, 2.0), "") for number in range(self.count)]
        return select(units, Parts(code="sleeping-1"), records)

    def kernel(self, unit: Unit, worker: Any) -> Any:
        import time

        time.sleep(0.01 if unit.payload < 30 else 0.0001)
        return unit.payload


def test_a_stage_remembers_and_its_next_run_starts_from_there(own_client, tmp_path):
    """With the estimate the first task holds many units; without it, one."""
    sizes: list[int] = []
    submit = own_client.submit

    def counted(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(pickle.loads(args[3])[0]))
        return submit(*args, **kwargs)

    own_client.submit = counted
    try:
        run_stage(Sleeping("s", str(tmp_path / "s.ledger")), client=own_client)
        assert sizes[0] == 1
        found = remembered(str(tmp_path / "s.ledger"), ("sleeping", "sleeping-1", ""))
        assert found is not None
        assert 0.005 <= found < 0.5
        sizes.clear()
        run_stage(Sleeping("s", str(tmp_path / "s.ledger"), count=1000), client=own_client)
        assert sizes[0] > 1
    finally:
        del own_client.submit
