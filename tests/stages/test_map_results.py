"""``dms.map(out=...)``: durable, resumable, only what is new, changed or failed runs again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import daskml_scale as dms
from daskml_scale.errors import ConflictError, StoreError, UnitsFailedError, UsageError
from daskml_scale.storage import files, result_segments, results
from daskml_scale.storage.lock import hold
from daskml_scale.storage.results import Results


def tracing(folder):
    """A function that leaves a file per call, and a number of how many calls there were."""

    def square(item):
        Path(folder, f"{item}-{time.monotonic_ns()}").touch()
        return item * item

    return square


def calls(folder):
    found = sorted(int(path.name.split("-")[0]) for path in folder.iterdir())
    for path in folder.iterdir():
        path.unlink()
    return found


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / "squares.results")


def test_results_are_kept_and_nothing_runs_twice(place, out, executions):
    square = tracing(str(executions))
    found = dms.map(square, range(200), out=out, client=place)
    assert found == [item * item for item in range(200)]
    assert repr(found) == f"<Results {out}: 200 items, 200 run (200 new), 0 reused>"
    assert len(calls(executions)) == 200
    again = dms.map(square, range(200), out=out, client=place)
    assert again == found
    assert calls(executions) == []
    assert again.reasons == {}
    assert repr(again) == f"<Results {out}: 200 items, all reused>"
    assert dms.open_results(out) == found


def test_the_order_is_that_of_the_items_whatever_finishes_first(own_client, out):
    def late(item):
        time.sleep(0.002 * (item % 7))
        return item

    assert list(dms.map(late, range(300), out=out, client=own_client)) == list(range(300))


def test_only_new_and_changed_items_run(place, out, executions):
    square = tracing(str(executions))
    dms.map(square, [1, 2, 3], out=out, client=place)
    calls(executions)
    found = dms.map(square, [1, 20, 3, 4], out=out, client=place)
    assert found == [1, 400, 9, 16]
    assert calls(executions) == [4, 20]
    assert found.reasons == {"input changed": 1, "new": 1}


def test_fewer_items_leave_the_others_out_and_more_find_them_again(out, executions):
    square = tracing(str(executions))
    dms.map(square, range(10), out=out)
    calls(executions)
    assert dms.map(square, range(4), out=out) == [0, 1, 4, 9]
    assert len(dms.open_results(out)) == 4
    assert dms.map(square, range(10), out=out) == [item * item for item in range(10)]
    assert calls(executions) == []


def test_changed_code_runs_everything_again(out):
    assert dms.map(lambda item: item + 1, range(5), out=out) == [1, 2, 3, 4, 5]
    found = dms.map(lambda item: item + 2, range(5), out=out)
    assert found == [2, 3, 4, 5, 6]
    assert found.reasons == {"code changed": 5}


def test_failed_items_run_again_and_no_others(place, out, executions, tmp_path):
    switch = str(tmp_path / "mended")

    def picky(item):
        Path(executions, f"{item}-{time.monotonic_ns()}").touch()
        if item % 4 == 1 and not os.path.exists(switch):
            raise ValueError(f"bad {item}")
        return item

    with pytest.raises(UnitsFailedError, match=r"3 of 10 items failed; the others are in .*squares.*First: item 1 "):
        dms.map(picky, range(10), out=out, client=place)
    assert len(calls(executions)) == 10
    partly = dms.open_results(out)
    assert partly.complete
    assert sorted(partly.failed) == [1, 5, 9]
    assert partly.failed[5].startswith("ValueError: bad 5\nTraceback")
    assert partly[0] == 0
    with pytest.raises(StoreError, match="item 1 failed: ValueError: bad 1"):
        list(partly)
    Path(switch).touch()
    found = dms.map(picky, range(10), out=out, client=place)
    assert found == list(range(10))
    assert calls(executions) == [1, 5, 9]
    assert found.reasons == {"failed before": 3}


def test_outcomes_of_old_and_new_items_come_lazily(place, out):
    def cube(item):
        return {"cube": np.int32(item**3)}

    dms.map(cube, [1, 2], out=out, client=place)
    found = {int(o.unit.key): o for o in dms.map(cube, [1, 2, 3], out=out, client=place, as_completed=True)}
    assert {number: outcome.value for number, outcome in found.items()} == {
        0: {"cube": 1},
        1: {"cube": 8},
        2: {"cube": 27},
    }
    assert found[2].unit.payload == 3

    def failing(item):
        raise ValueError(item)

    (failed,) = dms.map(failing, [7], out=out + "-failed", client=place, as_completed=True)
    assert (failed.value, failed.error, failed.unit.payload) == (None, "ValueError: 7", 7)
    assert found[0].unit.payload is None
    assert all(outcome.ok and outcome.worker for outcome in found.values())
    assert dms.open_results(out)[1:] == [{"cube": 8}, {"cube": 27}]


def test_values_keep_their_type(place, out):
    values = [
        None,
        True,
        2**80,
        1.5,
        "ä",
        b"\x00",
        [1, (2, 3)],
        {(1, 2): {4}},
        np.arange(3, dtype="int8"),
        np.float32(2),
    ]
    found = list(dms.map(lambda number: values[number], range(len(values)), out=out, client=place))
    assert [type(value) for value in found] == [type(value) for value in values]
    assert found[:8] == values[:8]
    np.testing.assert_array_equal(found[8], values[8])


def test_a_result_that_is_no_data_fails_its_item_and_says_what_to_return(place, out):
    def framed(item):
        import pandas as pd

        return pd.DataFrame({"a": [item]}) if item == 1 else item

    with pytest.raises(
        UnitsFailedError,
        match=r"1 of 3 items failed.*item 1 .*pandas.*DataFrame, which cannot be stored; a result is",
    ):
        dms.map(framed, range(3), out=out, client=place)
    assert dms.open_results(out)[2] == 2


def test_large_values_lie_apart_and_are_read_when_asked_for(place, out):
    found = dms.map(lambda item: bytes([item]) * 100_000, range(20), out=out, client=place)
    assert any(name.endswith(".values") for name in os.listdir(out))
    assert found[7] == bytes([7]) * 100_000
    assert [value[0] for value in found] == list(range(20))


def test_items_that_raise_leave_what_was_done(place, out, executions):
    def broken(until):
        yield from range(until)
        raise OSError("the file ended")

    square = tracing(str(executions))
    with pytest.raises(UsageError, match=r"after item 29 with OSError: the file ended; their results are in "):
        dms.map(square, broken(30), out=out, client=place)
    assert len(calls(executions)) == 30
    incomplete = dms.open_results(out)
    assert not incomplete.complete
    assert repr(incomplete) == f"<Results {out}: 30 items so far; the run was interrupted>"
    assert dms.map(square, range(31), out=out, client=place) == [item * item for item in range(31)]
    assert calls(executions) == [30]


def test_an_item_without_an_identity_is_named_and_those_before_it_are_kept(place, out):
    with pytest.raises(UsageError, match=r"item 2 \(a lock\) cannot be pickled: TypeError: .*; give plain values"):
        dms.map(str, [1, 2, threading.Lock()], out=out, client=place)
    assert list(dms.open_results(out)) == ["1", "2"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("x.zarr", "is the name of a dataset or its ledger.*such as x.results"), ("x.ledger", "is the name of a dataset")],
)
def test_a_name_that_belongs_to_a_dataset_is_refused(tmp_path, name, message):
    with pytest.raises(UsageError, match=message):
        dms.map(str, [1], out=tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"1")
    with pytest.raises(UsageError, match=r"holds other files \(photo.png\); choose a new folder"):
        dms.map(str, [1], out=tmp_path)
    assert os.listdir(tmp_path) == ["photo.png"]


def test_out_must_be_a_path():
    with pytest.raises(UsageError, match="out is a int; give the path of a folder"):
        dms.map(str, [1], out=3)


def test_out_below_a_file_is_refused_before_anything_runs(tmp_path, executions):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/x.*a part of the path is a file"):
        dms.map(tracing(str(executions)), [1], out=tmp_path / "file" / "x")
    assert calls(executions) == []


def test_two_calls_do_not_write_the_same_results_at_once(out):
    program = (
        "import sys; from daskml_scale.storage.lock import hold\n"
        "with hold(sys.argv[1], 'another map'): sys.stdout.write('held\\n'); sys.stdout.flush(); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConflictError, match="in use by another map"):
            dms.map(str, [1], out=out)
    finally:
        other.communicate()
    assert dms.map(str, [1], out=out) == ["1"]
    with hold(out, "nobody"):
        pass


def test_a_torn_segment_is_named_with_the_remedy(out):
    dms.map(str, range(5), out=out)
    segment = Path(out, results.segment_names(out)[0])
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-1])
    with pytest.raises(StoreError, match=rf"{segment} is not a segment of results: it is torn .*remove .*run again"):
        dms.map(str, range(5), out=out)
    segment.write_bytes(b"something else")
    with pytest.raises(StoreError, match="does not begin with daskml-results-1"):
        list(dms.open_results(out))
    segment.unlink()
    assert dms.map(str, range(5), out=out) == list("01234")


def test_altered_values_are_noticed(own_client, out):
    dms.map(lambda item: bytes(300_000), range(2), out=out, client=own_client)
    apart = next(Path(out).glob("*.values"))
    data = bytearray(apart.read_bytes())
    data[5] ^= 1
    apart.write_bytes(data)
    with pytest.raises(StoreError, match=r"values is not a segment of results: it is missing, torn or was altered"):
        list(dms.open_results(out))


def test_there_are_no_results_where_none_were_written(tmp_path):
    with pytest.raises(StoreError, match=r"holds no results; check the path"):
        dms.open_results(tmp_path)


def test_results_may_live_in_memory():
    assert dms.map(str, range(3), out="memory://map/strings") == ["0", "1", "2"]
    assert dms.open_results("memory://map/strings")[-1] == "2"
    files.remove("memory://map/strings")


def test_no_items_are_complete_results(out):
    assert dms.map(str, [], out=out) == []
    assert len(dms.open_results(out)) == 0


def test_a_million_items_are_not_a_million_objects(own_client, out):
    """The driver keeps 27 bytes per item, not an object (counted, not timed)."""
    import tracemalloc

    dms.map(len, ["x"] * 10, out=out, client=own_client)
    tracemalloc.start()
    try:
        found = dms.map(len, ("x" * (number % 5) for number in range(30_000)), out=out, client=own_client)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 30_000
    assert held < 3_000_000
    assert peak < 30_000_000


def test_many_small_segments_are_merged_and_read_the_same(out):
    for last in range(1, 40):
        dms.map(lambda item: item, range(last), out=out)
    names = results.segment_names(out)
    assert len(names) <= results.MANY
    assert list(dms.open_results(out)) == list(range(39))
    found = dms.map(lambda item: item, range(39), out=out)
    assert found.reasons == {}


def test_merging_keeps_errors_codes_workers_and_the_newest_rows(out, tmp_path):
    for last in range(1, 34):
        dms.map(str, range(last), out=out)
    switch = tmp_path / "x"

    def text(item):
        if item == 3 and not switch.exists():
            raise ValueError("three")
        return f"new {item}"

    with pytest.raises(UnitsFailedError):
        dms.map(text, range(34), out=out)
    assert len(results.segment_names(out)) < 5
    found = dms.open_results(out)
    assert found[:3] + found[4:] == [f"new {item}" for item in range(34) if item != 3]
    assert found.failed[3].startswith("ValueError: three")
    switch.touch()
    assert dms.map(text, range(34), out=out).reasons == {"failed before": 1}


def test_outcomes_are_found_where_merging_put_them(out, monkeypatch):
    for last in range(1, results.MANY + 1):
        dms.map(str, range(last), out=out)
    assert len(results.segment_names(out)) == results.MANY
    # The second item's outcome comes, and with it the first one, before the others are read and all are merged.
    monkeypatch.setattr("daskml_scale.engine.dispatch.FLUSH_SECONDS", 0.0)
    items = [0, "changed", *range(2, last)]
    found = {int(o.unit.key): o.value for o in dms.map(str, items, out=out, as_completed=True)}
    assert found == dict(enumerate(map(str, items)))
    assert len(results.segment_names(out)) == 1


def test_two_equal_runs_have_equal_rows_whatever_the_order(own_client, tmp_path):
    def picky(item):
        if item == 5:
            raise ValueError("five")
        return [item]

    found = []
    for name, client in (("a", own_client), ("b", None)):
        with pytest.raises(UnitsFailedError):
            dms.map(picky, range(40), out=tmp_path / name, client=client)
        rows = list(dms.open_results(tmp_path / name).rows())
        assert rows[5]["error"].startswith("ValueError: five")
        assert {row["attempt"] for row in rows} == {1}
        found.append([(row["unit"], row["status"], row["fingerprint"], row["digest"]) for row in rows])
    assert found[0] == found[1]
    assert [row[:2] for row in found[0][4:7]] == [("4", "ok"), ("5", "failed"), ("6", "ok")]
    assert len({row[3] for row in found[0]}) == 40


def test_a_repository_of_arrays_is_refused():
    with pytest.raises(UsageError, match="is an Icechunk repository, which keeps arrays; give a folder"):
        dms.map(str, [1], out="icechunk+file:///tmp/none/x.results")


def test_last_run_tells_of_it(out):
    dms.map(str, range(5), out=out)
    dms.map(str, range(6), out=out, name="texts")
    row = dms.last_run()
    assert (row.name, row.kind, row.units, row.reused) == ("texts", "map", 6, 5)


def test_durations_are_remembered_by_code(own_client, out):
    def slow(item):
        time.sleep(0.01)

    dms.map(slow, range(20), out=out, client=own_client)
    known = files.read_json(f"{out}/durations.json")
    assert len(known) == 1
    assert 0.01 < next(iter(known.values())) < 1


KILLED = """
import sys, time
from pathlib import Path
from distributed import Client, LocalCluster
import daskml_scale as dms

def work(item):
    Path(sys.argv[2], f"{item}-{time.monotonic_ns()}").touch()
    time.sleep(0.01)
    return item * 3

if __name__ == "__main__":
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        sys.stdout.write(f"{len(dms.map(work, range(600), out=sys.argv[1], client=client).reasons)}")
"""


def test_a_killed_driver_goes_on_from_the_last_segment(out, tmp_path, executions):
    program = tmp_path / "program.py"
    program.write_text(KILLED)
    command = [sys.executable, str(program), out, str(executions)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        while len(results.segment_names(out)) < 2:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    committed = sum(len(result_segments.read(out, name, values=True)) for name in results.segment_names(out))
    assert 0 < committed < 600
    calls(executions)
    subprocess.run(command, check=True, capture_output=True)
    assert len(calls(executions)) == 600 - committed
    assert Results(out) == [item * 3 for item in range(600)]
