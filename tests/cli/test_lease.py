"""The lease: heartbeats, the end, a take-over, and a registry that cannot be written for a while."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from daskml_scale.errors import ConflictError, InterruptedRunError, SpecError, UnitsFailedError
from daskml_scale.events import RunStarted, StagePlanned, StageStarted, UnitsCommitted, Warned
from daskml_scale.runs.lease import Lease, ending, failure
from daskml_scale.runs.records import Registry
from daskml_scale.runs.rows import HOLD
from daskml_scale.runs.state import RunRecord

NOW = 1e9
NEVER = 3600.0


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.db")


def started(registry: Registry, now: float = NOW) -> RunRecord:
    run = registry.create(
        workflow="w", source="w.yaml", store="s", cluster="none", command=["run", "w"], cwd="/", now=now
    )
    return registry.start(run, host="h", pid=1, now=now)


def tell(lease: Lease) -> None:
    lease.sink(
        RunStarted(time=NOW, run=lease.run.id, workflow="w", store="s", stages=(("a", "ingest"), ("b", "predict")))
    )
    lease.sink(StageStarted(time=NOW, run=lease.run.id, stage="a", stage_kind="ingest"))
    lease.sink(StagePlanned(time=NOW, run=lease.run.id, stage="a", units=10, reused=2))
    lease.sink(UnitsCommitted(time=NOW + 2, run=lease.run.id, stage="a", units=4))


def test_a_heartbeat_writes_the_progress_and_extends_the_lease(registry):
    lease = Lease(registry, started(registry), every=NEVER)
    tell(lease)
    lease.tick(NOW + 4)
    found = registry.get(lease.run.id, now=NOW)
    first, second = found.stages
    assert found.lease_until == NOW + 4 + HOLD
    assert (first.name, first.state, first.done, first.units, first.reused) == ("a", "running", 6, 12, 2)
    assert first.rate > 0
    assert first.eta is not None
    assert (second.name, second.kind, second.state) == ("b", "predict", "waiting")


def test_the_last_warning_is_the_message_of_a_running_run(registry):
    lease = Lease(registry, started(registry), every=NEVER)
    lease.sink(Warned(time=NOW, run=lease.run.id, stage="a", message="4 % missing"))
    lease.tick(NOW)
    assert registry.get(lease.run.id, now=NOW).message == "4 % missing"


def test_heartbeats_come_by_themselves(registry):
    beats = threading.Semaphore(0)
    clock = iter(NOW + step for step in range(1, 10**6))

    def tick() -> float:
        beats.release()
        return next(clock)

    with Lease(registry, started(registry), every=0.005, clock=tick) as lease:
        for _ in range(5):
            assert beats.acquire(timeout=30)
    assert registry.get(lease.run.id, now=NOW).state == "failed"  # nothing was said about the end
    assert not any(thread.name == f"lease of {lease.run.id}" for thread in threading.enumerate())


def test_the_end_is_written_with_the_summary_and_the_last_progress(registry):
    with Lease(registry, started(registry), every=NEVER, clock=lambda: NOW + 9) as lease:
        tell(lease)
        lease.ended("partial", 4, {"rows_predicted": 3})
    found = registry.get(lease.run.id, now=NOW + 1e6)
    assert (found.state, found.exit_code, found.finished, found.summary) == (
        "partial",
        4,
        NOW + 9,
        {"rows_predicted": 3},
    )
    assert [stage.done for stage in found.stages] == [6, 0]


@pytest.mark.parametrize(
    ("error", "state", "code", "message"),
    [
        (UnitsFailedError("3 units"), "failed", 1, "3 units"),
        (SpecError("bad", file="f", line=3), "failed", 2, "f:3: bad"),
        (ConflictError("in use"), "failed", 3, "in use"),
        (ZeroDivisionError("x"), "failed", 1, "ZeroDivisionError: x"),
        (KeyboardInterrupt(), "interrupted", 130, "stopped; committed work stays"),
        (InterruptedRunError("x"), "interrupted", 130, "stopped; committed work stays"),
    ],
)
def test_an_error_ends_the_run_and_goes_on(registry, error, state, code, message):
    run = started(registry)
    with pytest.raises(type(error)) as caught, Lease(registry, run, every=NEVER):
        raise error
    assert caught.value is error
    found = registry.get(run.id, now=NOW)
    assert (found.state, found.exit_code, found.message) == (state, code, message)
    assert ending(error) == (state, code, message)
    assert failure(error, run)["exit_code"] == code


def test_an_error_as_a_document_tells_place_and_run(registry):
    run = started(registry)
    located = SpecError("no such column", file="w.yaml", line=7, path="stages.a.target")
    assert failure(located) == {
        "error": "w.yaml:7: stages.a.target: no such column", "type": "SpecError", "message": "no such column",
        "file": "w.yaml", "line": 7, "key": "stages.a.target", "exit_code": 2,
    }  # fmt: skip
    found = failure(UnitsFailedError("3 units"), run)
    assert (found["run"], found["state"], found["type"]) == (run.id, "failed", "UnitsFailedError")
    assert (found["message"], found["file"], found["line"], found["key"]) == ("3 units", None, None, None)


def test_leaving_writes_the_interruption_with_the_last_progress(registry):
    lease = Lease(registry, started(registry), every=NEVER)
    tell(lease)
    lease.leave()
    found = registry.get(lease.run.id, now=NOW)
    assert (found.state, found.exit_code) == ("interrupted", 130)
    assert [stage.done for stage in found.stages] == [6, 0]


def test_leaving_does_not_wait_for_a_registry_that_is_held(registry):
    import sqlite3

    lease = Lease(registry, started(registry), every=NEVER)
    with sqlite3.connect(registry.path) as held:
        held.execute("begin immediate")
        lease.leave(patience=0.05)
        held.rollback()
    assert registry.get(lease.run.id, now=NOW).state in ("running", "interrupted")


def test_a_taken_run_stops_at_the_next_event_and_writes_nothing(registry):
    run, late, reached = started(registry), NOW + HOLD + 1, []

    def work() -> None:
        with Lease(registry, run, every=NEVER) as lease:
            tell(lease)
            registry.start(registry.get(run.id, now=late), host="h2", pid=2, now=late)
            lease.tick(late)
            reached.append("told")
            tell(lease)
            reached.append("never")

    with pytest.raises(ConflictError, match=f"run {run.id} was taken over by another process"):
        work()
    found = registry.get(run.id, now=late)
    assert reached == ["told"]
    assert (found.state, found.epoch, found.host, found.stages) == ("running", 2, "h2", ())


def test_a_run_taken_without_notice_does_not_write_its_end(registry):
    run, late = started(registry), NOW + HOLD + 1

    def work() -> None:
        with Lease(registry, run, every=NEVER) as lease:
            registry.start(registry.get(run.id, now=late), host="h2", pid=2, now=late)
            lease.ended("succeeded", 0, {})

    with pytest.raises(ConflictError, match="taken over"):
        work()
    assert registry.get(run.id, now=late).state == "running"


def test_an_unwritable_registry_does_not_stop_the_work_and_is_reported(registry):
    run = started(registry)
    registry.close()
    good = {path: path.read_bytes() for path in registry.path.parent.glob("registry.db*")}
    with Lease(registry, run, every=NEVER) as lease:
        tell(lease)
        registry.path.write_bytes(b"damaged " * 1000)
        lease.tick(NOW + 1)
        assert "registry.db" in lease.trouble
        tell(lease)
        registry.close()
        for path, data in good.items():
            path.write_bytes(data)
        lease.tick(NOW + 2)
        assert lease.trouble == ""
        lease.ended("succeeded", 0, {})
    assert registry.get(run.id, now=NOW).state == "succeeded"
