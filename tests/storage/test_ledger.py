from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from daskml_scale.errors import ConflictError, StoreError
from daskml_scale.plan.records import Record
from daskml_scale.plan.units import Parts
from daskml_scale.storage import files
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.lock import hold


@pytest.fixture(params=["local", "memory"])
def url(request, tmp_path: Path) -> str:
    return str(tmp_path / "a.ledger") if request.param == "local" else f"memory://{tmp_path.name}{id(request)}/a.ledger"


def record(unit: str, **values) -> Record:
    return Record(unit, values.pop("fingerprint", "f"), "d", "ok", parts=Parts("c"), **values)


def test_records_come_back_equal_and_the_newest_wins(url):
    ledger = Ledger(url)
    chunks = {"x/c/0": ("d", 10, 123)}
    ledger.append([record("a", chunks=chunks, rows=3, result={"n": [1, None]}, seconds=0.5, worker="cpu-0")])
    ledger.append([record("b"), record("a", fingerprint="g")])
    again = Ledger(url).records()
    assert again == ledger.records()
    assert again["a"].fingerprint == "g"
    assert Ledger(url).records()["b"].parts == Parts("c")


@pytest.mark.parametrize("result", [0, 0.0, False, "", {}, [], None, {"a": 0}])
def test_every_result_comes_back_as_it_was(url, result):
    Ledger(url).append([record("a", result=result)])
    found = Ledger(url).records()["a"].result
    assert found == result
    assert type(found) is type(result)


def test_compaction_keeps_what_is_named_and_leaves_one_segment(url):
    ledger = Ledger(url)
    for unit in "cab":
        ledger.append([record(unit)])
    ledger.compact(keep=["a", "c"])
    assert len(files.names(url)) == 1
    assert list(Ledger(url).records()) == ["a", "c"]
    ledger.append([record("d")])
    assert sorted(Ledger(url).records()) == ["a", "c", "d"]


def test_few_small_segments_beside_a_large_one_are_not_written_again(url):
    ledger = Ledger(url)
    ledger.append([record(f"{number:03d}") for number in range(100)])
    for number in range(7):
        ledger.append([record(f"{number:03d}", rows=1)])
        ledger.compact()
    assert len(files.names(url)) == 8
    assert Ledger(url).records().total("rows") == 7
    ledger.append([record("007", rows=1)])
    ledger.compact()
    assert len(files.names(url)) == 1
    assert Ledger(url).records().total("rows") == 8


def test_a_crash_between_compaction_and_clean_up_loses_and_doubles_nothing(url):
    ledger = Ledger(url)
    ledger.append([record("a")])
    ledger.append([record("b")])
    kept = {name: files.read_bytes(files.join(url, name)) for name in files.names(url)}
    ledger.compact()
    for name, content in kept.items():
        files.write_bytes(files.join(url, name), content)
    assert sorted(Ledger(url).records()) == ["a", "b"]


@pytest.mark.parametrize("damage", [slice(0, -20), slice(0, 30), slice(0, 0), slice(1, None)])
def test_a_half_written_segment_is_left_out_and_named_until_compaction(url, damage):
    for unit in "abc":
        Ledger(url).append([record(unit)])
    name = files.names(url)[1]
    files.write_bytes(files.join(url, name), (files.read_bytes(files.join(url, name)) or b"")[damage])
    ledger = Ledger(url)
    assert sorted(ledger.records()) == ["a", "c"]
    assert ledger.torn == (name,)
    ledger.append([record("b")])
    assert sorted(Ledger(url).records()) == ["a", "b", "c"]
    ledger.compact()
    again = Ledger(url)
    assert (sorted(again.records()), again.torn) == (["a", "b", "c"], ())


