"""``dms.backlog()``: the scheduler's counts as an object, a text and a table."""

from __future__ import annotations

import threading
import time

import pytest

import daskml_scale as dms
from daskml_scale.engine.backlog_view import Backlog, BacklogRow, of_snapshot
from daskml_scale.errors import ClusterError, UsageError


@pytest.fixture(scope="module")
def plain():
    """A cluster that somebody else started: no plugin of ours."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as found,
    ):
        yield found


def eventually(look, seconds=30):
    until = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def names(found):
    return {row.name for row in found.rows}


def test_an_idle_cluster_has_no_backlog(plain):
    found = dms.backlog(plain)
    assert (found.units, found.seconds, found.rows) == (0, 0.0, ())
    assert (found.workers, found.slots, found.busy) == (2, 2, 0)
    assert repr(found) == "Backlog: 0 units, 0 worker-seconds; 2 workers (2 slots, 0 busy)"


def test_a_running_map_and_other_tasks_are_listed(plain):
    dms.backlog(plain)
    others = plain.map(lambda number: time.sleep(0.2), range(100), key="theirs", pure=False)
    work = threading.Thread(
        target=lambda: dms.map(lambda item: time.sleep(0.02), range(300), client=plain, name="mine")
    )
    work.start()
    try:
        found = eventually(lambda: next((b for b in [dms.backlog(plain)] if {"mine"} <= names(b)), None))
        mine = next(row for row in found.rows if row.name == "mine")
        theirs = next(row for row in found.rows if row.kind == "tasks")
        assert mine.kind == "stage"
        assert 0 < mine.units <= 300
        assert 0 < theirs.units <= 100
        assert found.units == mine.units + theirs.units
        assert found.rows[0] is mine
    finally:
        plain.cancel(others, force=True)
        work.join()
    assert eventually(lambda: dms.backlog(plain).units == 0)


def test_the_default_client_is_used_and_asked_for(plain):
    with pytest.raises(UsageError, match="there is no Dask client in this process; give one"):
        dms.backlog()
    with plain.as_current():
        assert dms.backlog().workers == 2


def test_a_scheduler_that_is_gone_is_named():
    from distributed import Client, LocalCluster

    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        gone = Client(cluster, set_as_default=False)
        gone.close()
    with pytest.raises(ClusterError, match="the scheduler does not answer"):
        dms.backlog(gone)


ROW = BacklogRow("<b>x</b>", "stage", 1_000_000, 900, 12, 0.0123456, {"GPU": 1.0})


def test_the_table_has_the_numbers_and_escapes_names():
    found = Backlog(0.0, (ROW,), 1, 4, 1)._repr_html_()
    assert "&lt;b&gt;x&lt;/b&gt;" in found
    assert "<b>" not in found
    for text in ("1,000,000", "0.0123", "12,346", "GPU 1", "1 worker (4 slots, 1 busy)"):
        assert text in found


def test_the_text_is_a_table():
    assert repr(Backlog(0.0, (ROW,), 1, 4, 1)).splitlines() == [
        "Backlog: 1,000,000 units, 12,346 worker-seconds; 1 worker (4 slots, 1 busy)",
        "work      kind   units left  runnable  in flight  seconds each  seconds left  needs",
        "<b>x</b>  stage  1,000,000   900       12         0.0123        12,346        GPU 1",
    ]


def test_unknown_durations_are_unknown():
    task = {"prefix": "f", "resources": {}, "waiting": 1, "ready": 2, "processing": 3, "seconds": None}
    found = of_snapshot({"time": 1.0, "stages": [], "tasks": [task], "workers": []})
    (row,) = found.rows
    assert (row.units, row.runnable, row.in_flight, row.seconds) == (6, 5, 3, None)
    assert found.seconds == 0.0
    assert "?" in repr(found)
