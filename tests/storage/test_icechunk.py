"""Icechunk: data, ledger and quarantine of a wave in one commit; readers, rollback, conflicts, identities."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from storage_helpers import icechunk_or_skip, new_store

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import ConflictError, StoreError, UsageError
from daskml_scale.plan.records import Record
from daskml_scale.plan.units import Outcome, Template, Unit, Variable
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.lock import hold
from daskml_scale.storage.transactions import Pass, rollback, runs, transaction

READER = textwrap.dedent(
    """
    import sys, zarr, icechunk
    repo = icechunk.Repository.open(icechunk.local_filesystem_storage(sys.argv[1]))
    for line in sys.stdin:
        store = repo.readonly_session("main").store
        written = int((zarr.open_array(store, path="a.zarr/x", mode="r")[:] != 0).sum())
        root = zarr.open_group(store, mode="r")
        segments = [name for name in root["a.ledger"].array_keys()] if "a.ledger" in root else []
        print(written, len(segments), flush=True)
    """
)


@pytest.fixture(params=["icechunk+file", "icechunk+s3"])
def store(request: pytest.FixtureRequest, tmp_path) -> str:
    return new_store(request.param, request, tmp_path)


@pytest.fixture
def local(tmp_path) -> str:
    icechunk_or_skip()
    return f"icechunk+file://{tmp_path}/store"


def table(url: str, rows: int = 8) -> str:
    stores.create(url, Template("row", rows, {"x": Variable("int64", ("row",), (rows,), (2,))}))
    return url


def write(url: str):
    """Return a kernel that writes its start plus one into two rows."""

    def kernel(unit: Unit, worker: object) -> dict:
        return stores.write_region(url, unit.payload, {"x": np.full(2, unit.payload + 1)})

    return kernel


def outcome(start: int, value: object) -> Outcome:
    return Outcome(Unit(f"rows/{start}", start), value)


def record(start: int, chunks: dict) -> Record:
    return Record(f"rows/{start}", "f", "d", "ok", chunks=chunks)


def test_a_reader_elsewhere_never_sees_half_a_wave(local):
    url = table(f"{local}/a.zarr")
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, local.removeprefix("icechunk+file://")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip

    def seen() -> tuple[int, ...]:
        assert reader.stdin is not None
        assert reader.stdout is not None
        reader.stdin.write("\n")
        reader.stdin.flush()
        return tuple(map(int, reader.stdout.readline().split()))

    assert seen() == (0, 0)
    one = Pass(url, run="r")
    kernel = one.kernel(write(url))
    group = [
        outcome(0, kernel(Unit("rows/0", 0), WorkerContext())),
        outcome(2, kernel(Unit("rows/2", 2), WorkerContext())),
    ]
    assert seen() == (0, 0)
    with one.commit(group) as outcomes:
        assert seen() == (0, 0)
        ledger = Ledger(f"{local}/a.ledger")
        ledger.append([record(out.unit.payload, out.value) for out in outcomes])
        files.write_json(f"{local}/a.quarantine.json", {"rows": []})
        assert seen() == (0, 0)
    assert seen() == (4, 1)
    assert reader.stdin is not None
    reader.stdin.close()
    reader.wait()


def test_a_wave_that_fails_leaves_nothing(store):
    url = table(f"{store}/a.zarr")
    one = Pass(url)
    value = one.kernel(write(url))(Unit("rows/0", 0), WorkerContext())

    def half_a_commit() -> None:
        with one.commit([outcome(0, value)]) as outcomes:
            Ledger(f"{store}/a.ledger").append([record(0, outcomes[0].value)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_a_commit()
    assert not Ledger(f"{store}/a.ledger").records()
    assert stores.read_raw(url, "x", 0, 8)[0].tolist() == [0] * 8
    with one.commit([outcome(0, value)]) as outcomes:  # the fork is still good
        Ledger(f"{store}/a.ledger").append([record(0, outcomes[0].value)])
    assert stores.read_raw(url, "x", 0, 2)[0].tolist() == [1, 1]


def test_forks_of_one_pass_are_committed_wave_by_wave(store):
    url = table(f"{store}/a.zarr")
    one = Pass(url, run="r", stage="s")
    kernel = one.kernel(write(url))
    values = {start: kernel(Unit(f"rows/{start}", start), WorkerContext()) for start in (0, 2, 4, 6)}
    for wave in ((2,), (6, 0), (4,)):
        with one.commit([outcome(start, values[start]) for start in wave]):
            pass
    assert stores.read_raw(url, "x", 0, 8)[0].tolist() == [1, 1, 3, 3, 5, 5, 7, 7]


def test_a_failed_unit_of_a_wave_writes_nothing(store):
    url = table(f"{store}/a.zarr")

    def broken(unit: Unit, worker: object) -> None:
        stores.write_region(url, 0, {"x": np.array([9, 9])})
        raise ZeroDivisionError

    one = Pass(url)
    with pytest.raises(ZeroDivisionError):
        one.kernel(broken)(Unit("rows/0", 0), WorkerContext())
    good = one.kernel(write(url))(Unit("rows/2", 2), WorkerContext())
    with one.commit([Outcome(Unit("rows/0", 0), error="ZeroDivisionError"), outcome(2, good)]):
        pass
    assert stores.read_raw(url, "x", 0, 4)[0].tolist() == [0, 0, 3, 3]


def test_somebody_elses_commit_meanwhile_refuses_ours_whole(local):
    url = table(f"{local}/a.zarr")
    other = textwrap.dedent(
        f"""
        import numpy as np
        from daskml_scale.storage import stores
        stores.write_region({url!r}, 0, {{"x": np.array([5, 5])}})
        """
    )

    def ours() -> None:
        with transaction(local, "ours"):
            stores.write_region(url, 2, {"x": np.array([6, 6])})
            subprocess.run([sys.executable, "-c", other], check=True)

    with pytest.raises(ConflictError, match="somebody else committed"):
        ours()
    assert stores.read_raw(url, "x", 0, 4)[0].tolist() == [5, 5, 0, 0]


def test_a_killed_driver_leaves_the_last_commit(local):
    url = table(f"{local}/a.zarr", rows=2000)
    program = textwrap.dedent(
        f"""
        import numpy as np
        from daskml_scale.engine.worker import WorkerContext
        from daskml_scale.plan.records import Record
        from daskml_scale.plan.units import Outcome, Unit
        from daskml_scale.storage import stores
        from daskml_scale.storage.ledger import Ledger
        from daskml_scale.storage.transactions import Pass
        url, ledger = {url!r}, Ledger({f"{local}/a.ledger"!r})
        one = Pass(url)
        def work(unit, worker):
            return stores.write_region(url, unit.payload, {{"x": np.full(2, unit.payload + 1)}})
        kernel = one.kernel(work)
        for start in range(0, 2000, 4):
            units = [Unit(str(s), s) for s in (start, start + 2)]
            with one.commit([Outcome(unit, kernel(unit, WorkerContext())) for unit in units]) as outcomes:
                ledger.append([Record(o.unit.key, "f", "d", "ok", chunks=o.value) for o in outcomes])
            print(start, flush=True)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 40:
            break
    time.sleep(0.01)
    child.kill()
    acknowledged = [40, *map(int, child.stdout.read().split())][-1]
    child.wait()
    done = {int(unit) for unit in Ledger(f"{local}/a.ledger").records()}
    assert done >= set(range(0, acknowledged + 4, 2))
    x = stores.read_raw(url, "x", 0, 2000)[0]
    assert {int(row) for row in np.flatnonzero(x) if row % 2 == 0} == done
    intact = stores.checker(url)
    assert all(intact(*item) for r in Ledger(f"{local}/a.ledger").records().values() for item in r.chunks.items())