def test_a_flipped_bit_is_noticed(url):
    Ledger(url).append([record("a", rows=1)])
    (name,) = files.names(url)
    whole = files.read_bytes(files.join(url, name)) or b""
    for place in range(0, len(whole), 7):
        if not 8 <= place < 12:  # the version
            files.write_bytes(files.join(url, name), whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            ledger = Ledger(url)
            assert (len(ledger.records()), ledger.torn) == (0, (name,))


VERSION_1 = (
    '{"format":1,"parts":[["c","m","p","s"]],"records":['
    '{"unit":"scan","fingerprint":"f1","digest":"d1","status":"ok","result":{"rows":3},"inputs":"i","seconds":0.5,"parts":0},'
    '{"unit":"rows/00000000","fingerprint":"f2","digest":"d2","status":"ok","rows":3,"worker":"cpu-1","attempt":2,'
    '"chunks":{"x/c/0":["d",10,123]},"parts":0},'
    '{"unit":"rows/00000001","fingerprint":"f3","status":"failed","error":"Boom","parts":0}]}'
)


def test_segments_of_version_1_are_read_and_compacted_into_new_ones(url):
    files.write_bytes(files.join(url, "00000001.json"), VERSION_1.encode())
    ledger = Ledger(url)
    parts = Parts("c", "m", "p", "s")
    wanted = {
        "scan": Record("scan", "f1", "d1", "ok", result={"rows": 3}, inputs="i", seconds=0.5, parts=parts),
        "rows/00000000": Record(
            "rows/00000000", "f2", "d2", "ok", 3, 2, "", parts, chunks={"x/c/0": ("d", 10, 123)}, worker="cpu-1"
        ),
        "rows/00000001": Record("rows/00000001", "f3", "", "failed", parts=parts, error="Boom"),
    }
    assert dict(ledger.records()) == wanted
    ledger.append([record("new")])
    ledger.compact()
    assert files.names(url) == ["00000003.seg"]
    assert dict(Ledger(url).records()) == {**wanted, "new": record("new")}


def test_a_ledger_of_a_newer_version_is_refused_and_not_taken_for_torn(url):
    Ledger(url).append([record("a")])
    (name,) = files.names(url)
    whole = files.read_bytes(files.join(url, name)) or b""
    for later, content in (
        ("00000002.seg", whole[:8] + (3).to_bytes(4, "little") + whole[12:]),
        ("00000002.json", b'{"format":3,"records":"elsewhere"}'),
    ):
        files.write_bytes(files.join(url, later), content)
        with pytest.raises(
            StoreError, match=rf"{later} was written by a newer daskml-scale \(ledger version 3, this one"
        ):
            Ledger(url).records()
        files.remove(files.join(url, later))
    files.write_bytes(files.join(url, "00000002.parquet"), b"?")
    with pytest.raises(StoreError, match=r"00000002.parquet is no ledger segment that this version"):
        Ledger(url).records()


def test_the_order_of_segments_is_their_number_whatever_the_clock_says(tmp_path):
    url = str(tmp_path / "a.ledger")
    for number in range(12):
        Ledger(url).append([record("a", rows=number)])
    for number, path in enumerate(sorted(Path(url).iterdir())):
        os.utime(path, (10_000 - number, 10_000 - number))
    assert Ledger(url).records()["a"].rows == 11


def test_marked_units_keep_what_they_were_but_for_their_status(url):
    ledger = Ledger(url)
    ledger.append([record("a", rows=3), record("b")])
    ledger.mark({"a": "torn"})
    found = Ledger(url).records()
    assert (found["a"].status, found["a"].rows, found["b"].status) == ("torn", 3, "ok")


def test_appending_does_not_read_the_ledger_again(url, monkeypatch):
    ledger = Ledger(url)
    ledger.append([record("a")])
    monkeypatch.setattr(files, "read_bytes", None)
    ledger.append([record("b")])
    assert sorted(ledger.records()) == ["a", "b"]


def test_results_are_kept_apart_from_the_segments(url):
    ledger = Ledger(url)
    assert ledger.result() is None
    ledger.put_result({"auc": 0.7})
    assert Ledger(url).result() == {"auc": 0.7}
    assert Ledger(url).records() == {}


def test_every_acknowledged_segment_survives_kill_9(tmp_path):
    """The child acknowledges each segment after append returned; whatever it acknowledged must be there."""
    url = str(tmp_path / "k.ledger")
    program = textwrap.dedent(
        f"""
        from daskml_scale.plan.records import Record
        from daskml_scale.storage.ledger import Ledger
        ledger = Ledger({url!r})
        for number in range(100_000):
            ledger.append([Record(str(number), "f", "d", "ok")])
            print(number, flush=True)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 30:
            break
    os.kill(child.pid, signal.SIGKILL)
    acknowledged = [int(line) for line in child.stdout.read().split()] or [30]
    child.wait()
    assert set(map(str, range(acknowledged[-1] + 1))) <= set(Ledger(url).records())


def test_a_second_driver_is_refused_and_told_who_holds_the_store(tmp_path):
    store = str(tmp_path / "store")
    held_by = rf"in use by run one \(process {os.getpid()}\)"
    with hold(store, "run one"), pytest.raises(ConflictError, match=held_by), hold(store, "run two"):
        pass
    with hold(store, "run three"):
        pass


def test_the_lock_of_a_killed_driver_is_free(tmp_path):
    store = str(tmp_path / "store")
    program = (
        "import time\nfrom daskml_scale.storage.lock import hold\n"
        f"with hold({store!r}, 'x'):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline().strip() == "held"
    child.kill()
    child.wait()
    started = time.monotonic()
    with hold(store, "next"):
        assert time.monotonic() - started < 5
