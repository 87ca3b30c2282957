"""What workers elsewhere wrote: where it is, which worker's, and files that are turned over while they are read."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from daskml_scale.deploy import places
from daskml_scale.errors import StoreError, UsageError
from daskml_scale.events import ClusterStarted
from daskml_scale.runs.event_log import EventLog, path_of
from daskml_scale.runs.records import Registry
from daskml_scale.runs.state import RunRecord
from daskml_scale.runs.worker_logs import Tail, lines


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "home" / "registry.db")


def made(registry: Registry, *logs: Path | str) -> RunRecord:
    """A running run whose clusters keep their logs there."""
    now = time.time()
    run = registry.create(workflow="w", source="w", store="s", cluster="c", command=["run", "w"], cwd="/", now=now)
    with EventLog(path_of(registry.path.parent, run.id), lambda text: None) as log:
        for where in logs:
            log.sink(ClusterStarted(time=now, run=run.id, cluster="c", dashboard="", logs=str(where)))
    return registry.start(run, host="elsewhere", pid=1, now=now)


def test_one_worker_is_shown_as_it_wrote_and_several_with_their_names(registry, tmp_path):
    (tmp_path / "cpu-0.log").write_text("a\nb\n")
    (tmp_path / "cpu-1.log").write_text("c\nno end")
    (tmp_path / "scheduler.log").write_text("d\n")
    run = made(registry, tmp_path)
    assert list(lines(registry, run, "cpu-0")) == ["a", "b"]
    assert list(lines(registry, run, "cpu-*")) == ["cpu-0: a", "cpu-0: b", "cpu-1: c", "cpu-1: no end"]
    with pytest.raises(UsageError, match=r"called 'gpu-0'; there are cpu-0, cpu-1, scheduler"):
        list(lines(registry, run, "gpu-0"))


def test_a_run_whose_workers_wrote_into_its_own_log_says_where(registry, tmp_path):
    run = made(registry, "")
    with pytest.raises(StoreError, match=f"daskml-scale logs {run.id}"):
        list(lines(registry, run, "*"))
    gone = made(registry, tmp_path / "removed")
    with pytest.raises(StoreError, match="removed"):
        list(lines(registry, gone, "*"))


def test_following_waits_for_workers_that_come_later_and_ends_with_the_run(registry, tmp_path):
    folder = tmp_path / "logs"
    run, steps = made(registry, folder), []

    def sleep(seconds: float) -> None:
        steps.append(seconds)
        match len(steps):
            case 1:
                folder.mkdir()
                (folder / "cpu-0.log").write_text("first\nhal")
            case 2:
                with (folder / "cpu-0.log").open("a") as file:
                    file.write("f\n")
            case 3:
                (folder / "cpu-1.log").write_text("second\n")
                registry.finish(run.id, run.epoch, now=time.time(), state="succeeded", exit_code=0)

    assert list(lines(registry, run, "*", follow=True, sleep=sleep)) == ["first", "half", "cpu-1: second"]
    assert len(steps) == 3


def test_a_log_that_is_turned_over_while_it_is_read_loses_no_line(tmp_path, monkeypatch):
    monkeypatch.setenv("DASKML_SCALE_HOME", str(tmp_path))
    monkeypatch.setattr(places, "LOG_BYTES", 1000)
    place = places.Place("one")
    place.make()
    tail, told = Tail(place.logs / "cpu-0.log"), list[str]()
    for number in range(200):
        place.log("cpu-0", f"line {number}\n")
        if number % 10 == 0:  # less often than it is turned over, it would be too late
            told += tail.lines()
    place.ended("cpu-0")
    assert (place.logs / "cpu-0.log.1").exists()
    assert [*told, *tail.lines(last=True)] == [f"line {number}" for number in range(200)]
    tail.close()


def test_what_was_turned_over_before_comes_first(tmp_path):
    (tmp_path / "cpu-0.log.1").write_text("old\n")
    (tmp_path / "cpu-0.log").write_text("new\n")
    with closing(Tail(tmp_path / "cpu-0.log")) as tail:
        assert list(tail.lines(last=True)) == ["old", "new"]
