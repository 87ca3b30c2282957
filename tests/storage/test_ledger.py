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


def test_a_crash_between_compaction_and_clean_up_loses_and_doubles_nothing(url):
    ledger = Ledger(url)
    ledger.append([record("a")])
    ledger.append([record("b")])
    kept = {name: files.read_bytes(files.join(url, name)) for name in files.names(url)}
    ledger.compact()
    for name, content in kept.items():
        files.write_bytes(files.join(url, name), content)
    assert sorted(Ledger(url).records()) == ["a", "b"]


def test_a_damaged_segment_is_named_with_the_remedy(url):
    Ledger(url).append([record("a")])
    name = files.names(url)[0]
    files.write_bytes(files.join(url, name), files.read_bytes(files.join(url, name))[:-20])
    with pytest.raises(
        StoreError, match=rf"{name} is not a ledger segment.*remove that file: its units will run again"
    ):
        Ledger(url).records()


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
