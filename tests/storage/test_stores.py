from __future__ import annotations

import pickle
import subprocess
import sys

import dask.base
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.errors import PlanError, StoreError, UsageError
from daskml_scale.plan.units import Template, Variable
from daskml_scale.storage import files, stores, tables


@pytest.fixture
def url(store: str) -> str:
    return f"{store}/a.zarr"


def template(rows: int = 5, chunk: int = 2, shard: int | None = None, **attrs) -> Template:
    shards = None if shard is None else (shard, 3)
    return Template(
        "row",
        rows,
        {
            "x": Variable("float64", ("row",), (rows,), (shard or chunk,)),
            "m": Variable("float32", ("row", "feature"), (rows, 3), (chunk, 3), shards),
            "feature": Variable("string", ("feature",), (3,), (3,)),
        },
        attrs,
        {"feature": ["a", "b", "c"]},
    )


def fill(url: str, rows: int = 5, unit: int = 2) -> dict:
    written = {}
    for start in range(0, rows, unit):
        n = min(unit, rows - start)
        x = np.arange(start, start + n, dtype="float64")
        written.update(stores.write_region(url, start, {"x": x, "m": np.repeat(x[:, None], 3, 1).astype("f4")}))
    return written


def test_what_is_written_is_read_back_by_xarray(url):
    stores.create(url, template(hello=1))
    fill(url)
    ds = stores.open_dataset(url)
    assert ds.x.values.tolist() == [0, 1, 2, 3, 4]
    assert ds.m.sel(feature="b").values.tolist() == [0, 1, 2, 3, 4]
    assert ds.attrs["hello"] == 1
    assert "x" not in ds.indexes


def test_creating_again_keeps_data_and_follows_attributes_and_rows(url):
    stores.create(url, template())
    fill(url)
    stores.create(url, template(rows=7, note="new"))
    ds = stores.open_dataset(url)
    assert ds.x.values[:5].tolist() == [0, 1, 2, 3, 4]
    assert (ds.sizes["row"], ds.attrs["note"]) == (7, "new")


def test_another_layout_is_written_anew(url):
    stores.create(url, template())
    fill(url)
    stores.create(url, template(chunk=5))
    assert np.isnan(stores.open_dataset(url).x.values).all()


def test_what_is_not_ours_is_never_replaced(tmp_path):
    import zarr

    foreign = tmp_path / "f.zarr"
    zarr.open_group(foreign, mode="w").create_array("x", shape=(2,), dtype="i4")
    with pytest.raises(StoreError, match=r"f\.zarr was not written by daskml-scale; move it away"):
        stores.create(str(foreign), template())
    folder = tmp_path / "photos.zarr"
    folder.mkdir()
    (folder / "a.jpg").write_text("x")
    with pytest.raises(StoreError, match="not a Zarr dataset"):
        stores.create(str(folder), template())
    assert (folder / "a.jpg").exists()


def test_a_misaligned_region_is_refused_with_both_numbers_and_the_fix(url):
    stores.create(url, template(rows=8, chunk=2, shard=4))
    with pytest.raises(PlanError, match=r"rows \[2, 6\) do not cover whole objects of 4 rows.*multiple of 4"):
        stores.write_region(url, 2, {"m": np.zeros((4, 3), "f4")})
    with pytest.raises(PlanError, match=r"rows \[4, 9\)"):
        stores.write_region(url, 4, {"x": np.zeros(5)})


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 30), chunk=st.integers(1, 7), shards=st.integers(1, 4))
def test_every_row_survives_any_grid(rows, chunk, shards):
    """da.store of misaligned shards lost 30 % (zarr#3682): every grid must give back every row."""
    url, shard = f"memory://grid-{rows}-{chunk}-{shards}/a.zarr", chunk * shards
    stores.create(url, template(rows, chunk, shard))
    fill(url, rows, shard)
    assert stores.open_dataset(url).m.values[:, 1].tolist() == list(range(rows))


def test_an_object_of_fill_values_is_not_stored_and_still_has_an_identity(url):
    stores.create(url, template())
    written = stores.write_region(url, 0, {"x": np.full(2, np.nan)})
    assert written == {"x/c/0": (stores.ABSENT, 0, 0)}
    assert stores.unchanged(url, "x/c/0", written["x/c/0"])