def test_a_second_run_is_refused_and_told_who_holds_the_repository(store):
    holder = textwrap.dedent(
        f"""
        import sys
        from daskml_scale.storage.lock import hold
        with hold({store!r}, "run first"):
            print("held", flush=True)
            sys.stdin.read()
        """
    )
    child = subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "held"
    with pytest.raises(ConflictError, match=rf"in use by run first \(process {child.pid}"), hold(store, "run second"):
        pass
    child.communicate("")
    with hold(store, "run third"), hold(f"{store}/a.ledger", "its own part"):
        files.write_bytes(f"{store}/x", b"1")


def test_rollback_brings_back_an_earlier_run_with_its_ledger(store):
    url = table(f"{store}/a.zarr")
    for run, value in (("first", 1), ("second", 2)):
        stores.create(url, Template("row", 8, {"x": Variable("int64", ("row",), (8,), (2,))}, {"run": run}))
        for start in (0, 2):
            one = Pass(url, run=run)
            kernel = one.kernel(
                lambda unit, worker, value=value: stores.write_region(url, unit.payload, {"x": np.full(2, value)})
            )
            with one.commit([outcome(start, kernel(Unit("u", start), WorkerContext()))]) as outcomes:
                Ledger(f"{store}/a.ledger").append([record(start, outcomes[0].value)])
        files.write_json(f"{store}/summary.json", {"run": run})
    after = {unit: r.chunks for unit, r in Ledger(f"{store}/a.ledger").records().items()}
    assert [name for name, _ in runs(store)] == ["second", "first"]
    with pytest.raises(UsageError, match="no commit of run 'third'; its runs, newest first: second, first"):
        rollback(store, "third")
    rollback(store, "first")
    assert stores.read_raw(url, "x", 0, 4)[0].tolist() == [1, 1, 1, 1]
    assert files.read_json(f"{store}/summary.json") == {"run": "first"}
    before = Ledger(f"{store}/a.ledger").records()
    assert {unit: r.chunks for unit, r in before.items()} != after
    intact = stores.checker(url)
    assert all(intact(*item) for r in before.values() for item in r.chunks.items())
    assert [name for name, _ in runs(store)] == ["first"]


