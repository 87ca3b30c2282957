"""Reading the scheduler's snapshot, and giving demands to classes."""

from __future__ import annotations

from typing import Any

from daskml_scale.scaling.demand import Demand, Shape, WorkerView, assign, read

CPU = Shape("cpu", threads=2)
GPU = Shape("gpu", threads=4, resources={"GPU": 1.0})


def worker(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "status": "running", "idle_since": None, "unique_bytes": 0, **changes}


def test_stages_and_other_tasks_become_demands():
    raw = {
        "stages": [
            {
                "stage": "predict",
                "units_left": 9,
                "runnable": 9,
                "in_flight": 4,
                "seconds_per_unit": 2.0,
                "resources": {},
            }
        ],
        "tasks": [
            {"prefix": "inc", "waiting": 3, "ready": 2, "processing": 1, "seconds": None, "resources": {"GPU": 1}},
            {"prefix": "gone", "waiting": 0, "ready": 0, "processing": 0, "seconds": None, "resources": {}},
        ],
        "workers": [],
    }
    demands, _ = read(raw, {})
    assert demands == [Demand("predict", 9, 9, 2.0, {}), Demand("inc tasks", 6, 3, None, {"GPU": 1})]


def test_workers_are_those_planned_and_not_leaving():
    raw = {
        "stages": [],
        "tasks": [],
        "workers": [
            worker("cpu-0"),
            worker("cpu-1", idle_since=5.0, unique_bytes=7),
            worker("stranger"),
            worker("cpu-3"),
        ],
    }
    planned = dict.fromkeys(["cpu-0", "cpu-1", "cpu-2", "cpu-3"], "cpu") | {"gpu-0": "gpu"}
    _, workers = read(raw, planned, leaving=["cpu-3"])
    assert workers == {
        "cpu": [
            WorkerView("cpu-0", True, None, 0),
            WorkerView("cpu-1", True, 5.0, 7),
            WorkerView("cpu-2", ready=False),
        ],
        "gpu": [WorkerView("gpu-0", ready=False)],
    }


def test_a_worker_that_closes_is_not_counted():
    raw = {"stages": [], "tasks": [], "workers": [worker("cpu-0", status="closing_gracefully")]}
    assert read(raw, {"cpu-0": "cpu"})[1] == {"cpu": []}


def test_a_worker_that_has_registered_and_does_not_run_yet_is_starting():
    """It is there: who does not count it asks for another one, above the maximum."""
    raw = {"stages": [], "tasks": [], "workers": [worker("cpu-0", status="init"), worker("cpu-1")]}
    found = read(raw, {"cpu-0": "cpu", "cpu-1": "cpu"})[1]["cpu"]
    assert found == [WorkerView("cpu-0", ready=False), WorkerView("cpu-1")]
    grouped = read(raw, {"pair": "cpu"}, groups={"pair": ("cpu-0", "cpu-1")})[1]["cpu"]
    assert [view.ready for view in grouped] == [True]


def test_slots_are_limited_by_every_resource():
    shape = Shape("gpu", threads=8, resources={"GPU": 2.0, "licence": 3.0})
    assert shape.slots({}) == 8
    assert shape.slots({"GPU": 1}) == 2
    assert shape.slots({"GPU": 0.5, "licence": 1}) == 3
    assert shape.slots({"TPU": 1}) == 0


def test_ten_tasks_that_need_a_tenth_run_at_a_time():
    assert Shape("gpu", threads=20, resources={"GPU": 1.0}).slots({"GPU": 0.1}) == 10  # 1.0 // 0.1 is 9


def test_plain_work_stays_off_special_workers_at_equal_prices():
    given, infeasible = assign([Demand("a", 1, 1), Demand("b", 1, 1, None, {"GPU": 1})], [GPU, CPU])
    assert [demand.name for demand in given["cpu"]] == ["a"]
    assert [demand.name for demand in given["gpu"]] == ["b"]
    assert infeasible == ()


def test_the_cheapest_slot_wins():
    small, large = Shape("small", threads=1, price=1.0), Shape("large", threads=8, price=4.0)
    given, _ = assign([Demand("a", 1, 1)], [small, large])
    assert [demand.name for demand in given["large"]] == ["a"]


def test_infeasible_demand_is_reported_with_what_is_offered_and_asks_for_nobody():
    given, infeasible = assign([Demand("infer", 5, 5, 1.0, {"GPU": 2})], [CPU, GPU])
    assert given == {"cpu": [], "gpu": []}
    assert infeasible == (
        "infer: a task needs GPU 2 and no class of this cluster offers that "
        "(classes: cpu without resources, gpu with GPU 1)",
    )
