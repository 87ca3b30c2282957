"""What is wrong is refused or repaired, by name: metadata, torn objects, permissions, full disks, clocks, versions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zarr
from storage_helpers import Double, table, values

from daskml_scale.errors import PlanError, StoreError, UnitsFailedError
from daskml_scale.plan.units import Template, Variable
from daskml_scale.stages.accounting import LAST
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger


@pytest.fixture
def stage(tmp_path: Path) -> Double:
    return Double("d", f"{tmp_path}/d.ledger", input=table(f"{tmp_path}/x.zarr"))


def one_variable(rows: int = 8, **fields: object) -> Template:
    return Template("row", rows, {"x": Variable("float64", ("row",), (rows,), (2,), **fields)})


def edit(path: Path, change) -> None:
    """Change a JSON file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_shards_that_hold_no_whole_chunks_are_refused_with_shards_that_do(tmp_path):
    with pytest.raises(
        PlanError, match=r"x: shards of 5 along row do not hold whole chunks of 2; use shards of 4 or 6"
    ):
        stores.create(f"{tmp_path}/a.zarr", one_variable(shards=(5,)))
    assert not (tmp_path / "a.zarr").exists()


def test_variables_that_disagree_about_a_dimension_are_both_named(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("x", shape=(4,), dtype="i4", dimension_names=["row"])
    group.create_array("y", shape=(5,), dtype="i4", dimension_names=["row"])
    with pytest.raises(PlanError, match=r"a\.zarr: x has 4 elements along row, y has 5"):
        stores.snapshot(f"{tmp_path}/a.zarr")


def test_an_unknown_codec_is_named_with_the_remedy(stage, tmp_path):
    def change(content) -> None:
        content["codecs"].append({"name": "nonesuch", "configuration": {}})

    edit(tmp_path / "x.zarr" / "x" / "zarr.json", change)
    for look in (
        lambda: stores.snapshot(stage.input),
        lambda: stores.open_dataset(stage.input),
        lambda: run_stage(stage),
    ):
        with pytest.raises(StoreError, match=r"x\.zarr.*nonesuch.*a newer zarr, or the package of its codec"):
            look()


@pytest.mark.parametrize("broken", ['{"zarr_format": 3, "node_type": "gr', "[]", '{"zarr_format": 4}'])
def test_group_metadata_that_makes_no_sense_is_named(tmp_path, broken):
    stores.create(f"{tmp_path}/a.zarr", one_variable())
    (tmp_path / "a.zarr" / "zarr.json").write_text(broken)
    with pytest.raises(StoreError, match=r"a\.zarr: its metadata cannot be read by zarr"):
        stores.open_dataset(f"{tmp_path}/a.zarr")


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_torn_chunk_of_the_input_fails_its_unit_by_name(stage, tmp_path, damage):
    """Blosc without a checksum would give other values here, and no error."""
    path = tmp_path / "x.zarr" / "x" / "c" / "3"
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] if damage == "cut" else content[:half] + b"?" + content[half + 1 :])
    with pytest.raises(
        (StoreError, UnitsFailedError), match=r"x\.zarr/x: a stored object of \[6, 8\) cannot be decoded"
    ):
        run_stage(stage)
    path.write_bytes(content)
    run_stage(stage)
    assert LAST[-1].reused == 19


@pytest.mark.parametrize("size", [0, 10])
def test_a_truncated_chunk_of_the_output_is_made_again(stage, tmp_path, size):
    run_stage(stage)
    path = tmp_path / "d.zarr" / "y" / "c" / "3"
    content = path.read_bytes()
    path.write_bytes(content[:size])
    run_stage(stage)
    assert LAST[-1].reused == 19
    assert path.read_bytes() == content


