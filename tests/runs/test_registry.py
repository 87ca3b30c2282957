"""The registry: ids, leases, fencing, two writers, and what it says when the disk or the file is bad."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.errors import ConflictError, Exit, StoreError, UsageError
from daskml_scale.runs.process import gone
from daskml_scale.runs.records import START_GRACE, Registry
from daskml_scale.runs.rows import HOLD
from daskml_scale.runs.schema import SCHEMA_VERSION
from daskml_scale.runs.state import RunRecord, StageRecord, home, run_id, state_at

NOW = 1_795_334_400.0
NOBODY = 65534


def new(registry: Registry, now: float = NOW, workflow: str = "flights", **changes: str) -> RunRecord:
    values = {"source": "flights.yaml", "store": "runs/flights", "cluster": "local", "cwd": "/data", **changes}
    return registry.create(workflow=workflow, command=["run", workflow], now=now, **values)


def started(registry: Registry, now: float = NOW) -> RunRecord:
    return registry.start(new(registry, now), host="here", pid=7, now=now)


def test_an_id_names_workflow_and_day_and_is_short():
    assert run_id("flights", NOW) == "flights-20261122-5555"


@settings(deadline=None)
@given(st.floats(0, 4e9), st.floats(1.4, 1e9))
def test_ids_of_a_workflow_sort_by_time(now, later):
    assert run_id("w", now) < run_id("w", now + later)


def test_two_runs_of_the_same_instant_get_different_ids(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    assert [new(registry).id[-4:] for _ in range(3)] == ["5555", "5556", "5557"]


@settings(deadline=None)
@given(
    st.sampled_from(["queued", "running", "succeeded", "partial", "failed", "interrupted"]),
    st.floats(0, 9),
    st.floats(0, 9),
)
def test_only_a_live_run_with_an_expired_lease_is_lost(state, until, now):
    expected = "lost" if state in ("queued", "running") and now > until else state
    assert state_at(state, until, now) == expected


def test_a_record_comes_back_as_it_was_written(tmp_path):
    run = new(Registry(tmp_path / "a" / "registry.db"), store="s3://bucket/ü x")
    assert Registry(tmp_path / "a" / "registry.db").get(run.id, now=NOW) == run


def test_reading_an_absent_registry_finds_nothing_and_creates_nothing(tmp_path):
    registry = Registry(tmp_path / "x" / "registry.db")
    assert registry.list(now=NOW) == []
    with pytest.raises(UsageError, match="there are no runs yet"):
        registry.get(now=NOW)
    assert list(tmp_path.iterdir()) == []


def test_stages_are_replaced_as_a_whole_and_in_order(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    run = started(registry)
    first = [StageRecord("z", "ingest", "running", units=3), StageRecord("a", "predict")]
    second = [StageRecord("z", "ingest", "ok", units=3, done=3, seconds=1.5), StageRecord("a", "predict", eta=2.0)]
    assert registry.beat(run.id, run.epoch, now=NOW + 1, stages=first)
    assert registry.beat(run.id, run.epoch, now=NOW + 2, stages=second)
    assert registry.beat(run.id, run.epoch, now=NOW + 3)
    assert registry.get(run.id, now=NOW).stages == tuple(second)
    assert registry.list(now=NOW)[0].stages == tuple(second)


def test_a_run_is_lost_when_its_lease_expires_and_is_back_with_the_next_beat(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    run = started(registry)
    assert registry.get(run.id, now=NOW + HOLD).state == "running"
    assert registry.get(run.id, now=NOW + HOLD + 1).state == "lost"
    assert registry.list(now=NOW + HOLD + 1)[0].state == "lost"
    assert registry.beat(run.id, run.epoch, now=NOW + 100)
    assert registry.get(run.id, now=NOW + 101).state == "running"


def test_a_queued_run_whose_process_never_started_is_lost(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    run = new(registry)
    assert registry.get(run.id, now=NOW + START_GRACE).state == "queued"
    assert registry.get(run.id, now=NOW + START_GRACE + 1).state == "lost"


def test_lost_is_not_stored(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    run = started(registry)
    assert registry.get(run.id, now=NOW + 1e6).state == "lost"
    with sqlite3.connect(registry.path) as connection:
        assert connection.execute("select state from runs").fetchall() == [("running",)]


def test_a_run_is_started_once(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    run = new(registry)
    assert registry.start(run, host="a", pid=1, now=NOW).epoch == 1
    with pytest.raises(ConflictError, match=r"cannot be started: it is running \(epoch 1\)") as caught:
        registry.start(run, host="b", pid=2, now=NOW)
    assert caught.value.exit_code == Exit.CONFLICT
    with pytest.raises(ConflictError, match="running"):
        registry.start(registry.get(run.id, now=NOW), host="b", pid=2, now=NOW)
    found = registry.get(run.id, now=NOW)
    assert (found.host, found.pid) == ("a", 1)


def test_a_finished_run_is_not_started_again(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    run = started(registry)
    assert registry.finish(run.id, run.epoch, now=NOW + 5, state="succeeded", exit_code=0)
    with pytest.raises(ConflictError, match="it is succeeded"):
        registry.start(registry.get(run.id, now=NOW + 99), host="b", pid=2, now=NOW + 99)


def test_a_replaced_process_cannot_write_any_more(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    old = started(registry)
    late = NOW + HOLD + 1
    fresh = registry.start(registry.get(old.id, now=late), host="other", pid=8, now=late)
    before = registry.get(old.id, now=late)
    assert not registry.beat(old.id, old.epoch, now=late + 1, stages=[StageRecord("zombie")])
    assert not registry.finish(old.id, old.epoch, now=late + 1, state="failed", exit_code=1, stages=[])
    assert registry.get(old.id, now=late) == before
    assert registry.beat(old.id, fresh.epoch, now=late + 2, stages=[StageRecord("mine")])
    assert registry.finish(old.id, fresh.epoch, now=late + 3, state="partial", exit_code=4, summary={"rows": 3})
    found = registry.get(old.id, now=late + 1e6)
    assert (found.state, found.exit_code, found.summary, found.finished) == ("partial", 4, {"rows": 3}, late + 3)


def test_nothing_is_written_after_the_end(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    run = started(registry)
    registry.finish(run.id, run.epoch, now=NOW + 5, state="failed", exit_code=1, message="no")
    assert not registry.beat(run.id, run.epoch, now=NOW + 6)
    assert not registry.finish(run.id, run.epoch, now=NOW + 6, state="succeeded", exit_code=0)
    assert registry.get(run.id, now=NOW + 1e6).state == "failed"


def test_runs_are_found_by_unique_prefix_and_the_newest_without_one(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    first, second = new(registry, NOW), new(registry, NOW + 86400)
    other = new(registry, NOW + 10, workflow="fleet")
    assert registry.get("flights-20261122", now=NOW).id == first.id
    assert registry.get("fle", now=NOW).id == other.id
    assert registry.get(now=NOW).id == second.id
    assert [run.id for run in registry.list(now=NOW)] == [second.id, other.id, first.id]
    assert [run.id for run in registry.list(now=NOW, limit=1)] == [second.id]


def test_an_id_that_is_the_beginning_of_another_is_found(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    short = new(registry, workflow="w")
    new(registry, workflow=short.id)
    assert registry.get(short.id, now=NOW).id == short.id


def test_a_wrong_or_ambiguous_id_is_explained(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    run = new(registry)
    new(registry)
    with pytest.raises(
        UsageError, match="beginning of more than one run: flights-20261122-5556, flights-20261122-5555"
    ):
        registry.get("fli", now=NOW)
    with pytest.raises(UsageError, match=f"did you mean {run.id}"):
        registry.get(run.id.replace("flights", "fligths"), now=NOW)
    with pytest.raises(UsageError, match="no run '%'; see: daskml-scale list"):
        registry.get("%", now=NOW)


def test_wal_and_full_sync_are_in_force(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    new(registry)
    with registry._read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_a_damaged_file_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "registry.db"
    path.write_bytes(b"this is not a database, " * 200)
    for use in (lambda: new(Registry(path)), lambda: Registry(path).list(now=NOW), lambda: Registry(path).get(now=NOW)):
        with pytest.raises(StoreError, match=r"registry\.db: .*not a database.*mv .*results and what a run can reuse"):
            use()
    assert path.read_bytes().startswith(b"this is not")


def test_a_file_damaged_in_the_middle_is_named_too(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    for second in range(400):
        new(registry, NOW + 2 * second)
    with sqlite3.connect(registry.path) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    registry.close()
    data = bytearray(registry.path.read_bytes())
    data[4096 * 2 :] = os.urandom(len(data) - 4096 * 2)
    registry.path.write_bytes(data)
    with pytest.raises(StoreError, match=r"malformed.*mv "):
        registry.list(now=NOW)


def test_a_newer_schema_is_refused_and_left_alone(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    new(registry)
    registry.close()
    with sqlite3.connect(registry.path) as connection:
        connection.execute(f"pragma user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match=f"version {SCHEMA_VERSION + 1}.*reads up to {SCHEMA_VERSION}; upgrade"):
        registry.list(now=NOW)


def test_a_full_disk_is_reported_and_the_registry_stays_whole(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    run = started(registry)
    with registry._write() as connection:
        size = connection.exec_driver_sql("PRAGMA page_count").scalar()
    engine = registry._opened()
    engine.dispose()
    # SQLite's own limit gives the same error code as a full file system.
    sa.event.listen(engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {size}"))
    with pytest.raises(StoreError, match=r"disk is full.*free some space"):
        registry.beat(run.id, run.epoch, now=NOW, stages=[StageRecord("x" * 100_000)])
    registry.close()
    assert registry.get(run.id, now=NOW) == replace(run, stages=())


def test_a_file_where_the_directory_should_be_is_reported(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(StoreError, match=r"Not a directory.*set DASKML_SCALE_HOME|File exists.*set DASKML_SCALE_HOME"):
        new(Registry(tmp_path / "home" / "registry.db"))


UNPRIVILEGED = """
import os, sys
from pathlib import Path
sys.path[:0] = {paths!r}
import sqlite3  # while it may still be read
from daskml_scale.errors import StoreError
from daskml_scale.runs.records import Registry
if os.getuid() == 0:
    os.setgid({nobody}); os.setuid({nobody})
