"""The curves: how points are formed, what the model says of many workers, and a whole small run when asked for."""

from __future__ import annotations

import json

import pytest

from benchmarks import growth
from benchmarks.curves import curves


def test_efficiency_is_formed_within_rounds():
    one, two = growth.efficiency({1: [10.0, 12.0, 10.0], 2: [5.0, 8.0, 10.0]})
    assert one == (1, 1.0, 1.0, 1.0)
    assert two == (2, 0.75, 0.5, 1.0)


def test_tables_grow_threefold_to_the_size_that_is_asked_for():
    assert growth.sizes_to(10**8) == [10**7, 3 * 10**7, 10**8]
    assert growth.sizes_to(10**10)[-1] == 10**10


def test_simulated_lines_are_marked_and_no_better_than_their_slots(monkeypatch):
    monkeypatch.setattr(growth, "WORKERS", (1, 100))
    lines = growth.simulated(seconds=20.0)
    assert all(line["simulated"] for line in lines)
    assert all(0 < point[1] <= 1 for line in lines for point in line["points"])


@pytest.mark.faults_long
@pytest.mark.timeout(900)
def test_a_small_run_writes_curves_that_the_page_can_draw(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "sizes_to", lambda most: [10**6, 10**7])
    target = tmp_path / "growth.json"
    growth.main(["--small", "--repeat", "1", "--json", str(target)])
    against_workers, against_data = curves({"growth": json.loads(target.read_text())})
    assert against_workers.y == "efficiency"
    assert [line.simulated for line in against_workers.lines] == [False, False, True, True, True]
    assert [point[0] for point in against_data.lines[0].points] == [1.0, 10.0]
    assert all(line.exponent for line in against_data.lines)