def test_ids_follow_the_bytes_and_the_meaning_of_the_codes(url):
    stores.create(url, template())
    fill(url)
    before = stores.snapshot(url)
    stores.write_region(url, 2, {"x": np.array([9.0, 9.0])})
    changed = stores.snapshot(url)
    assert before is not None
    assert changed is not None
    assert [a == b for a, b in zip(before.ids["x"], changed.ids["x"], strict=True)] == [True, False, True]
    assert before.ids["m"] == changed.ids["m"]
    relabelled = template()
    relabelled.variables["x"].attrs["categories"] = ["a"]  # type: ignore[index]
    stores.create(url, relabelled)
    meaning = stores.snapshot(url)
    assert meaning is not None
    assert not set(meaning.ids["x"]) & set(changed.ids["x"])


def test_altered_and_vanished_objects_are_noticed(tmp_path):
    url = str(tmp_path / "a.zarr")
    stores.create(url, template())
    written = fill(url)
    assert all(stores.unchanged(url, key, known) for key, known in written.items())
    path = tmp_path / "a.zarr" / "x" / "c" / "1"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert not stores.unchanged(url, "x/c/1", written["x/c/1"])
    path.write_bytes(content)  # another mtime, the same bytes
    assert stores.unchanged(url, "x/c/1", written["x/c/1"])
    path.unlink()
    assert not stores.unchanged(url, "x/c/1", written["x/c/1"])