try:
    Registry(Path(sys.argv[1])).create(workflow="w", source="", store="", cluster="", command=[], cwd="", now=0.0)
except StoreError as error:
    sys.exit(f"said: {{error}}")
"""


def unprivileged(path: Path) -> str:
    """Return what creating a run in ``path`` says to a user without rights on it."""
    code = UNPRIVILEGED.format(paths=[entry for entry in sys.path if entry], nobody=NOBODY)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    return done.stderr


@pytest.fixture
def open_path():
    """A directory that any user can reach, unlike pytest's own."""
    import tempfile

    path = Path(tempfile.mkdtemp(prefix="daskml-scale-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_a_directory_without_permission_is_reported(open_path):
    (open_path / "home").mkdir(mode=0o555)
    assert "said: " in (said := unprivileged(open_path / "home" / "sub" / "registry.db"))
    assert "Permission denied" in said
    assert "set DASKML_SCALE_HOME to a directory that you may write" in said


def test_a_registry_that_cannot_be_written_is_reported(open_path):
    registry = Registry(open_path / "registry.db")
    new(registry)
    registry.close()
    registry.path.chmod(0o444)
    open_path.chmod(0o555)
    said = unprivileged(registry.path)
    assert "said: " in said
    assert "set DASKML_SCALE_HOME to a directory that you may write" in said


def test_an_unreadable_directory_is_reported(open_path):
    (open_path / "home").mkdir(mode=0o700)
    said = unprivileged(open_path / "home" / "registry.db")
    assert "said: " in said
    assert "set DASKML_SCALE_HOME to a directory that you may write" in said


WRITER = """
import os, sys
from pathlib import Path
from daskml_scale.runs.records import Registry
from daskml_scale.runs.state import StageRecord
registry = Registry(Path(sys.argv[1]))
for step in range(40):
    now = 1e9 + step
    run = registry.create(workflow="w", source="", store="", cluster="", command=[], cwd="", now=now)
    run = registry.start(run, host="h", pid=os.getpid(), now=now)
    assert registry.beat(run.id, run.epoch, now=now, stages=[StageRecord("a", units=step)])
    assert registry.finish(run.id, run.epoch, now=now + 1, state="succeeded", exit_code=0)
print("done")
"""


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path):
    path = tmp_path / "registry.db"
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ends = [writer.communicate(timeout=120) for writer in writers]
    assert [out for out, _ in ends] == ["done\n"] * 2, ends
    runs = Registry(path).list(now=2e9)
    assert len(runs) == 80
    assert len({run.id for run in runs}) == 80
    assert {run.state for run in runs} == {"succeeded"}
    assert {writer.pid for writer in writers} == {run.pid for run in runs}


HOLDER = """
import os, sys, time
from pathlib import Path
from daskml_scale.runs.records import Registry
registry = Registry(Path(sys.argv[1]))
run = registry.create(workflow="w", source="", store="", cluster="", command=[], cwd="", now=time.time())
run = registry.start(run, host="h", pid=os.getpid(), now=time.time())
print(run.id, flush=True)
while registry.beat(run.id, run.epoch, now=time.time()):
    time.sleep(0.02)
"""


def test_a_killed_process_leaves_a_run_that_turns_lost(tmp_path):
    path = tmp_path / "registry.db"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    name = holder.stdout.readline().strip()
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    registry = Registry(path)
    until = registry.get(name, now=0.0).lease_until
    assert registry.get(name, now=until).state == "running"
    assert registry.get(name, now=until + 0.1).state == "lost"
    again = registry.start(registry.get(name, now=until + 0.1), host="h", pid=1, now=until + 0.1)
    assert again.epoch == 2


def test_home_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DASKML_SCALE_HOME", str(tmp_path))
    assert home() == tmp_path
    assert Registry().path == tmp_path / "registry.db"
    monkeypatch.delenv("DASKML_SCALE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert home() == tmp_path / "xdg" / "daskml-scale"


def test_a_run_whose_process_is_gone_from_this_machine_is_lost_at_once_and_may_be_taken(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    here, now = os.uname().nodename, time.time()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run = registry.start(new(registry, now), host=here, pid=child.pid, now=now)
    assert registry.get(run.id, now=now).state == "running"
    child.kill()
    child.wait()
    assert registry.get(run.id, now=now).state == "lost"
    assert registry.list(now=now)[0].state == "lost"
    again = registry.start(registry.get(run.id, now=now), host=here, pid=os.getpid(), now=now)
    assert (again.epoch, registry.get(run.id, now=now).state) == (2, "running")
    assert not registry.beat(run.id, 1, now=now)


def test_a_process_is_gone_only_for_certain():
    here, now = os.uname().nodename, time.time()
    assert not gone(here, os.getpid(), now)
    assert not gone("elsewhere", 2**22 + 1, now)
    assert not gone(here, 0, None)
    assert gone(here, 2**22 + 1, now)  # no such process
    assert gone(here, os.getpid(), now - 10 * 365 * 86400)  # began later: another process of that number
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert gone(here, child.pid, now)  # ended, and nobody asked yet
    child.wait()