@pytest.mark.filterwarnings("ignore:Object at y is not recognized")
def test_an_array_without_its_metadata_keeps_its_objects(stage, tmp_path):
    run_stage(stage)
    (tmp_path / "d.zarr" / "y" / "zarr.json").unlink()
    run_stage(stage)
    assert LAST[-1].reused == 20
    assert values(stage) == [2.0 * n for n in range(1, 41)]


def test_a_dataset_without_its_metadata_is_ours_by_its_ledger(stage, tmp_path):
    run_stage(stage)
    (tmp_path / "d.zarr" / "zarr.json").unlink()
    run_stage(stage)
    assert LAST[-1].reused == 20
    assert values(stage) == [2.0 * n for n in range(1, 41)]


def test_a_file_in_the_place_of_a_dataset_is_not_replaced(tmp_path):
    (tmp_path / "a.zarr").write_text("mine")
    with pytest.raises(StoreError, match=r"a\.zarr"):
        stores.create(f"{tmp_path}/a.zarr", one_variable())
    assert (tmp_path / "a.zarr").read_text() == "mine"


def test_a_read_only_folder_is_explained_before_anything_runs(tmp_path):
    """Root may write anywhere: the child drops to an unprivileged user first."""
    closed = tmp_path / "closed"
    closed.mkdir()
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    closed.chmod(0o555)
    program = (
        "import os, sys\n"
        "from daskml_scale.plan.units import Template, Variable\n"
        "from daskml_scale.storage import stores, arrays, lock\n"  # before: that user may not read the interpreter
        "import zarr.codecs, zarr.core.group, numcodecs.blosc\n"
        "if os.getuid() == 0:\n    os.setgid(65534)\n    os.setuid(65534)\n"
        f"store = {str(closed)!r}\n"
        "template = Template('row', 2, {'x': Variable('float64', ('row',), (2,), (2,))})\n"
        "attempts = [lambda: lock.hold(store, 'run').__enter__(), lambda: stores.create(store + '/a.zarr', template)]\n"
        "for attempt in attempts:\n"
        "    try:\n        attempt()\n    except Exception as error:\n        print(type(error).__name__, error)\n"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    lines = child.stdout.splitlines()
    assert len(lines) == 2, child.stderr
    for line in lines:
        assert line.startswith("StoreError no permission to write"), line
        assert "closed" in line


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("mount"), reason="mounting a small file system needs root")
def test_a_disk_that_fills_in_mid_wave_keeps_what_is_committed(stage, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
    try:
        here = Double("d", f"{small}/d.ledger", input=stage.input)
        run_stage(Double("d", here.ledger, input=table(f"{tmp_path}/first.zarr", 4)))
        filler = small / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        with pytest.raises(
            (StoreError, UnitsFailedError), match="disk is full: free some space and run the same command"
        ):
            run_stage(here)
        filler.unlink()
        run_stage(here)
        assert LAST[-1].reused >= 2
        assert values(here) == [2.0 * n for n in range(1, 41)]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_two_writers_of_one_object_leave_one_of_both_whole(tmp_path):
    url = f"{tmp_path}/a.zarr"
    rows = 1 << 16
    stores.create(url, Template("row", rows, {"x": Variable("float64", ("row",), (rows,), (rows,))}))
    program = (
        "import sys, numpy as np\nfrom daskml_scale.storage import stores\n"
        f"x = np.random.default_rng(int(sys.argv[1])).random({rows})\n"
        "digests = {stores.write_region(sys.argv[2], 0, {'x': x})['x/c/0'][0] for _ in range(40)}\n"
        "print(*digests)\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", program, str(seed), url], stdout=subprocess.PIPE, text=True)
        for seed in range(2)
    ]
    seen = set()
    while any(child.poll() is None for child in children):
        seen.add(stores.object_id(url, "x/c/0")[0])
    written = {child.communicate()[0].strip() for child in children}
    assert len(written) == 2
    assert seen <= written | {stores.ABSENT}
    assert stores.object_id(url, "x/c/0")[0] in written
    assert not list((tmp_path / "a.zarr" / "x" / "c").glob(".*"))