def test_a_torn_shard_is_replaced_not_read(tmp_path):
    url = str(tmp_path / "a.zarr")
    stores.create(url, template(rows=7, chunk=2, shard=4))
    fill(url, rows=7, unit=4)
    path = tmp_path / "a.zarr" / "m" / "c" / "1" / "0"
    path.write_bytes(path.read_bytes()[:10])
    fill(url, rows=7, unit=4)
    assert stores.open_dataset(url).m.values[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_source_of_knows_unmodified_selections_only(url):
    stores.create(url, template())
    fill(url)
    ds = stores.open_dataset(url)
    assert stores.source_of(ds) == url
    assert stores.source_of(ds[["x"]]) == url
    assert stores.source_of(ds.isel(row=slice(0, 2))) is None
    assert stores.source_of(ds.assign(y=ds.x + 1)) is None
    assert stores.source_of(ds.rename(x="z")) is None
    assert stores.source_of(ds.load()) is None


def test_an_interrupted_creation_is_made_anew(tmp_path):
    import zarr

    url = str(tmp_path / "a.zarr")
    zarr.open_group(url, mode="w", attributes={stores.MARK: {"layout": ""}}).create_array("x", shape=(2,), dtype="i4")
    found = stores.snapshot(url)
    assert found is not None
    assert not found.known
    stores.create(url, template())
    fill(url)
    assert stores.open_dataset(url).x.values.tolist() == [0, 1, 2, 3, 4]


def test_unsupported_schemes_are_refused_by_name():
    with pytest.raises(UsageError, match="'ftp' is not supported; use a local path, memory://NAME, s3://"):
        files.normal("ftp://host/x")


def test_no_permission_is_explained(tmp_path):
    """Root may write anywhere: the child drops to an unprivileged user first."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and str(folder).startswith("/tmp/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    closed.chmod(0o555)
    program = (
        "import os\n"
        "from daskml_scale.storage import files\n"  # before: the unprivileged user may not read the interpreter
        "if os.getuid() == 0:\n    os.setgid(65534)\n    os.setuid(65534)\n"
        f"files.write_bytes({str(closed / 'x')!r}, b'')\n"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert child.returncode == 1
    assert "StoreError: no permission to write" in child.stderr


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.datetimes(min_value=__import__("datetime").datetime(1700, 1, 1),
                                          max_value=__import__("datetime").datetime(2200, 1, 1))),
        min_size=1, max_size=20,
    )
)  # fmt: skip
def test_times_survive_storage_exactly(instants):
    values = np.array([np.datetime64("NaT") if i is None else np.datetime64(i) for i in instants], "M8[ns]")
    kind = tables.column_type(values)
    assert (tables.decode(tables.encode(values, kind), kind.attrs).view("i8") == values.view("i8")).all()


def test_categories_are_cf_and_lossless(tmp_path):
    values = tables.categorize(["Fixed wing", None, "b", "Fixed wing"])
    kind = tables.column_type(values)
    assert kind.attrs["flag_meanings"] == "Fixed_wing b"
    assert kind.attrs["categories"] == ["Fixed wing", "b"]
    back = tables.decode(tables.encode(values, kind), kind.attrs)
    assert (back.codes.tolist(), back.labels) == ([0, -1, 1, 0], ("Fixed wing", "b"))


def test_xarray_and_our_own_reader_agree(tmp_path):
    url = str(tmp_path / "t.zarr")
    columns = {
        "t": np.array(["2013-01-01T10:15", "NaT"], "M8[ns]"),
        "n": np.array([1, 2]),
        "f": np.array([np.nan, 2.5]),
    }
    kinds = {name: tables.column_type(values) for name, values in columns.items()}
    stores.create(url, Template("row", 2, {name: kind.variable("row", 2, 2) for name, kind in kinds.items()}))
    stores.write_region(url, 0, {name: tables.encode(values, kinds[name]) for name, values in columns.items()})
    ds = stores.open_dataset(url)
    ours = tables.read_columns(url, list(columns))
    theirs = tables.from_dataset(ds)
    for name in columns:
        np.testing.assert_array_equal(ours[name], theirs[name])
        np.testing.assert_array_equal(ours[name], columns[name])


def test_equal_values_have_equal_bytes_whoever_encodes_them(tmp_path):
    """Blosc with several threads would order its blocks by chance; 16 MiB are many blocks."""
    program = (
        "import sys, threading, numpy as np\n"
        "from daskml_scale.plan.units import Template, Variable\n"
        "from daskml_scale.storage import stores\n"
        "url, x = sys.argv[1], np.random.default_rng(0).normal(20, 5, 1 << 21).round(1)\n"
        "stores.create(url, Template('row', 1 << 21, {'x': Variable('float64', ('row',), (1 << 21,), (1 << 21,))}))\n"
        "def write():\n    print(stores.write_region(url, 0, {'x': x})['x/c/0'][0])\n"
        "write()\n"
        "other = threading.Thread(target=write); other.start(); other.join()\n"
    )
    children = [
        subprocess.run([sys.executable, "-c", program, str(tmp_path / f"{n}.zarr")], capture_output=True, check=True)
        for n in range(2)
    ]
    assert len({line for child in children for line in child.stdout.split()}) == 1


def test_an_interrupted_write_leaves_no_name_behind(tmp_path):
    """A process that is killed in mid-write leaves a hidden file at most, which nobody reads."""
    target = tmp_path / "a.ledger" / "00000001.seg"
    program = (
        "import sys\nfrom daskml_scale.storage import files\n"
        "print('go', flush=True)\nwhile True:\n    files.write_bytes(sys.argv[1], b'x' * 30_000_000)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(target)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    while not list(target.parent.glob(".*")):
        pass
    child.kill()
    child.wait()
    assert files.names(str(target.parent)) in ([], [target.name])
    assert (files.read_bytes(str(target)) or b"x" * 30_000_000) == b"x" * 30_000_000


def test_only_the_variables_that_a_plan_asks_for_are_hashed(tmp_path):
    url = f"{tmp_path}/a.zarr"
    variables = {name: Variable("float64", ("row",), (8,), (2,)) for name in "xyz"}
    stores.create(url, Template("row", 8, variables))
    for name in "xyz":
        stores.write_region(url, 0, {name: np.arange(8.0)})
    known: dict[str, tuple[int, int, str]] = {}
    found = stores.snapshot(url, known=known, lazy=True)
    assert found.known
    assert not known
    assert len(found.row_ids(["y"], 0, 4)) == 2
    assert sorted(known) == [f"{url}/y/c/{number}" for number in range(4)]
    assert pickle.loads(pickle.dumps(found)).ids == {"y": found.ids["y"]}
    assert set(found.ids) == set(variables)
    assert found.ids == dict(stores.snapshot(url).ids)
    assert dask.base.tokenize(found.ids) == dask.base.tokenize(stores.snapshot(url, lazy=True).ids)


@pytest.mark.parametrize("fill", [0.0, float("nan"), 7.0])
def test_objects_are_those_that_zarr_itself_writes(tmp_path, fill):
    """Also where the first value of an object is the fill value, or minus zero, and the others are not."""
    url = f"{tmp_path}/a.zarr"
    variable = Variable("float64", ("row", "column"), (7, 4), (2, 2), fill=fill)
    stores.create(url, Template("row", 7, {"x": variable, "y": variable}))
    values = np.arange(1.0, 29.0).reshape(7, 4)
    values[2:4, :2] = fill
    values[4, 0] = fill
    values[4:6, 2:] = -0.0
    stores.write_region(url, 0, {"x": values})
    stores.write_region(url, 0, {"x": values[:2]})
    zarr.open_array(f"{url}/y", mode="r+")[:] = values

    def objects(name: str) -> dict[str, bytes]:
        folder = tmp_path / "a.zarr" / name / "c"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert objects("x") == objects("y")
    assert "1/0" not in objects("x")
    np.testing.assert_array_equal(stores.open_dataset(url).x.values, values)