def test_rollback_of_another_store_is_refused(tmp_path):
    with pytest.raises(UsageError, match="only Icechunk repositories can be rolled back"):
        rollback(str(tmp_path), "x")


def test_a_repository_of_others_is_read_and_its_diffs_are_its_identities(tmp_path):
    icechunk_or_skip()
    import icechunk
    import zarr

    repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "theirs")))
    url = f"icechunk+file://{tmp_path}/theirs"

    def commit(change) -> None:
        session = repo.writable_session("main")
        change(session.store)
        session.commit("theirs")

    def fill(at: slice, value: int):
        return lambda store: zarr.open_array(store, path="x", mode="r+").__setitem__(at, value)

    def make(store) -> None:
        group = zarr.open_group(store, mode="a")
        group.create_array("x", shape=(8,), chunks=(2,), dtype="i8", dimension_names=["row"])[:] = 1

    commit(make)
    first = stores.snapshot(url)
    commit(fill(slice(2, 4), 5))
    known: dict = {}
    second = stores.snapshot(url, None, known)
    commit(fill(slice(6, 8), 7))
    third, fresh = stores.snapshot(url, None, known), stores.snapshot(url)
    assert first is not None
    assert second is not None
    assert third is not None
    assert fresh is not None

    def same(a, b) -> list[bool]:
        return [one == other for one, other in zip(a.ids["x"], b.ids["x"], strict=True)]

    assert same(first, second) == [True, False, True, True]
    assert same(second, third) == [True, True, True, False]
    assert fresh.ids == third.ids  # what was remembered changes nothing
    assert stores.open_dataset(url).x.values.tolist() == [1, 1, 5, 5, 1, 1, 7, 7]
    assert stores.open_dataset(url).attrs == {}


def test_only_commits_that_are_not_the_ledgers_are_looked_at(local):
    """A resume of many waves compares the one strange commit, and hashes what it touched."""
    url = table(f"{local}/a.zarr")
    one = Pass(url)
    kernel = one.kernel(write(url))
    written = {}
    for start in (0, 2, 4, 6):
        with one.commit([outcome(start, kernel(Unit("u", start), WorkerContext()))]) as outcomes:
            written.update(outcomes[0].value)
    intact = stores.checker(url)
    assert all(intact(key, known) for key, known in written.items())
    stores.write_region(url, 2, {"x": np.array([3, 3])})  # the same bytes again
    stores.write_region(url, 4, {"x": np.array([0, 0])})
    intact = stores.checker(url)
    assert [intact(f"x/c/{n}", written[f"x/c/{n}"]) for n in range(4)] == [True, True, False, True]


def test_a_folder_of_other_things_is_no_repository(tmp_path):
    icechunk_or_skip()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("x")
    url = f"icechunk+file://{tmp_path}/photos"
    with pytest.raises(StoreError, match=r"photos holds a\.jpg and is no Icechunk repository"), hold(url, "run"):
        pass
    assert os.listdir(tmp_path / "photos") in (["a.jpg", ".lock"], [".lock", "a.jpg"])


def test_reading_where_there_is_no_repository_finds_nothing(store):
    assert files.read_bytes(f"{store}/a") is None
    assert files.names(f"{store}/a") == []
    assert stores.snapshot(f"{store}/a.zarr") is None
    files.remove(f"{store}/a")
    with pytest.raises(StoreError, match=r"a\.zarr is not a Zarr group"):
        stores.open_dataset(f"{store}/a.zarr")


def test_small_files_of_any_bytes_come_back(store):
    with pytest.raises(StoreError, match="there is no Icechunk repository at or above it"):
        files.write_bytes(f"{store}/models/m/x.skops", b"")
    with hold(store, "run"):
        pass
    for content in (b"", b"\0", b"\0" * 1000, os.urandom(3000)):
        files.write_bytes(f"{store}/models/m/x.skops", content)
        assert files.read_bytes(f"{store}/models/m/x.skops") == content
    assert files.names(f"{store}/models") == ["m"]
    assert files.stat(f"{store}/models/m/x.skops") == (3000, 0)
    files.remove(f"{store}/models")
    assert files.names(store) == []


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="where Icechunk 2 can be")
def test_where_icechunk_cannot_be_the_remedy_is_named():
    with pytest.raises(StoreError, match=r"icechunk 2 and Python 3\.12 or newer|and 2 is needed"):
        files.read_bytes("icechunk+file:///nowhere/a")