def test_threads_write_regions_of_one_array_at_once(tmp_path):
    url = f"{tmp_path}/a.zarr"
    stores.create(url, Template("row", 400, {"x": Variable("float64", ("row",), (400,), (2,))}))

    def write(first: int) -> None:
        for start in range(first, 400, 16):
            stores.write_region(url, start, {"x": np.array([start, start + 1.0])})

    threads = [threading.Thread(target=write, args=(2 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores.open_dataset(url).x.values.tolist() == list(range(400))


def test_a_dataset_made_anew_elsewhere_is_not_written_by_an_older_schema(tmp_path):
    """This process holds the opened array; another one makes the dataset anew with other chunks."""
    url = f"{tmp_path}/a.zarr"
    stores.create(url, one_variable())
    stores.write_region(url, 0, {"x": np.arange(8.0)})
    program = (
        "import sys\nfrom daskml_scale.plan.units import Template, Variable\nfrom daskml_scale.storage import stores\n"
        "stores.create(sys.argv[1], Template('row', 9, {'x': Variable('float64', ('row',), (9,), (3,))}))\n"
    )
    subprocess.run([sys.executable, "-c", program, url], check=True)
    with pytest.raises(PlanError, match=r"rows \[2, 4\) do not cover whole objects of 3 rows"):
        stores.write_region(url, 2, {"x": np.zeros(2)})
    stores.write_region(url, 6, {"x": np.ones(3)})
    assert np.isnan(stores.open_dataset(url).x.values[:6]).all()
    assert stores.open_dataset(url).x.values[6:].tolist() == [1, 1, 1]


def test_a_clock_that_goes_backwards_hides_no_change(stage, tmp_path):
    run_stage(stage)
    for path, size in ((tmp_path / "d.zarr" / "y" / "c" / "0", 9.0), (tmp_path / "x.zarr" / "x" / "c" / "5", 7.0)):
        before = path.stat()
        name, url = ("y", stage.out) if "d.zarr" in str(path) else ("x", stage.input)
        stores.write_region(url, 0 if name == "y" else 10, {name: np.array([size, size])})
        os.utime(path, ns=(before.st_atime_ns - 10**15, before.st_mtime_ns - 10**15))
    run_stage(stage)
    assert LAST[-1].reused == 18
    assert values(stage)[0:2] == [2.0, 4.0]
    assert values(stage)[10:12] == [14.0, 14.0]


def test_the_newest_record_wins_whatever_the_clock_says(stage, tmp_path, monkeypatch):
    clock = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    run_stage(stage)
    stores.write_region(stage.input, 0, {"x": np.array([5.0, 5.0])})
    run_stage(stage)
    for number, segment in enumerate(sorted((tmp_path / "d.ledger").glob("0*"))):
        os.utime(segment, (10**9 - number, 10**9 - number))
    assert len(Ledger(stage.ledger).records()) == 20
    run_stage(stage)
    assert LAST[-1].reused == 20


def test_a_dataset_of_a_future_format_is_refused_and_not_touched(stage, tmp_path):
    run_stage(stage)
    path = tmp_path / "d.zarr" / "zarr.json"

    def change(content) -> None:
        content["attributes"][stores.MARK]["format"] = 7

    edit(path, change)
    content = path.read_text()
    stores.write_region(stage.input, 0, {"x": np.array([5.0, 5.0])})
    with pytest.raises(
        StoreError, match=r"d\.zarr has format 7, and this version of daskml-scale writes 1: a newer one"
    ):
        run_stage(stage)
    assert path.read_text() == content


def test_small_files_that_are_not_json_are_named(tmp_path):
    files.write_bytes(f"{tmp_path}/x.json", b'{"half')
    with pytest.raises(StoreError, match=r"x\.json is not JSON .*remove it, or restore it"):
        files.read_json(f"{tmp_path}/x.json")
